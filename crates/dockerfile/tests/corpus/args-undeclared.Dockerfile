ARG NAME=x
FROM alpine
ENV a=$NAME b=$NAEM
FROM alpine:$TAGG
ARG FOO=1
LABEL a=$FO
#! --build-arg UNUSED=1
