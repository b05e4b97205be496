#!/usr/bin/env bash
# Installs what is missing of the Debian packages that building, testing and the demo need, and of
# those that are named.
set -euo pipefail
packages=(buildah build-essential curl crun docker-registry git iproute2 libfaketime nftables openssh-client openssh-server openssl
  podman postgresql redis-server runc busybox-static skopeo slirp4netns umoci util-linux "$@")
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
sudo=()
if [ "$(id -u)" != 0 ]; then sudo=(sudo); fi
echo "installing: ${missing[*]}"
# No server of the distribution's own is wanted: every test and demo starts private ones.
"${sudo[@]}" mkdir -p /etc/postgresql-common
if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
  echo 'create_main_cluster = false' | "${sudo[@]}" tee /etc/postgresql-common/createcluster.conf >/dev/null
fi
case " ${missing[*]} " in
  *" openssh-server "*)
    # Its units and scripts look for this file.
    "${sudo[@]}" mkdir -p /etc/ssh
    "${sudo[@]}" touch /etc/ssh/sshd_not_to_be_run
    ;;
esac
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
  -o Dpkg::Options::=--force-confold "${missing[@]}" >/dev/null
