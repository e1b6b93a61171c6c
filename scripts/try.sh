#!/usr/bin/env bash
# Shows what both programs do with policies in files. It needs no cluster, and changes nothing but the programs in bin/.
# RANGES names AWS's ip-ranges.json, plain or gzip; by default the script uses the made-up ranges of testdata. Exits with
# 0 only if every step does what its title says.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${BIN:-bin}
ranges=${RANGES:-testdata/ranges/ip-ranges.json}
policy=examples/demo/tenant-a.yaml
mistakes=examples/demo/mistakes.yaml
# In an IPv6 cluster the programs would leave out the IPv4 addresses of the example.
unset KUBERNETES_SERVICE_HOST

bold() { if [ -t 1 ]; then printf '\n\033[1m%s\033[0m\n' "$*"; else printf '\n%s\n' "$*"; fi; }
step() { number=$((${number:-0} + 1)); bold "$number. $*"; }
print_command() { printf '$'; printf ' %q' "$@"; echo; }
show() { print_command "$@"; "$@"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
exits() { # STATUS COMMAND...: prints a command and its output, sets output, and fails if it exits with another status
  local want=$1 status=0; shift
  print_command "$@"
  output=$("$@" 2>&1) || status=$?
  printf '%s\n' "$output"
  [ $status = "$want" ] || fail "the command exits with $status instead of $want"
}
build() { # PROGRAM: shows the command, and how long it took
  local start=$SECONDS
  show scripts/build.sh "$1"
  echo "built in $((SECONDS - start)) s; the first build also compiles the libraries of Kubernetes"
}
prints() { grep -qF -- "$1" <<<"$output" || fail "the output lacks: $1"; }

if ! [ -f "$ranges" ] || ! [ -r "$ranges" ]; then
  printf 'try.sh: cannot read RANGES=%q: name a file with the ip-ranges.json of AWS, plain or gzip\n' "$ranges" >&2
  exit 2
fi

# The webhook first: it needs no client of Kubernetes, which takes most of the first build.
step "Build egress-webhook"
build egress-webhook

step "The webhook's check refuses a policy with mistakes, and lists all of them"
exits 1 "$bin/egress-webhook" validate -f "$mistakes" --ranges-file "$ranges"
prints "Invalid region: us-esat-1; did you mean us-east-1?"
prints 'Unknown field: prots; did you mean "ports"?'

step "Build egress-agent"
build egress-agent

step "A policy becomes a NetworkPolicy, with the addresses of S3"
[ -n "${RANGES:-}" ] || echo "the addresses of $ranges are made up; RANGES=FILE uses AWS's"
show cat "$policy"
exits 0 "$bin/egress-agent" render -f "$policy" --ranges-file "$ranges"
prints "kind: NetworkPolicy"
address=$(sed -n '/^ *cidr: /{s///;s,/.*,,p;q}' <<<"$output")

step "explain names the entry that allows a connection, and says why another is denied"
exits 0 "$bin/egress-agent" explain -f "$policy" --ranges-file "$ranges" --to "$address:443"
prints "$address:443/TCP allowed by s3 "
exits 1 "$bin/egress-agent" explain -f "$policy" --ranges-file "$ranges" --to 10.1.0.5:3306
prints "10.1.0.5:3306/TCP denied: database "

bold "All $number steps succeeded. make demo runs both programs on a local control plane."
