ARG EMPTY
FROM ${EMPTY:-alpine} AS Builder
Maintainer someone
EXPOSE 127.0.0.1:80:8080/TCP
WORKDIR rel
ENV key value
CMD one
CMD two
COPY file $undefined/
FROM alpine as Builder
ENTRYPOINT run it
FROM --platform=linux/arm64 alpine AS scratch
