FROM alpine
ARG --foo x=1
STOPSIGNAL --bar SIGTERM
RUN echo $x
