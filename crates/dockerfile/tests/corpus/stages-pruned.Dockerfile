FROM alpine AS used
RUN used
FROM alpine AS unused
RUN unused
FROM used AS target
RUN --mount=from=mounted,target=/m target
FROM alpine AS mounted
RUN mounted
FROM alpine AS after
RUN after
#! --target after
