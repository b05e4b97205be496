FROM alpine
LABEL a=1 b="two words" c='$x'
LABEL legacy rest of the line
LABEL org.opencontainers.image.title="Title" \
      org.opencontainers.image.description="Line \
continued" \
      a=again
#! --label given=1 --label a=option
