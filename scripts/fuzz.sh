#!/usr/bin/env bash
# Runs every fuzz target of the module for FUZZTIME each (default 5s), one after the other.
set -euo pipefail
cd "$(dirname "$0")/.."
targets=0
while IFS=: read -r file line; do
  target=$(sed -E 's/^func (Fuzz[A-Za-z0-9_]+)\(.*/\1/' <<<"$line")
  echo "$(dirname "$file") $target for ${FUZZTIME:-5s}"
  go test "./$(dirname "$file")" -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-5s}" | grep -v '^fuzz: elapsed' || exit 1
  targets=$((targets + 1))
done < <(grep -rE '^func Fuzz' --include='*_test.go' pkg cmd | sort)
[ "$targets" -gt 0 ] || { echo "no fuzz targets found" >&2; exit 1; }
