FROM alpine
WORKDIR rel
WORKDIR /abs
WORKDIR sub/../other
WORKDIR /
WORKDIR .
WORKDIR "/with blank"
WORKDIR $unset/x
