FROM --platform=$BUILDPLATFORM alpine AS native
RUN native
FROM --platform=linux/arm64 alpine AS constant
RUN constant
FROM --platform=$TARGETPLATFORM alpine AS redundant
RUN redundant
FROM alpine
COPY --from=native /a /
COPY --from=constant /b /
COPY --from=redundant /c /
#! --platform linux/s390x --build-platform linux/amd64
