#!/usr/bin/env bash
# Demonstrates both programs with the real kubectl, on the cluster of KUBECONFIG, which make demo starts. It uses no
# other cluster. Exits with 0 only if every step does what its title says.
set -euo pipefail
cd "$(dirname "$0")/.."
trap stop_programs EXIT

bold() { if [ -t 1 ]; then printf '\n\033[1m%s\033[0m\n' "$*"; else printf '\n%s\n' "$*"; fi; }
step() { number=$((${number:-0} + 1)); bold "$number. $*"; }
show() { printf '$ %s\n' "$*"; "$@"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; tail -n 20 "$CLUSTER_DIR"/egress-*.log >&2; exit 1; }
eventually() { # WHAT COMMAND...: waits up to 30 seconds until the command succeeds; else fails with WHAT
  local what=$1 end=$((SECONDS + 30)); shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || fail "$what"
    sleep 0.1
  done
}
refused() { # COMMAND...: fails unless the webhook refuses the command
  local output
  printf '$ %s\n' "$*"
  if output=$("$@" 2>&1); then fail "the webhook did not refuse: $*"; fi
  echo "$output"
  grep -q "Policy validation failed: " <<<"$output" || fail "something other than the webhook refused it"
}
gone() { ! kubectl get "$@"; }
has() { # NAMESPACE NETWORKPOLICY CIDR
  kubectl get networkpolicy -n "$1" "$2" -o jsonpath='{.spec.egress[*].to[*].ipBlock.cidr}' | tr ' ' '\n' | grep -qxF "$3"
}
lacks() { ! has "$@"; }
event() { # NAMESPACE CONFIGMAP REASON
  kubectl get events -n "$1" --field-selector "involvedObject.kind=ConfigMap,involvedObject.name=$2,reason=$3" -o name | grep -q .
}
ranges=$PWD/testdata/ranges/ip-ranges.json
. scripts/local-programs.sh

step "The agent runs with only the rights that deploy/ gives its service account"
show kubectl apply -f deploy/base/agent-rbac.yaml
start_agent

step "The webhook runs with its ValidatingWebhookConfiguration and its own certificate"
start_webhook
registration | show kubectl apply -f -

step "Two tenants' namespaces opt in; a third does not"
for tenant in tenant-a tenant-b tenant-c; do show kubectl create namespace $tenant; done
show kubectl label namespace tenant-a tenant-b egress-validation=enabled
eventually "the API server does not call the webhook" bash -c '! kubectl apply -n tenant-a --dry-run=server -f examples/demo/mistakes.yaml'

step "Both tenants list the destinations of their pods"
show kubectl apply -f examples/demo/tenant-a.yaml -f examples/demo/tenant-b.yaml
eventually "no NetworkPolicy in tenant-a" has tenant-a egress 198.18.0.0/24
eventually "no NetworkPolicy in tenant-b" has tenant-b egress 10.2.0.0/16
show kubectl get networkpolicy -A
show kubectl get networkpolicy -n tenant-a egress -o yaml

step "The webhook refuses a policy with mistakes, and lists all of them"
refused kubectl apply -n tenant-a -f examples/demo/mistakes.yaml

step "In a namespace that did not opt in it is stored: the agent denies everything and records an Event"
show kubectl apply -n tenant-c -f examples/demo/mistakes.yaml
eventually "no Event Invalid" event tenant-c mistakes Invalid
eventually "no deny-all" kubectl get networkpolicy -n tenant-c mistakes
show kubectl get events -n tenant-c -o custom-columns=TYPE:.type,REASON:.reason,OBJECT:.involvedObject.name,MESSAGE:.message
show kubectl get networkpolicy -n tenant-c mistakes -o jsonpath='{.spec}{"\n"}'

step "A second region for S3 changes the NetworkPolicy in place"
uid=$(kubectl get networkpolicy -n tenant-a egress -o jsonpath='{.metadata.uid}')
sed 's/"regions": \["us-east-1"\]/"regions": ["us-east-1", "us-west-2"]/' examples/demo/tenant-a.yaml | show kubectl apply -f -
eventually "us-west-2 was not added" has tenant-a egress 198.18.8.0/24
show kubectl get networkpolicy -n tenant-a egress -o jsonpath='{.metadata.uid}{" "}{.metadata.annotations.egress-controller/destinations}{"\n"}'
[ "$uid" = "$(kubectl get networkpolicy -n tenant-a egress -o jsonpath='{.metadata.uid}')" ] || fail "the agent replaced the NetworkPolicy"

step "The agent undoes an edit and a deletion by hand"
show kubectl patch networkpolicy -n tenant-a egress --type merge -p '{"spec": {"egress": [{}]}}'
eventually "the agent did not undo the edit" has tenant-a egress 198.18.8.0/24
show kubectl delete networkpolicy -n tenant-b egress
eventually "the agent did not undo the deletion" has tenant-b egress 10.2.0.0/16
eventually "no Event Restored" event tenant-b egress Restored
show kubectl get events -A --field-selector reason=Restored -o custom-columns=NAMESPACE:.metadata.namespace,REASON:.reason,MESSAGE:.message

step "The agent never changes a NetworkPolicy that it does not own"
kubectl create -f - <<Y
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: theirs, namespace: tenant-c}
spec: {podSelector: {}, policyTypes: [Ingress]}
Y
sed -e 's/name: egress$/name: theirs/' -e 's/tenant-a/tenant-c/' examples/demo/tenant-a.yaml | show kubectl apply -f -
eventually "no Event NameConflict" event tenant-c theirs NameConflict
show kubectl get events -n tenant-c --field-selector reason=NameConflict -o custom-columns=REASON:.reason,MESSAGE:.message
[ "$(kubectl get networkpolicy -n tenant-c theirs -o jsonpath='{.spec.policyTypes[*]}')" = Ingress ] || fail "the agent changed it"

step "A service that already runs is observed first, and recommend writes its policy from logged connections"
show kubectl create namespace shop
show kubectl apply -f examples/observe-then-enforce/observe.yaml
echo '$ bin/egress-agent recommend --flows network-policy-agent.log --pods pods.json --ranges-file ip-ranges.json >bin/shop.yaml'
bin/egress-agent recommend --flows examples/observe-then-enforce/network-policy-agent.log --pods examples/observe-then-enforce/pods.json \
  --ranges-file "$ranges" >bin/shop.yaml
show kubectl apply -f bin/shop.yaml
eventually "the recommended policy is not applied" has shop egress 203.0.113.80/32
show kubectl get configmap -n shop egress -o 'jsonpath={.data.policy\.json}{"\n"}'

step "A platform document closes namespaces by default, and its guardrails cut what tenants open"
show kubectl apply -f examples/platform-default-deny/platform.yaml
show kubectl label namespace shop tier=tenant egress-validation=enabled
eventually "no NetworkPolicy of the platform" kubectl get networkpolicy -n shop egress-platform-default-deny
eventually "the port of mail is open" lacks shop egress 203.0.113.80/32
eventually "no Event Guarded" event shop egress Guarded
show kubectl get events -n shop --field-selector reason=Guarded -o custom-columns=REASON:.reason,MESSAGE:.message
sed 's/\[25\]/[25, 26]/' bin/shop.yaml >bin/shop-mail.yaml
eventually "the webhook does not know the document" bash -c '! kubectl apply --dry-run=server -f bin/shop-mail.yaml'
refused kubectl apply -f bin/shop-mail.yaml

step "status shows every policy, also on a page for reviewers"
show bin/egress-agent status || true # 1, because a policy is invalid
echo '$ bin/egress-agent status -o html >bin/status.html   # open it in a browser'
bin/egress-agent status -o html >bin/status.html || true
for text in '<th>tenant-a</th>' '<h3>egress</h3>' '<th>tenant-c</th>' '<h3>mistakes</h3>' '<h3>theirs</h3>'; do
  grep -qF "$text" bin/status.html || fail "the page lacks $text"
done

step "After a restart the agent applies the changes that it missed"
kill $agent
wait $agent || fail "egress-agent did not stop cleanly"
show kubectl label configmap -n tenant-a egress egress-controller-
start_agent
eventually "its NetworkPolicy is still there" gone networkpolicy -n tenant-a egress
show kubectl get networkpolicy -n tenant-a

step "The agent deletes the NetworkPolicy of a deleted policy"
show kubectl delete configmap -n tenant-b egress
eventually "its NetworkPolicy is still there" gone networkpolicy -n tenant-b egress
show kubectl get networkpolicy -A

bold "All $number steps succeeded."
