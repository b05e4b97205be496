# syntax=docker/dockerfile:1
# unknown=thing
# escape=`
FROM alpine
RUN one \
  two
