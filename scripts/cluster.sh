# shellcheck shell=bash
# Sourced by the scripts that work on a running cluster: the current cluster of kubectl.
KUBECTL=${KUBECTL:-kubectl}
NAMESPACE=egress-system
program=$(basename "$0")

say() { printf '%s\n' "$*"; }
fail() { printf '%s: %s\n' "$program" "$*" >&2; exit 1; }
read -ra OVERLAYS <<<"${OVERLAYS:-}" # any of deploy/components
for overlay in "${OVERLAYS[@]}"; do
  [[ $overlay =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ && -d deploy/components/$overlay ]] || fail "unknown overlay $(printf %q "$overlay"): OVERLAYS takes any of: $(cd deploy/components && echo *)"
done
kubectl() { command "$KUBECTL" "$@"; }

# announce WHAT: prints what the script does and to which cluster. It prints nothing if a calling script already did.
announce() {
  [ -z "${ANNOUNCED:-}" ] || return 0
  export ANNOUNCED=1
  command -v "$KUBECTL" >/dev/null || fail "$KUBECTL is not installed: install it, or set KUBECTL to its path"
  local context server reason
  context=$(kubectl config current-context 2>/dev/null) || context="(none)"
  server=$(kubectl config view --minify -o 'jsonpath={.clusters[0].cluster.server}' 2>/dev/null) || server=
  [ -n "$server" ] || fail "kubectl has no current cluster: set KUBECONFIG, or choose a context of 'kubectl config get-contexts' with 'kubectl config use-context NAME'"
  say "$* on the cluster of context $context, server $server"
  reason=$(kubectl version --request-timeout=10s 2>&1 >/dev/null) || fail "the cluster does not answer: ${reason##*$'\n'}"
}

# step WHAT COMMAND...: prints WHAT and runs the command. If it fails, the script ends. If the command is a function,
# join its commands with &&, because errexit has no effect in it here.
step() {
  local what=$1; shift
  say "==> $what"
  "$@" || fail "failed: $what"
}

uses() { [[ " ${OVERLAYS[*]} " == *" $1 "* ]]; }
exists() { kubectl get "$@" >/dev/null 2>&1; }

# rolled_out DEPLOYMENT: waits until its Pods are ready. If they do not get ready, it prints the reasons and fails.
rolled_out() {
  kubectl rollout status "deployment/$1" -n $NAMESPACE --timeout="${TIMEOUT:-180s}" && return
  why_not_ready "$1" $NAMESPACE
  return 1
}
why_not_ready() { # DEPLOYMENT NAMESPACE
  say "The Pods of $1, the reasons they wait, their events and their last log lines:"
  local of=app.kubernetes.io/name=$1
  kubectl get pods -n "$2" -l "$of" -o wide || true
  kubectl get pods -n "$2" -l "$of" -o jsonpath='{range .items[*]}{range .status.containerStatuses[*]}{.state.waiting.reason}{": "}{.state.waiting.message}{"\n"}{end}{end}' |
    grep -v '^: $' | sort -u || true
  kubectl get events -n "$2" --field-selector type=Warning --sort-by=.lastTimestamp \
    -o custom-columns=OBJECT:.involvedObject.name,REASON:.reason,MESSAGE:.message --no-headers | grep "^$1" | tail -n 5 || true
  kubectl logs -n "$2" -l "$of" --prefix --tail=5 || true
}
