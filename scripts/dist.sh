#!/usr/bin/env bash
# Makes the files of a release in bin/dist:
#
#   dist.sh VERSION      make dist VERSION=v1.2.3
#
# REGISTRY is where the images of the release are, such as registry.example.com/team (default: nothing before the names).
# PLATFORMS are those of the archives (default: Linux and macOS, amd64 and arm64).
# Two runs on one commit, with one version of Go, give equal bytes.
set -euo pipefail
cd "$(dirname "$0")/.."
fail() { printf 'dist: %s\n' "$*" >&2; exit 1; }
version=${1:-}
registry=${REGISTRY:+${REGISTRY%/}/}
read -ra platforms <<<"${PLATFORMS:-linux/amd64 linux/arm64 darwin/amd64 darwin/arm64}"
bin=${BIN:-bin}
dist=$bin/dist

[ -n "$version" ] || fail "VERSION is missing: make dist VERSION=v1.2.3"
[[ $version =~ ^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]] || fail "$(printf %q "$version") is not a version such as v1.2.3 or v1.2.3-rc.1"
[[ $registry =~ ^[A-Za-z0-9._:/-]*$ ]] || fail "REGISTRY=$(printf %q "$registry") is not the beginning of an image name, such as registry.example.com/team"
for platform in "${platforms[@]}"; do
  [[ $platform =~ ^[a-z0-9]+/[a-z0-9]+$ ]] || fail "$(printf %q "$platform") is not a platform: PLATFORMS takes Go's names, such as linux/amd64"
done
git rev-parse --verify --quiet HEAD >/dev/null || fail "a release needs the git repository: clone it"
[ -z "$(git status --porcelain)" ] || fail "a release needs a clean working tree: commit or remove what 'git status' lists"
tagged=$(git rev-parse --verify --quiet "refs/tags/$version^{commit}") || tagged=
[ -z "$tagged" ] || [ "$tagged" = "$(git rev-parse HEAD)" ] || fail "the tag $version is another commit: run 'git checkout $version', or choose another VERSION"
tar --version 2>/dev/null | grep -q 'GNU tar' || fail "GNU tar is not installed: other ones cannot write equal bytes twice"
time=$(git log -1 --format=%ct)

rm -rf "$dist"
mkdir -p "$dist"
unset MAKEFLAGS MAKELEVEL GOFLAGS GOAMD64 GOARM64
number=0
for platform in "${platforms[@]}"; do
  number=$((number + 1)) SECONDS=0
  printf '[%d/%d] %s ...' $number ${#platforms[@]} "$platform"
  folder=$bin/release/${platform/\//_}
  rm -rf "$folder"
  make --no-print-directory --silent build BIN="$folder" RELEASE="$version" GOOS="${platform%/*}" GOARCH="${platform#*/}"
  tar --create --directory "$folder" --sort=name --format=ustar --mtime="@$time" --mode=0755 --owner=0 --group=0 --numeric-owner \
    egress-agent egress-webhook | gzip -9 --no-name >"$dist/egress-control_${version}_${platform/\//_}.tar.gz"
  printf ' %d s\n' $SECONDS
done

# install FILE COMPONENT...: writes the manifests of both programs, with the images of the release.
install() {
  local file=$1 component folder
  folder=$bin/release/install
  mkdir -p "$folder"
  {
    printf 'apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [%s]\ncomponents:\n' "$base/base"
    for component in "${@:2}"; do printf -- '- %s/components/%s\n' "$base" "$component"; done
    printf 'images:\n'
    for program in egress-agent egress-webhook; do printf -- '- {name: %s, newName: "%s", newTag: "%s"}\n' $program "$registry$program" "$version"; done
  } >"$folder/kustomization.yaml"
  {
    printf '# egress-agent and egress-webhook %s: kubectl apply -f %s\n' "$version" "$file"
    "$bin/kustomize" build "$folder"
  } >"$dist/$file"
}
base=$(realpath --relative-to="$bin/release/install" deploy --canonicalize-missing)
install install.yaml
install install-cert-manager.yaml cert-manager

echo "the bill of materials ..."
"$bin/sbom" --name egress-control --version "$version" --created "$(date -u -d "@$time" +%Y-%m-%dT%H:%M:%SZ)" \
  "$bin"/release/*_*/egress-{agent,webhook} >"$dist/egress-control_$version.spdx.json"
(cd "$dist" && sha256sum -- * >SHA256SUMS)
ls -l "$dist"
