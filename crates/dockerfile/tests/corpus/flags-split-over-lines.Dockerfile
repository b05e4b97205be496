FROM alpine
COPY \
  --chown=1 \
  # a comment
  --chmod=600 \
  file \
  dir/inner \
  /target/
RUN --mount=type=tmpfs,target=/t \
    --network=none \
    true
