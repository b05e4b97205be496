#!/usr/bin/env bash
# Runs every test and ends with their count.
set -uo pipefail
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
read -r passed failed < <(awk '/^test result:/ { passed += $4; failed += $6 } END { print passed + 0, failed + 0 }' "$log")
echo "$passed passed, $failed failed"
if [ "$passed" = 0 ]; then status=1; fi
exit "$status"
