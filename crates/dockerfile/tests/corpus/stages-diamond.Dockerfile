FROM alpine AS source
RUN make source
FROM source AS left
RUN make left
FROM source AS right
RUN make right
FROM scratch AS join
COPY --from=left /l/a /l/b /
COPY --from=right /r/ /r/
COPY --from=left /l/*.so /
COPY --from=source . /all/
