FROM alpine
ENV a=b \
    c=d
RUN echo \
  one \
# not part
  two
COPY <<EOF /f
line
EOF
