#!/usr/bin/env bash
# Runs both programs on the cluster of KUBECONFIG, which make playground starts, and then a shell, in which kubectl uses
# this cluster. The cluster ends with the shell. If the input is no terminal, its lines are the commands of the shell,
# and the first that fails ends it.
set -euo pipefail
cd "$(dirname "$0")/.."
eventually() { # WHAT COMMAND...: waits up to 30 seconds until the command succeeds; else fails with WHAT
  local what=$1 end=$((SECONDS + 30)); shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { printf 'playground: %s\n' "$what" >&2; tail -n 20 "$CLUSTER_DIR"/egress-*.log >&2; exit 1; }
    sleep 0.1
  done
}
ranges=${RANGES:-$PWD/testdata/ranges/ip-ranges.json}
. scripts/local-programs.sh
trap stop_programs EXIT

if ! [ -r "$ranges" ]; then
  printf 'playground: cannot read RANGES=%q: name a file with the ip-ranges.json of AWS, plain or gzip\n' "$ranges" >&2
  exit 2
fi
kubectl apply -f deploy/base/agent-rbac.yaml >/dev/null
start_agent
start_webhook
registration | kubectl apply -f - >/dev/null
# The flags of a make that runs this script are not for a make in the shell.
unset MAKEFLAGS MAKELEVEL
if [ -t 0 ]; then
  cat <<Y
Both programs run on a local Kubernetes control plane, with the ranges of $ranges. It has no nodes, so no pods run and
nothing enforces NetworkPolicies. In this shell kubectl uses it. The programs' logs are in $CLUSTER_DIR. "exit" ends all.
Y
  PS1='playground$ ' bash --norc --noprofile -i || true # with the status of the last command, which means nothing here
else
  bash -euo pipefail
fi
