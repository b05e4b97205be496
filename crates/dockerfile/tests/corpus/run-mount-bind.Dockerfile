FROM alpine AS tools
FROM alpine
WORKDIR /work
RUN --mount=target=/ctx ls /ctx
RUN --mount=type=bind,src=dir,dst=rel/path,rw make
RUN --mount=type=bind,source=/dir/../file,destination=/f,readonly=true cat /f
RUN --mount=from=tools,source=/usr/bin,target=/tools,readwrite=false x
RUN --mount=from=tools,target=/all --mount=from=0,source=usr,target=/usr2 --mount=from=busybox:1,target=/bb x
RUN --mount=Type=bind,TARGET=/a,ro x
RUN "--mount=target=/q,source=dir" x
RUN --mount='target=/csv,"source=dir"' x
