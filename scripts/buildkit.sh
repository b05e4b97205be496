#!/usr/bin/env bash
# Unpacks a Docker engine, which embeds BuildKit, into a directory, for the differential tests. It
# comes from the next Debian release: the one of Debian 12 has a front end too old to compare with.
# Nothing is installed, so no service of the distribution starts.
set -euo pipefail
target=${1:?usage: buildkit.sh DIRECTORY}
[ ! -e "$target/usr/sbin/dockerd" ] || exit 0
mkdir -p "$(dirname "$target")"
mirror=$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' | awk '$1 == "Debian" { print $2; exit }')
: "${mirror:?no Debian mirror is configured}"
scratch=$(mktemp -d "$target.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch"/apt/{lists/partial,cache/archives/partial,parts} "$scratch/root"
cat > "$scratch/apt/parts/debian.sources" <<EOF
Types: deb
URIs: $mirror
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
EOF
cat > "$scratch/apt/apt.conf" <<EOF
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$scratch/apt/parts";
Dir::State::lists "$scratch/apt/lists";
Dir::Cache "$scratch/apt/cache";
APT::Sandbox::User "root";
EOF
export APT_CONFIG="$scratch/apt/apt.conf"
cd "$scratch"
apt-get update -qq
apt-get download -qq docker.io docker-cli docker-buildx containerd
for package in ./*.deb; do
  dpkg -x "$package" root
done
# Whoever was first has made the same.
mv -T root "$target" 2>/dev/null || [ -e "$target/usr/sbin/dockerd" ]
