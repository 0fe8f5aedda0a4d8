#!/usr/bin/env bash
# Runs each fuzz target for the time given, all beside one another. Fails when a target does.
#
# Go up to 1.26 may end a target that found nothing with "context deadline exceeded", when the end of its time is seen before
# the workers are told (https://go.dev/issue/75804). Such a target is run once more, and what the second run says holds.
set -euo pipefail
time="$1"
logs="$(mktemp -d)"
trap 'rm -rf "$logs"' EXIT

fuzz() {
  "${GO:-go}" test -run '^$' -fuzz "^$1\$" -fuzztime "$time" -fuzzminimizetime 1x -parallel 1 "$2" 2>&1 | tee "$logs/$1"
}

# raced says of a target that failed that its time was up, and nothing else.
raced() {
  test "$(grep -A1 '^--- FAIL' "$logs/$1" | tail -n +2)" = "    context deadline exceeded" && ! grep -q 'Failing input' "$logs/$1"
}

target() {
  if fuzz "$1" "$2"; then return 0; fi
  raced "$1" || return 1
  echo "$1: ended by the end of its time alone, again"
  fuzz "$1" "$2"
}

pids=()
while IFS=: read -r file _ rest; do
  name="${rest#func }"
  target "${name%%(*}" "./$(dirname "$file")" & pids+=($!)
done < <(git grep -n '^func Fuzz' -- '*_test.go')
test "${#pids[@]}" -gt 0
failed=0
for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
exit "$failed"
