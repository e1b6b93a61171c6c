#!/usr/bin/env bash
# Runs every fuzz target of the module, one after the other, for FUZZTIME (default 5s) each. Inputs of earlier runs are
# in the folder that go test -fuzz uses, too.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${FUZZTIME:-5s}
programs=$(mktemp -d)
trap 'rm -rf "$programs"' EXIT
inputs=$(go env GOCACHE)/fuzz

fuzz() { # FOLDER PROGRAM TARGET
  cd "$1"
  "$2" -test.run '^$' -test.fuzz "^$3\$" -test.fuzztime "$time" -test.fuzzcachedir "$inputs/$(go list)" 2>&1 | grep -v '^fuzz: elapsed'
}

targets=0
while IFS=: read -r folder names; do
  program=$programs/${folder//\//-}.test
  go test -c -vet=off -fuzz . -o "$program" "./$folder"
  for target in $names; do
    echo "$folder $target for $time"
    if ! output=$(fuzz "$folder" "$program" "$target"); then
      # Go before 1.27 may fail at the end of the time although no input failed (https://go.dev/issue/75804).
      if [ "$(sed -n 2p <<<"$output")" != "    context deadline exceeded" ]; then
        echo "$output"
        exit 1
      fi
      echo "the target ended by its time limit: running it again"
      output=$(fuzz "$folder" "$program" "$target") || { echo "$output"; exit 1; }
    fi
    echo "$output"
    targets=$((targets + 1))
  done
done < <(grep -rE '^func Fuzz' --include='*_test.go' pkg cmd | sort |
  sed -E 's,^(.*)/[^/]*:func (Fuzz[A-Za-z0-9_]+)\(.*,\1 \2,' |
  awk '{names[$1] = names[$1] " " $2} END {for (folder in names) print folder ":" names[folder]}' | sort)
[ "$targets" -gt 0 ] || { echo "no fuzz targets found" >&2; exit 1; }
