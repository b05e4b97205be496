FROM alpine
RUN --mount=type=cache,target=/c x
RUN --mount=type=cache,target=/c,id=own x
#! --build-arg BUILDKIT_CACHE_MOUNT_NS=team
