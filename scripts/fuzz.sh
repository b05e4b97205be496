#!/usr/bin/env bash
# Runs every fuzz target for SECONDS (default 600). Needs a nightly compiler and cargo-fuzz.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
seconds=${SECONDS_EACH:-600}
# What is freed stays in the address sanitizer's quarantine, 256 MB of it by default: that alone is half of the limit
# below, and what many small pieces leave between them is the other half.
export ASAN_OPTIONS=${ASAN_OPTIONS:-quarantine_size_mb=16}
mkdir -p corpus/parse
cp ../examples/*/Dockerfile corpus/parse/ 2>/dev/null || true
for example in ../examples/*/; do
  cp "$example/Dockerfile" "corpus/parse/$(basename "$example")" 2>/dev/null || true
done
for target in "${@:-parse expand ignore reach}"; do
  for name in $target; do
    echo "== $name for $seconds s"
    cargo +nightly fuzz run "$name" -- -max_total_time="$seconds" -max_len=8192 -timeout=5 \
      -rss_limit_mb=512 -dict=dockerfile.dict -print_final_stats=1
  done
done
