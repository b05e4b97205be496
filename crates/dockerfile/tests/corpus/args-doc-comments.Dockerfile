# base is what everything stands on
FROM alpine AS base
# VERSION of the thing
ARG VERSION=1
# ADDRESS to fetch from
ARG ADDRESS
RUN --mount=type=secret,id=key,required --mount=type=ssh,id=host --mount=type=cache,target=/c echo

# release is built when nothing is asked for
FROM base AS release
