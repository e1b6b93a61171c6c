#!/usr/bin/env bash
# Puts the programs of a Kubernetes control plane into a folder:
#
#   control-plane.sh FOLDER [PROGRAM...]     any of etcd, kube-apiserver, kubectl, kube-controller-manager (default: all)
#
# For each program that the folder lacks, the script does the first of these that works:
#
# 1. It links the program of the folder KUBEBUILDER_ASSETS.
# 2. It downloads the program with setup-envtest, which checks its checksum. ENVTEST_INDEX is the URL of another index
#    of downloads, or "none". The index has no kube-controller-manager.
# 3. It builds the program from the Go modules that scripts/e2e/go.mod pins.
#
# If the folder has all programs, the script prints nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:?usage: control-plane.sh FOLDER [PROGRAM...]}
programs=("${@:2}")
[ ${#programs[@]} -gt 0 ] || programs=(etcd kube-apiserver kubectl kube-controller-manager)
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
say() { printf 'control-plane: %s\n' "$*" >&2; }
. scripts/go.sh
cd scripts/e2e

missing() { # prints the programs that the folder lacks
  local program
  for program in "${programs[@]}"; do [ -x "$folder/$program" ] || echo "$program"; done
}

if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
  [ -d "$KUBEBUILDER_ASSETS" ] || { say "KUBEBUILDER_ASSETS is not a folder: $KUBEBUILDER_ASSETS"; exit 1; }
  for program in "${programs[@]}"; do
    [ ! -x "$KUBEBUILDER_ASSETS/$program" ] || ln -sf "$(cd "$KUBEBUILDER_ASSETS" && pwd)/$program" "$folder/$program"
  done
fi
[ -n "$(missing)" ] || exit 0
has_go || exit 1

# New files get their names only when they are complete, so an interrupted run leaves no incomplete program.
new=$(mktemp -d "$folder/.new.XXXXXX")
trap 'chmod -R u+w "$new"; rm -rf "$new"' EXIT
trap 'say interrupted; exit 130' INT TERM
say "the local control plane needs $(missing | paste -sd ' '), once"
version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)

# within SECONDS COMMAND...: runs a command, for at most this time where there is a program timeout.
within() { if command -v timeout >/dev/null; then timeout "$@"; else "${@:2}"; fi; }

# download: moves what setup-envtest downloads into the folder. It fails, with the reason in $reason, if the downloads
# cannot be reached.
download() {
  local flags=(--bin-dir "$new") minor path program
  minor=$(cut -d. -f1,2 <<<"${version#v}").x
  [ -z "${ENVTEST_INDEX:-}" ] || flags+=(--index "$ENVTEST_INDEX")
  if ! CGO_ENABLED=0 go build -trimpath -o "$new/setup-envtest" sigs.k8s.io/controller-runtime/tools/setup-envtest 2>"$new/log" ||
    ! within 20 "$new/setup-envtest" list "$minor" "${flags[@]}" >"$new/list" 2>"$new/log"; then
    reason=$(grep -v '^go: downloading' "$new/log" | tail -1)
    return 1
  fi
  grep -q "^(available)" "$new/list" || { reason="there is no $minor for this machine"; return 1; }
  path=$(within 600 "$new/setup-envtest" use "$minor" "${flags[@]}" -p path 2>"$new/log") || { reason=$(tail -1 "$new/log"); return 1; }
  for program in $(missing); do
    [ ! -x "$path/$program" ] || mv "$path/$program" "$folder/$program"
  done
}

if [ "${ENVTEST_INDEX:-}" != none ] && [ "$(missing)" != kube-controller-manager ]; then
  say "downloading the Kubernetes project's builds of $version's minor version ..."
  if download; then say "downloaded in $SECONDS s"; else say "cannot download them, so it builds them: ${reason:-no answer in time}"; fi
fi
mapfile -t rest < <(missing)
[ ${#rest[@]} -gt 0 ] || exit 0

# show_progress COUNT: reads the output of go build -v, and prints how many of COUNT packages are compiled: every
# second on a terminal, otherwise every half minute. It prints other lines as they are.
show_progress() {
  local count=0 line next=0 start=$SECONDS
  while IFS= read -r line; do
    case $line in
    "go: downloading"*) continue ;;
    *" "* | "") printf '%s\n' "$line" >&2; continue ;;
    esac
    count=$((count + 1))
    if [ -t 2 ] && [ "$SECONDS" -gt "$next" ]; then
      next=$SECONDS
      printf '\rcontrol-plane: compiled %d of %d packages, %d s ' "$count" "$1" $((SECONDS - start)) >&2
    elif [ ! -t 2 ] && [ "$SECONDS" -ge $((next + 30)) ]; then
      next=$SECONDS
      say "compiled $count of $1 packages, $((SECONDS - start)) s"
    fi
  done
  if [ -t 2 ]; then printf '\n' >&2; fi
}

other_way="the programs can also come from elsewhere: set KUBEBUILDER_ASSETS to a folder with ${rest[*]}"
packages=()
for program in "${rest[@]}"; do
  case $program in
  etcd) packages+=(go.etcd.io/etcd/server/v3) ;;
  kube-apiserver | kubectl | kube-controller-manager) packages+=("k8s.io/kubernetes/cmd/$program") ;;
  *) say "unknown program: $program"; exit 1 ;;
  esac
done
say "downloading Go modules, about 120 MB ..."
SECONDS=0
if ! go list -deps "${packages[@]}" >"$new/packages" 2>"$new/log"; then
  grep -v '^go: downloading' "$new/log" | tail -3 >&2
  explain_failure "$new/log"
  say "$other_way"
  exit 1
fi
say "downloaded them in $SECONDS s; compiling ${rest[*]} (minutes, and 3 GB in $(go env GOCACHE)) ..."
# Without a stamp the programs report the version v0.0.0-master, which kubectl cannot parse.
stamp=
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
  stamp+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$(cut -d. -f2 <<<"$version")"
done
SECONDS=0
mkdir "$new/programs"
# One build for all programs: they share most packages, and one is linked while another is compiled.
if ! CGO_ENABLED=0 go build -v -trimpath -ldflags "-s -w$stamp" -o "$new/programs/" "${packages[@]}" 2>&1 |
  tee "$new/log" | show_progress "$(wc -l <"$new/packages")"; then
  explain_failure "$new/log"
  say "$other_way"
  exit 1
fi
[ ! -e "$new/programs/server" ] || mv "$new/programs/server" "$new/programs/etcd"
mv "$new"/programs/* "$folder/"
say "built ${rest[*]} in $SECONDS s"
