#!/usr/bin/env bash
# Puts Kyverno's programs kyverno and background-controller, its CustomResourceDefinitions (crds/) and its version
# (version) into DIR (default: bin/kyverno). It builds the programs once, from the Go module of Kyverno. If DIR has all
# of them, it does nothing and prints nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
version=v1.19.1
dir=${1:-bin/kyverno}
[ "$(cat "$dir/version" 2>/dev/null)" != "$version" ] || exit 0

echo "Building Kyverno $version into $dir, once. This takes about ten minutes on two cores." >&2
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
cd "$work" # outside of this repository's modules, so that their go.mod does not change
module=$(go mod download -json "github.com/kyverno/kyverno@$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
# Its go.mod has a replace directive, so go install refuses it. The module cache is read-only, so a copy is built.
cp -r "$module" source
chmod -R u+w source
cd source
CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X github.com/kyverno/kyverno/pkg/version.BuildVersion=$version" \
  -o "$work/bin/" ./cmd/kyverno ./cmd/background-controller
rm -rf "$dir/crds"
cp -r config/crds "$dir/crds"
mv "$work"/bin/* "$dir/"
echo "$version" >"$dir/version"
