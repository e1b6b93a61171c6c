# shellcheck shell=bash
# Sourced by preflight.sh: proves with Pods whether NetworkPolicies are enforced on each kind of nodes. A client connects
# to a server three times: without a policy, with one that denies all, and with one that allows the server's address.
# Without the first, a CNI that denies everything would seem to enforce
# (https://github.com/aws/aws-network-policy-agent/issues/553).

# Kubernetes' image for network tests: "agnhost connect" tells a refused connection from other failures.
PROBE_IMAGE=${PROBE_IMAGE:-registry.k8s.io/e2e-test-images/agnhost:2.66.1}
probe_namespace=egress-probe-$(od -An -N5 -tx1 /dev/urandom | tr -d ' \n')
probe_waits= # the process that waits for the Pods

# probe KIND...: prints a verdict for each kind of nodes.
probe() {
  local kinds=("$@") kind ip target cidr others connection
  local -A before=() denied=() allowed=() by_labels=()
  [[ $PROBE_IMAGE =~ ^[A-Za-z0-9][A-Za-z0-9._:/@-]*$ ]] || fail "$(printf %q "$PROBE_IMAGE") is not an image name: set PROBE_IMAGE to agnhost's"
  [ ${#kinds[@]} -gt 0 ] || return 0 # enforcement has reported that no node enforces
  say "==> Probing in the namespace $probe_namespace, with the image $PROBE_IMAGE"
  trap 'exit 1' INT TERM HUP PIPE
  trap remove_probe EXIT
  probe_pods
  ip=$(kubectl get pods -n "$probe_namespace" -l app.kubernetes.io/name=server -o 'jsonpath={.items[0].status.podIP}')
  target=$ip:8080 cidr=$ip/32
  if [[ $ip = *:* ]]; then target=[$ip]:8080 cidr=$ip/128; fi

  for kind in "${kinds[@]}"; do measure "$kind" open; before[$kind]=$connection; done
  others=$(kubectl get networkpolicies -n "$probe_namespace" -o 'jsonpath={.items[*].metadata.name}')
  probe_policy ''
  for kind in "${kinds[@]}"; do measure "$kind" closed; denied[$kind]=$connection; done
  probe_policy "{to: [{ipBlock: {cidr: $cidr}}], ports: [{port: 8080}]}"
  for kind in "${kinds[@]}"; do measure "$kind" open; allowed[$kind]=$connection; done
  if [[ ${allowed[*]} = *closed* ]]; then
    probe_policy '{to: [{podSelector: {matchLabels: {app.kubernetes.io/name: server}}}], ports: [{port: 8080}]}'
    for kind in "${kinds[@]}"; do measure "$kind" open; by_labels[$kind]=$connection; done
  fi
  for kind in "${kinds[@]}"; do
    probe_verdict "$kind" "${before[$kind]} ${denied[$kind]} ${allowed[$kind]} ${by_labels[$kind]:-unknown}"
  done
  remove_probe
  trap - EXIT INT TERM HUP PIPE
}

# probe_verdict KIND CONNECTIONS: prints what four connections prove: without a policy, denied, allowed by address, and
# allowed by labels. Each was open or closed; the last is unknown if no client needed it.
probe_verdict() {
  local on; on=$(nodes "$1")
  case $2 in
  "open closed open "*) ok "the probe proves that NetworkPolicies are enforced on $on" ;;
  "open closed closed open") warning "the probe proves that NetworkPolicies are enforced on $on, but a CIDR does not open the Pods in it there, as on Cilium:" \
    "tell tenants to open Pods by their labels (pods), not by cidr" ;;
  "open open "* | "closed open "*) error "NetworkPolicies are stored and not enforced on $on: a Pod there connects although a NetworkPolicy denies it. $(probe_remedy "$1")" ;;
  "closed closed open "* | "closed closed closed open")
    if [ -n "$others" ]; then
      ok "the probe proves that NetworkPolicies are enforced on $on, also these, which others made in its namespace: $others"
    elif [ -n "${strict[$1]:-}" ]; then
      ok "the probe proves that NetworkPolicies are enforced on $on, and that a Pod without one is denied there (strict mode)"
    else
      error "a Pod without any NetworkPolicy is denied on $on, so each namespace without one is cut off: update the CNI, or look for a policy" \
        "of the whole cluster (https://github.com/aws/aws-network-policy-agent/issues/553)"
    fi ;;
  *) error "the probe proves nothing: a Pod on $on cannot connect to another Pod, whatever NetworkPolicy allows it." \
    "Check the security groups of the nodes, and policies of the whole cluster" ;;
  esac
}
# probe_remedy KIND: prints what to switch, by whether the control plane of EKS has brought the policy to the nodes.
probe_remedy() {
  if ! exists crd policyendpoints.networking.k8s.aws; then
    echo "Use a CNI that enforces them; on EKS, the VPC CNI add-on with enableNetworkPolicy"
  elif [ -z "$(kubectl get policyendpoints.networking.k8s.aws -n "$probe_namespace" -o name)" ]; then
    echo 'The control plane made no PolicyEndpoints of it: set enable-network-policy-controller: "true" in the ConfigMap amazon-vpc-cni in kube-system'
  elif [ "$1" = auto ]; then
    echo "Its PolicyEndpoints exist: set networkPolicy: DefaultAllow or DefaultDeny in the NodeClass of these nodes, and replace them"
  else
    echo "Its PolicyEndpoints exist: set enableNetworkPolicy of the add-on vpc-cni, and see the logs of aws-eks-nodeagent in the Pods of aws-node"
  fi
}

# measure KIND STATE: sets connection to open or closed. It waits until the client's connections are in this state three
# times in a row, because a policy takes seconds to reach a node; it gives up after about half a minute.
measure() {
  local seconds=0 row=0 output # seconds: of sleep, and of connections that time out
  until [ $row = 3 ] || [ $seconds -ge 30 ]; do
    [ $seconds = 0 ] || sleep 1
    seconds=$((seconds + 1))
    if output=$(kubectl exec -n "$probe_namespace" "deployment/client-$1" -c probe -- /agnhost connect "$target" --timeout=1s 2>&1); then
      connection=open
    elif [[ $output =~ (TIMEOUT|REFUSED|OTHER) ]]; then
      connection=closed seconds=$((seconds + 1))
    else
      fail "the probe cannot run its client in the Pod of client-$1: $output"
    fi
    if [ "$connection" = "$2" ]; then row=$((row + 1)); else row=0; fi
  done
}

# probe_policy RULE: the NetworkPolicy of the probe's Pods, with this egress rule or none. Its ingress is open, because in
# strict mode the server is closed without it.
probe_policy() {
  kubectl apply -f - >/dev/null <<YAML
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: probe, namespace: $probe_namespace}
spec: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [$1]}
YAML
}

# probe_pods: creates the namespace, a server and a client for each kind of nodes, and waits until they run. It waits in
# the background, so that a signal ends the wait at once.
probe_pods() {
  local kind nodes deployment
  {
    printf '{apiVersion: v1, kind: Namespace, metadata: {name: %s, labels: {pod-security.kubernetes.io/enforce: restricted}}}\n' "$probe_namespace"
    probe_deployment server 'netexec, --http-port=8080' 'NotIn, values: [fargate]'
    for kind in "${kinds[@]}"; do
      nodes="In, values: [$kind]"
      [ "$kind" != managed ] || nodes='NotIn, values: [auto, fargate, hybrid]'
      probe_deployment "client-$kind" pause "$nodes"
    done
  } | kubectl create -f - >/dev/null
  "$KUBECTL" wait deployment --all -n "$probe_namespace" --for=condition=Available --timeout="${TIMEOUT:-180s}" >/dev/null &
  probe_waits=$!
  wait $probe_waits && return
  for deployment in $(kubectl get deployments -n "$probe_namespace" -o 'jsonpath={range .items[*]}{.metadata.name}={.status.availableReplicas}{"\n"}{end}'); do
    [[ $deployment = *=1 ]] || why_not_ready "${deployment%=*}" "$probe_namespace"
  done
  fail "the Pods of the probe do not start, for the reasons above. If the nodes cannot pull $PROBE_IMAGE, set PROBE_IMAGE to a copy in your registry"
}
# A Deployment, because VPC CNI may not apply policies to a Pod without an owner.
probe_deployment() { # NAME ARGUMENTS NODES
  cat <<YAML
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: $1, namespace: $probe_namespace}
spec:
  selector: {matchLabels: {app.kubernetes.io/name: $1}}
  template:
    metadata: {labels: {app.kubernetes.io/name: $1}}
    spec:
      nodeSelector: {kubernetes.io/os: linux}
      affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: eks.amazonaws.com/compute-type, operator: $3}]}]}}}
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 1
      securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: probe
        image: $PROBE_IMAGE
        args: [$2]
        resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {memory: 64Mi}}
        securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
YAML
}

# remove_probe: deletes all that the probe has created. Another signal must not stop it.
remove_probe() {
  trap '' INT TERM HUP PIPE
  [ -z "$probe_waits" ] || kill "$probe_waits" 2>/dev/null || true
  say "==> Deleting the namespace $probe_namespace" || true
  kubectl delete namespace "$probe_namespace" --ignore-not-found --timeout=120s >/dev/null ||
    error "the namespace $probe_namespace of the probe is not deleted: run 'kubectl delete namespace $probe_namespace'"
}
