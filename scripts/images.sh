#!/usr/bin/env bash
# Builds both images for each architecture in ARCHS, with docker, podman or buildah (CONTAINER_TOOL). Their names are
# IMG_AGENT-ARCH and IMG_WEBHOOK-ARCH; the images for this machine's architecture also get the plain names. PUSH=1
# pushes them, and pushes an image list as the plain name, from which each node selects its architecture.
set -euo pipefail
cd "$(dirname "$0")/.."
tool=${CONTAINER_TOOL:-docker}
read -ra archs <<<"${ARCHS:-amd64 arm64}"
fail() { printf 'images: %s\n' "$*" >&2; exit 1; }
if [ -z "${IMG_AGENT:-}" ] || [ -z "${IMG_WEBHOOK:-}" ]; then
  fail "the images have no names: set them, such as IMG_AGENT=registry.example.com/egress-agent:v1 IMG_WEBHOOK=registry.example.com/egress-webhook:v1"
fi
for arch in "${archs[@]}"; do
  [[ $arch =~ ^[a-z0-9]+$ ]] || fail "$(printf %q "$arch") is not an architecture: ARCHS takes Go's names, such as amd64 and arm64"
done
command -v "$tool" >/dev/null || fail "$tool is not installed: set CONTAINER_TOOL to docker, podman or buildah"
for image in "$IMG_AGENT" "$IMG_WEBHOOK"; do
  [[ $image =~ ^[A-Za-z0-9._:/-]*$ ]] || fail "$(printf %q "$image") is not an image name"
  [[ $image =~ :[A-Za-z0-9_][A-Za-z0-9_.-]*$ ]] || fail "$image has no tag: append one, such as :v1"
done

build() { # ARCH PROGRAM IMAGE
  "$tool" build --quiet --platform "linux/$1" --target "$2" --tag "$3-$1" --file deploy/Dockerfile "bin/images/$1" >/dev/null ||
    fail "$tool did not build $3-$1"
  echo "built $3-$1"
}
publish() { # IMAGE
  local arch names=()
  for arch in "${archs[@]}"; do
    names+=("$1-$arch")
    "$tool" push "$1-$arch" || fail "$tool did not push $1-$arch: log in to the registry, and check that the repository exists"
  done
  case $tool in
  docker) docker manifest create --amend "$1" "${names[@]}" && docker manifest push --purge "$1" ;;
  *) "$tool" rmi "$1" >/dev/null 2>&1 || true # the tool makes no list with the name of an existing image
     "$tool" manifest create "$1" "${names[@]/#/docker:\/\/}" && "$tool" manifest push --all "$1" "docker://$1" ;;
  esac || fail "$tool did not push the list $1"
  echo "pushed $1 for ${archs[*]}"
}

for arch in "${archs[@]}"; do
  make --no-print-directory build GOARCH="$arch" BIN="bin/images/$arch"
  build "$arch" egress-agent "$IMG_AGENT"
  build "$arch" egress-webhook "$IMG_WEBHOOK"
done
here=$(go env GOARCH)
for image in "$IMG_AGENT" "$IMG_WEBHOOK"; do
  if [ "${PUSH:-}" = 1 ]; then publish "$image"; elif [[ " ${archs[*]} " == *" $here "* ]]; then "$tool" tag "$image-$here" "$image"; fi
done
