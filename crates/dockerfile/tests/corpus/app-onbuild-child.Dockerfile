FROM node:20 AS parent
WORKDIR /app
ONBUILD ARG MODE=slow
ONBUILD RUN echo $MODE > mode
ONBUILD COPY <<EOF /made
of $MODE
EOF
FROM parent AS child
ARG MODE
RUN cat mode
FROM child
#! --build-arg MODE=quick
