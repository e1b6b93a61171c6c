#!/usr/bin/env bash
# Puts Kyverno's programs kyverno and background-controller, its CustomResourceDefinitions (crds/) and its version
# (version) into DIR (default: bin/kyverno). It builds the programs once, from the Go module of Kyverno. If DIR has them
# in this version, it does nothing and prints nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
version=v1.19.1
dir=${1:-bin/kyverno}
[ "$(cat "$dir/version" 2>/dev/null)" != "$version" ] || exit 0
say() { printf 'kyverno: %s\n' "$*" >&2; }
. scripts/go.sh
has_go || exit 1

say "building Kyverno $version into $dir, once; this takes a quarter of an hour on two cores"
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
build() {
  cd "$work" # outside of this repository's modules, so that their go.mod files do not change
  go mod download -json "github.com/kyverno/kyverno@$version" >module.json || { cat module.json >&2; return 1; }
  # Kyverno's go.mod has a replace directive, so go install refuses the module. The module cache is read-only, so the
  # script builds a copy.
  cp -r "$(sed -n 's/^\t"Dir": "\(.*\)",$/\1/p' module.json)" source || return
  chmod -R u+w source || return
  cd source || return
  CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X github.com/kyverno/kyverno/pkg/version.BuildVersion=$version" \
    -o "$work/programs/" ./cmd/kyverno ./cmd/background-controller
}
(build) 2>&1 | tee "$work/log" >&2 || { explain_failure "$work/log"; exit 1; }
rm -rf "$dir/crds"
cp -r "$work/source/config/crds" "$dir/crds"
mv "$work"/programs/* "$dir/"
echo "$version" >"$dir/version"
