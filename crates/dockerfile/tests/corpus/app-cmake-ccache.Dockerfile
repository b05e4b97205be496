FROM ubuntu:24.04 AS toolchain
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
ARG DEBIAN_FRONTEND=noninteractive
RUN rm -f /etc/apt/apt.conf.d/docker-clean; echo 'Binary::apt::APT::Keep-Downloaded-Packages "true";' > /etc/apt/apt.conf.d/keep-cache
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt,sharing=locked \
    apt-get update && apt-get install -y --no-install-recommends cmake ninja-build ccache g++

FROM toolchain AS build
WORKDIR /build
RUN --mount=type=bind,target=/src \
    --mount=type=cache,id=ccache-$TARGETARCH,target=/root/.cache/ccache \
    cmake -S /src -B . -G Ninja -DCMAKE_CXX_COMPILER_LAUNCHER=ccache && ninja install

FROM ubuntu:24.04
COPY --from=build /usr/local/ /usr/local/
CMD ["tool"]
