#!/usr/bin/env bash
# Checks whether the current cluster of kubectl has all that egress-agent and egress-webhook need. Prints a line for
# each check: ok, warning or error, and what to do. Changes nothing. Exit status 1 if there is an error.
#
# PROBE=1       also proves with Pods whether NetworkPolicies are enforced, in a namespace that it creates and deletes
# PROBE_IMAGE   the image of these Pods: agnhost, or a copy of it in another registry
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/cluster.sh
. scripts/probe.sh
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

# node_kinds: counts the nodes by what enforces NetworkPolicies on them. kinds are those kinds where a CNI can enforce
# them. Without any node, kinds follow from what is installed.
declare -A node_count=() strict=() # strict: the kinds that deny all connections of a Pod without a policy
kinds=()
node_kinds() {
  local nodes node kind
  nodes=$(kubectl get nodes -o 'jsonpath={range .items[*]}{.metadata.labels.kubernetes\.io/os}={.metadata.labels.eks\.amazonaws\.com/compute-type}{"\n"}{end}') ||
    error "you may not list the nodes: ask for that right, because whether NetworkPolicies are enforced depends on the kind of a node"
  for node in $nodes; do
    case $node in
    windows=*) kind=windows ;;
    *=auto | *=fargate | *=hybrid) kind=${node#*=} ;;
    *) kind=managed ;;
    esac
    node_count[$kind]=$((${node_count[$kind]:-0} + 1))
  done
  for kind in managed auto hybrid; do
    [ -z "${node_count[$kind]:-}" ] || kinds+=("$kind")
  done
  [ ${#node_count[@]} = 0 ] || return 0
  kinds=(managed)
  if [ -z "$(get daemonset aws-node '{.metadata.name}')" ] && exists crd nodeclasses.eks.amazonaws.com; then kinds=(auto); fi
}
# nodes KIND: prints how many nodes of a kind there are, such as "1 Fargate node".
nodes() {
  local count=${node_count[$1]:-0} name
  case $1 in
  managed) name="managed or self-managed" ;;
  auto) name="Auto Mode" ;;
  *) name=${1^} ;;
  esac
  printf '%s %s node' "$count" "$name"
  [ "$count" = 1 ] || printf s
}

enforcement() {
  local kind unenforced=warning
  for kind in "${kinds[@]}"; do
    case $kind in
    auto) auto_mode ;;
    managed) if [ -n "$(get daemonset aws-node '{.metadata.name}')" ]; then vpc_cni; else other_cni managed; fi ;;
    hybrid) other_cni hybrid ;;
    esac
  done
  [ ${#kinds[@]} -gt 0 ] || unenforced=error
  [ -z "${node_count[fargate]:-}" ] || $unenforced "NetworkPolicies have no effect on $(nodes fargate): Pods there can connect anywhere." \
    "Limit them by security groups for Pods (SecurityGroupPolicy), or run tenants' Pods on other nodes"
  [ -z "${node_count[windows]:-}" ] || $unenforced "NetworkPolicies have no effect on $(nodes windows): Pods there can connect anywhere." \
    "Run tenants' Pods on Linux nodes"
}
other_cni() { # KIND
  local name version known=' calico-node cilium antrea-agent kube-router weave-net ovnkube-node canal '
  while read -r name version; do
    [[ $known != *" $name "* ]] || { ok "NetworkPolicies are enforced by $name (${version##*/}) on $(nodes "$1")"; return; }
  done < <(kubectl get daemonsets -A -o 'jsonpath={range .items[*]}{.metadata.name} {.spec.template.spec.containers[0].image}{"\n"}{end}')
  warning "this script knows no CNI here that enforces NetworkPolicies on $(nodes "$1"): without one they are stored and have no effect." \
    "Check with PROBE=1 whether yours enforces them; on EKS, use the VPC CNI add-on with enableNetworkPolicy"
}
vpc_cni() {
  local image version mode
  image=$(get daemonset aws-node '{.spec.template.spec.containers[?(@.name=="aws-node")].image}')
  version=${image##*:v}
  if [[ $version =~ ^1\.([0-9]+)\. ]] && [ "${BASH_REMATCH[1]}" -lt 14 ]; then
    error "VPC CNI $version does not enforce NetworkPolicies on $(nodes managed): update the add-on vpc-cni to v1.14 or later"
    return
  fi
  if [[ $(get daemonset aws-node '{.spec.template.spec.containers[*].args}') != *--enable-network-policy=true* ]]; then
    error "VPC CNI $version does not enforce NetworkPolicies on $(nodes managed): its node agent runs with --enable-network-policy=false." \
      "Set it: aws eks update-addon --cluster-name CLUSTER --addon-name vpc-cni --configuration-values '{\"enableNetworkPolicy\": \"true\"}'"
  elif [ "$(controller_switch)" = false ]; then
    error "VPC CNI $version gets no NetworkPolicies on $(nodes managed): the ConfigMap amazon-vpc-cni in kube-system says" \
      "enable-network-policy-controller: \"false\". Set it to \"true\", as the add-on does with enableNetworkPolicy"
  else
    ok "VPC CNI $version enforces NetworkPolicies on $(nodes managed) (enable-network-policy)"
  fi
  policy_endpoints
  mode=$(get daemonset aws-node '{.spec.template.spec.containers[?(@.name=="aws-node")].env[?(@.name=="NETWORK_POLICY_ENFORCING_MODE")].value}')
  if [ "$mode" = strict ]; then
    strict[managed]=yes
    ok "VPC CNI enforces in strict mode: a new Pod cannot connect until its policies are on its node." \
      "Both programs come with theirs; check that every other namespace has its own, also kube-system"
  else
    warning "VPC CNI enforces in standard mode: for seconds, until its policies are on its node, a new Pod can connect anywhere." \
      "To prevent that, set NETWORK_POLICY_ENFORCING_MODE=strict, after every namespace has its policies"
  fi
}
auto_mode() {
  local name policy on=() off=()
  while read -r name policy; do
    case $policy in
    DefaultAllow) on+=("$name: $policy") ;;
    DefaultDeny) on+=("$name: $policy"); strict[auto]=yes ;;
    *) off+=("$name") ;;
    esac
  done < <(kubectl get nodeclasses.eks.amazonaws.com -o 'jsonpath={range .items[*]}{.metadata.name} {.spec.networkPolicy}{"\n"}{end}')
  if [ "$(controller_switch)" != true ]; then
    error "EKS Auto Mode does not enforce NetworkPolicies on $(nodes auto): create the ConfigMap amazon-vpc-cni in kube-system with" \
      "enable-network-policy-controller: \"true\", and NodeClasses with networkPolicy: DefaultAllow or DefaultDeny"
  elif [ ${#on[@]} -gt 0 ]; then
    ok "EKS Auto Mode enforces NetworkPolicies on $(nodes auto) of the NodeClasses with networkPolicy (${on[*]})"
  fi
  [ ${#off[@]} = 0 ] || warning "of $(nodes auto), those of these NodeClasses may not enforce NetworkPolicies: ${off[*]}." \
    "Set their networkPolicy to DefaultAllow or DefaultDeny, or check with PROBE=1"
  policy_endpoints
}
# controller_switch: prints true or false: whether the control plane of EKS brings NetworkPolicies to the nodes.
controller_switch() { get configmap amazon-vpc-cni '{.data.enable-network-policy-controller}'; }
policy_endpoints() {
  [ -z "${policy_endpoints_checked:-}" ] || return 0 # for another kind of nodes
  policy_endpoints_checked=yes
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

[[ ${PROBE:-} =~ ^1?$ ]] || fail "PROBE takes 1, not $(printf %q "$PROBE")"
if [ -z "${PROBE:-}" ]; then announce "Checking, and changing nothing,"; else announce "Checking, also with a probe,"; fi
version
rights
node_kinds
enforcement
dns
overlays
[ -z "${PROBE:-}" ] || probe "${kinds[@]}"
[ $failed = 0 ] || fail "correct the errors above first"
