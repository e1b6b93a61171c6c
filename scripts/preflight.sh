#!/usr/bin/env bash
# Checks whether the current cluster of kubectl has all that egress-agent and egress-webhook need. Prints a line for
# each check: ok, warning or error, and what to do. Changes nothing. Exit status 1 if there is an error.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/cluster.sh
failed=0
ok() { say "ok       $*"; }
warning() { say "warning  $*"; }
error() { failed=1; say "error    $*"; }
# get RESOURCE NAME JSONPATH: prints a field of an object in kube-system, or nothing if it does not exist.
get() { kubectl get "$1" "$2" -n kube-system --ignore-not-found -o "jsonpath=$3"; }

version() {
  local minor
  minor=$(kubectl version -o json | sed -n '/"serverVersion"/,/}/s/.*"minor": "\([0-9]*\).*/\1/p')
  if [ "$minor" -ge 30 ]; then
    ok "Kubernetes 1.$minor"
  else
    error "Kubernetes 1.$minor is too old: the webhook's matchConditions need 1.30; upgrade the cluster"
  fi
}

# may VERB RESOURCE...: prints ok, or an error with the resources for which you lack the right. It asks the API that
# "kubectl auth can-i" asks, for all at once, because a kubectl for each takes many seconds.
may() {
  local verb=$1 resource group answers missing=(); shift
  answers=$(for resource in "$@"; do
    group=; [[ $resource != *.* ]] || group=${resource#*.}
    printf '%s\n' '---' 'apiVersion: authorization.k8s.io/v1' 'kind: SelfSubjectAccessReview' 'spec:' \
      "  resourceAttributes: {namespace: $NAMESPACE, verb: $verb, group: '$group', resource: ${resource%%.*}}"
  done | kubectl create --validate=false -f - -o 'jsonpath={.spec.resourceAttributes.resource}={.status.allowed}{"\n"}' 2>/dev/null) || true
  for resource in "$@"; do
    [[ $'\n'$answers = *$'\n'"${resource%%.*}=true"* ]] || missing+=("${resource%%.*}")
  done
  if [ ${#missing[@]} = 0 ]; then
    ok "you may $verb all that deploy needs"
  else
    error "you may not $verb ${missing[*]}: ask for the rights of cluster-admin, or have an administrator run this"
  fi
}
rights() {
  local resources=(namespaces clusterroles.rbac.authorization.k8s.io clusterrolebindings.rbac.authorization.k8s.io
    validatingwebhookconfigurations.admissionregistration.k8s.io priorityclasses.scheduling.k8s.io
    roles.rbac.authorization.k8s.io rolebindings.rbac.authorization.k8s.io deployments.apps services serviceaccounts secrets
    networkpolicies.networking.k8s.io poddisruptionbudgets.policy)
  may create "${resources[@]}"
  may patch "${resources[@]}"
  # Kubernetes lets nobody grant a right that they lack. Only the API server can check that.
  local answer
  if answer=$(kubectl kustomize deploy | kubectl apply --dry-run=server -l app.kubernetes.io/name=egress-agent,app.kubernetes.io/component=controller -f - 2>&1) ||
    [[ $answer != *"attempting to grant"* ]]; then
    ok "you may grant the agent its rights"
  else
    error "you may not grant the agent its rights, because you do not have them: deploy as a member of cluster-admin"
  fi
}

cni() {
  local name version known
  if [ -n "$(get daemonset aws-node '{.metadata.name}')" ]; then
    vpc_cni
  elif exists crd nodeclasses.eks.amazonaws.com; then
    auto_mode
  else
    known=' calico-node cilium antrea-agent kube-router weave-net ovnkube-node canal '
    while read -r name version; do
      [[ $known != *" $name "* ]] || { ok "NetworkPolicies are enforced by $name (${version##*/})"; return; }
    done < <(kubectl get daemonsets -A -o 'jsonpath={range .items[*]}{.metadata.name} {.spec.template.spec.containers[0].image}{"\n"}{end}')
    warning "this script knows no CNI here that enforces NetworkPolicies: without one they are stored and have no effect." \
      "Check whether yours enforces them; on EKS, use the VPC CNI add-on with enableNetworkPolicy"
  fi
}
vpc_cni() {
  local image version mode
  image=$(get daemonset aws-node '{.spec.template.spec.containers[?(@.name=="aws-node")].image}')
  version=${image##*:v}
  if [[ $version =~ ^1\.([0-9]+)\. ]] && [ "${BASH_REMATCH[1]}" -lt 14 ]; then
    error "VPC CNI $version does not enforce NetworkPolicies: update the add-on vpc-cni to v1.14 or later"
    return
  fi
  ok "VPC CNI $version"
  if [[ $(get daemonset aws-node '{.spec.template.spec.containers[*].args}') != *--enable-network-policy=true* ]]; then
    error "VPC CNI does not enforce NetworkPolicies: its node agent runs with --enable-network-policy=false." \
      "Set it: aws eks update-addon --cluster-name CLUSTER --addon-name vpc-cni --configuration-values '{\"enableNetworkPolicy\": \"true\"}'"
  else
    ok "VPC CNI enforces NetworkPolicies (enable-network-policy)"
  fi
  policy_endpoints
  mode=$(get daemonset aws-node '{.spec.template.spec.containers[?(@.name=="aws-node")].env[?(@.name=="NETWORK_POLICY_ENFORCING_MODE")].value}')
  if [ "$mode" = strict ]; then
    ok "VPC CNI enforces in strict mode: a new Pod cannot connect until its policies are on its node." \
      "Both programs come with theirs; check that every other namespace has its own, also kube-system"
  else
    warning "VPC CNI enforces in standard mode: for seconds, until its policies are on its node, a new Pod can connect anywhere." \
      "To prevent that, set NETWORK_POLICY_ENFORCING_MODE=strict, after every namespace has its policies"
  fi
}
auto_mode() {
  if [ "$(get configmap amazon-vpc-cni '{.data.enable-network-policy-controller}')" = true ]; then
    ok "EKS Auto Mode enforces NetworkPolicies"
  else
    error "EKS Auto Mode does not enforce NetworkPolicies: create the ConfigMap amazon-vpc-cni in kube-system with" \
      "enable-network-policy-controller: \"true\", and a NodeClass with networkPolicy: DefaultAllow or DefaultDeny"
  fi
  policy_endpoints
}
policy_endpoints() {
  if exists crd policyendpoints.networking.k8s.aws; then
    ok "the CRD PolicyEndpoints exists"
  else
    error "the CRD policyendpoints.networking.k8s.aws is missing, which brings NetworkPolicies to the nodes:" \
      "update the cluster's platform version, or install the network policy controller"
  fi
}

dns() {
  local pods service
  pods=$(kubectl get pods -n kube-system -l k8s-app=kube-dns --field-selector status.phase=Running -o name | wc -l)
  service=$(get service kube-dns '{.spec.clusterIP}')
  if [ "$pods" -gt 0 ]; then
    ok "the DNS rule of every policy finds DNS: k8s-app=kube-dns in kube-system ($pods running)"
  else
    error "no Pod with k8s-app=kube-dns runs in kube-system, where the DNS rule of every policy expects DNS. If DNS runs elsewhere," \
      "as in EKS Auto Mode, give both programs --dns-cidr with its address${service:+, such as $service/32}"
  fi
  [ -z "$(get daemonset node-local-dns '{.metadata.name}')" ] ||
    warning "NodeLocal DNSCache answers the Pods: give both programs --dns-cidr 169.254.20.10/32"
}

overlays() {
  ! uses cert-manager || needs crd certificates.cert-manager.io "install cert-manager"
  ! uses prometheus || needs crd servicemonitors.monitoring.coreos.com "install the Prometheus operator"
  ! uses restricted-internet || needs "configmap -n $NAMESPACE" aws-ip-ranges "create it as deploy/components/restricted-internet/kustomization.yaml says"
}
needs() { # RESOURCE NAME HOW
  # shellcheck disable=SC2086 # the resource may come with a namespace
  if exists $1 "$2"; then ok "the overlay finds $2"; else error "the overlay needs ${1%% *} $2: $3"; fi
}

announce "Checking, and changing nothing,"
version
rights
cni
dns
overlays
[ $failed = 0 ] || fail "correct the errors above first"
