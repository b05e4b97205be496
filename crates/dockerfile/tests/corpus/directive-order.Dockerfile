# Syntax = docker/dockerfile:1.4
# ESCAPE=`
# check = skip=JSONArgsRecommended,StageNameCasing;error=false
FROM alpine AS Up
RUN a `
 b
CMD shell form
