#!/usr/bin/env bash
# Makes stand-ins for the images that the examples start from, out of Debian packages, as OCI
# layouts below DIR, and pushes them to the registry HOST:PORT under library/<name>:<tag>.
# For machines that do not reach Docker Hub. Usage: standins.sh DIR HOST:PORT
set -euo pipefail
dir=$1 registry=$2
version=3 # raise it when the images below change
mkdir -p "$dir"
exec 9>"$dir/lock"
flock 9 # two at once make them once

busybox_root() { # DIR: a root file system with busybox and the usual files
  mkdir -p "$1"/{bin,etc,root,tmp,usr/bin,var,home,dev,proc,sys}
  chmod 1777 "$1/tmp"
  cp /bin/busybox "$1/bin/busybox"
  for name in $(/bin/busybox --list); do
    [ "$name" = busybox ] || ln -s busybox "$1/bin/$name"
  done
  printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$1/etc/passwd"
  printf 'root:x:0:\nnogroup:x:65534:\n' >"$1/etc/group"
  printf 'NAME="Slipway stand-in"\nID=standin\n' >"$1/etc/os-release"
}

unpack() { # ROOT PACKAGE...: the files of Debian packages
  local root=$1; shift
  mkdir -p "$work/debs"
  (cd "$work/debs" && apt-get download -qq "$@" >/dev/null)
  for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$root"; rm "$deb"; done
}

layout() { # NAME TAG ROOT UMOCI-CONFIG...: one image of one layer
  local name=$1 tag=$2 root=$3; shift 3
  tar --sort=name --numeric-owner --owner=0 --group=0 --mtime=@0 -C "$root" -cf "$work/layer.tar" .
  umoci init --layout "$work/$name"
  umoci new --image "$work/$name:$tag"
  umoci raw add-layer --image "$work/$name:$tag" "$work/layer.tar"
  umoci config --image "$work/$name:$tag" --os linux --architecture "$(dpkg --print-architecture)" "$@"
  rm -rf "$dir/$name" && mv "$work/$name" "$dir/$name"
}

if [ "$(cat "$dir/version" 2>/dev/null)" != "$version" ]; then
  work=$(mktemp -d "$dir/work.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

  echo "making alpine:latest (busybox)"
  busybox_root "$work/root-alpine"
  layout alpine latest "$work/root-alpine" --config.env "PATH=$path" --config.cmd /bin/sh

  echo "making golang:1.13 (Debian's Go, with the settings of 1.13)"
  busybox_root "$work/root-golang"
  unpack "$work/root-golang" golang-1.19-go golang-1.19-src libc6
  mkdir -p "$work/root-golang/go/src" "$work/root-golang/go/bin"
  layout golang 1.13 "$work/root-golang" --config.env "PATH=/go/bin:/usr/lib/go-1.19/bin:$path" \
    --config.env GOPATH=/go --config.env GO111MODULE=auto --config.env GOFLAGS=-buildvcs=false \
    --config.workingdir /go --config.cmd /bin/sh

  echo "making nginx:latest (Debian's nginx files)"
  busybox_root "$work/root-nginx"
  unpack "$work/root-nginx" nginx-common
  layout nginx latest "$work/root-nginx" --config.env "PATH=$path" --config.cmd /bin/sh
  echo "$version" >"$dir/version"
fi

for image in alpine:latest golang:1.13 nginx:latest; do
  skopeo copy --quiet --dest-tls-verify=false "oci:$dir/$image" "docker://$registry/library/$image"
done
