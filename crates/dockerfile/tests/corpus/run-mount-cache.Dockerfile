FROM alpine AS seed
FROM alpine
RUN --mount=type=cache,target=/root/.cache x
RUN --mount=type=cache,id=named,target=/c,sharing=locked,mode=0700,uid=1000,gid=1000 x
RUN --mount=type=cache,target=/c,sharing=private,ro x
RUN --mount=type=cache,target=/c,from=seed,source=/data x
RUN --mount=type=cache,target=./rel/../c x
