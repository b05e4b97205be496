FROM alpine AS x
RUN first
FROM alpine AS x
RUN second
FROM x
COPY --from=x /f /
