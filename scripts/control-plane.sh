#!/usr/bin/env bash
# Puts etcd, kube-apiserver, kube-controller-manager and kubectl into DIR (default: bin/control-plane).
# It links the programs that the folder KUBEBUILDER_ASSETS holds, and builds the others once, from the Go modules that
# scripts/e2e/go.mod pins. If DIR has all of them, it does nothing and prints nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${1:-bin/control-plane}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
cd scripts/e2e

missing=()
for program in etcd kube-apiserver kubectl kube-controller-manager; do
  if [ -n "${KUBEBUILDER_ASSETS:-}" ] && [ -x "$KUBEBUILDER_ASSETS/$program" ]; then
    ln -sf "$(cd "$KUBEBUILDER_ASSETS" && pwd)/$program" "$dir/$program"
  elif ! [ -x "$dir/$program" ]; then
    missing+=("$program")
  fi
done
[ ${#missing[@]} -gt 0 ] || exit 0

echo "Building a local Kubernetes control plane into $dir, once: ${missing[*]}." >&2
echo "This takes five to ten minutes on two cores, and downloads about 200 MB of Go modules." >&2
version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
# Without a stamp the programs report the version v0.0.0-master, which kubectl cannot parse.
stamp=
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
  stamp+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$(cut -d. -f2 <<<"$version")"
done
number=0
for program in "${missing[@]}"; do
  number=$((number + 1)) SECONDS=0
  printf '  [%d/%d] %s ...' "$number" "${#missing[@]}" "$program" >&2
  package=k8s.io/kubernetes/cmd/$program
  [ "$program" != etcd ] || package=go.etcd.io/etcd/server/v3
  # Build to another name and rename, so an interrupted build leaves no incomplete program.
  CGO_ENABLED=0 go build -trimpath -ldflags "-s -w$stamp" -o "$dir/.$program.new" "$package"
  mv "$dir/.$program.new" "$dir/$program"
  echo " ${SECONDS} s" >&2
done
