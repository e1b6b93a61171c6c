#!/usr/bin/env bash
# Deploys, inspects and removes the programs in the current cluster of kubectl:
#
#   deploy.sh agent | webhook | all          make deploy, webhook-deploy, webhook-full-deploy
#   deploy.sh remove | remove-webhook        make undeploy, webhook-undeploy
#   deploy.sh status | logs | restart | onboard NAMESPACE
#
# IMG_AGENT, IMG_WEBHOOK   the images (default: the images that run already)
# OVERLAYS                 any of deploy/components, such as "cert-manager prometheus"
# LABELS                   onboard also gives the namespace these labels, such as "tier=tenant"
# PURGE=1                  remove also deletes what opens the tenants' connections, such as their NetworkPolicies
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/cluster.sh
manifests=bin/deploy/manifests.yaml
# What the agent writes beside NetworkPolicies: KIND FLAG CLUSTERROLE.
optional=(
  "reports.openreports.io --reports egress-agent-reports"
  "serviceentries.networking.istio.io --service-entries egress-agent-service-entries"
  "applicationnetworkpolicies.networking.k8s.aws --domains=applicationnetworkpolicy egress-agent-domains"
  "ciliumnetworkpolicies.cilium.io --domains=cilium egress-agent-domains"
)
managed=app.kubernetes.io/managed-by=egress-agent
# delete_written KIND: deletes the objects of this kind that the agent has written. The cluster may not have the kind.
delete_written() {
  exists crd "$1" || return 0
  local count; count=$(kubectl get "$1" -A -l $managed -o name | wc -l)
  [ "$count" = 0 ] || step "Deleting the $count $1 that the agent has written" kubectl delete "$1" -A -l $managed
}

# image PROGRAM IMAGE: prints an item of a kustomization's images. If IMAGE is empty, it uses the image that runs
# already, or prints nothing if none runs.
image() {
  local image=$2
  [ -n "$image" ] || image=$(kubectl get deployment "$1" -n $NAMESPACE --ignore-not-found -o 'jsonpath={.spec.template.spec.containers[0].image}')
  [[ $image =~ ^[A-Za-z0-9._:/@-]*$ ]] || fail "$(printf %q "$image") is not an image name"
  if [[ $image =~ ^(.+)@(.+)$ ]]; then
    printf -- '- {name: %s, newName: "%s", digest: "%s"}\n' "$1" "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}"
  elif [[ $image =~ ^(.+):([^/:]+)$ ]]; then
    printf -- '- {name: %s, newName: "%s", newTag: "%s"}\n' "$1" "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}"
  elif [ -n "$image" ]; then
    fail "the image $image has no tag: append one, such as :v1"
  fi
}
# render PROGRAM...: writes bin/deploy/kustomization.yaml and its manifests. It fails if the image of a PROGRAM is
# unknown.
render() {
  local overlay program variable images
  images=$(image egress-agent "${IMG_AGENT:-}"; image egress-webhook "${IMG_WEBHOOK:-}")
  for program in "$@"; do
    variable=IMG_${program#egress-}
    variable=${variable^^}
    [[ $images == *"{name: $program,"* ]] ||
      fail "$program has no image: set it, such as $variable=registry.example.com/$program:v1; 'make images' builds it"
  done
  mkdir -p bin/deploy
  {
    printf 'apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../../deploy/base]\ncomponents:\n'
    for overlay in "${OVERLAYS[@]}"; do echo "- ../../deploy/components/$overlay"; done
    printf 'images:\n%s\n' "$images"
  } >bin/deploy/kustomization.yaml
  kubectl kustomize bin/deploy >$manifests || fail "kubectl kustomize failed for bin/deploy/kustomization.yaml"
}
apply() { kubectl apply -f $manifests -l "$1"; }
renders() { grep -qx "$1" $manifests; } # LINE: succeeds if the manifests have this line (a basic regular expression)

deploy_shared() {
  step "Applying the objects of both programs" apply app.kubernetes.io/name=egress-control
}
deploy_agent() {
  if renders ' *- --reports' && ! exists crd reports.openreports.io; then
    step "Installing the CustomResourceDefinition of OpenReports" install_openreports
  fi
  step "Applying egress-agent" apply app.kubernetes.io/name=egress-agent
  step "Waiting until egress-agent runs" rolled_out egress-agent
  if renders '  name: egress-mirror'; then
    exists secret egress-mirror-hub -n $NAMESPACE ||
      fail "egress-mirror needs the Secret egress-mirror-hub with a kubeconfig of the hub: deploy/components/mirror/kustomization.yaml shows how to make it. Then run this again"
    step "Applying egress-mirror" apply app.kubernetes.io/name=egress-mirror
    step "Waiting until egress-mirror has read the hub" rolled_out egress-mirror
  fi
  remove_unused
}
# install_openreports installs the definition from the module of its own project, at the version that the tests use.
install_openreports() {
  local module=github.com/openreports/reports-api folder=
  ! command -v go >/dev/null || folder=$(cd scripts/e2e && go mod download $module && go list -m -f '{{.Dir}}' $module) || folder=
  if [ -z "$folder" ]; then
    say "It is in the Go module $module, which cannot be downloaded here. Apply its file config/crd/openreports.io_reports.yaml first."
    return 1
  fi
  kubectl apply --server-side -f "$folder/config/crd/openreports.io_reports.yaml" &&
    kubectl wait --for=condition=Established crd/reports.openreports.io --timeout=60s
}
# remove_unused deletes what overlays of earlier deployments have left. Without that, a name would stay open after its
# overlay is gone. The rights go first, because an old Pod may still finish a write.
remove_unused() {
  local line kind flag role
  for line in "${optional[@]}"; do
    read -r kind flag role <<<"$line"
    if renders " *- $flag"; then continue; fi
    if ! renders "  name: $role" && exists clusterrole "$role"; then
      step "Deleting the agent's right to write $kind, because it runs without $flag" kubectl delete clusterrolebinding,clusterrole "$role"
    fi
    delete_written "$kind"
  done
  if ! renders '  name: egress-mirror' && exists deployment egress-mirror -n $NAMESPACE; then
    step "Deleting egress-mirror" remove_mirror
    say "The copied policies stay in force, and nothing follows the hub any more. The last commands of deploy/components/mirror/kustomization.yaml delete them, and the hub's Secret."
  fi
}
remove_mirror() {
  kubectl delete deployment,service,networkpolicy,serviceaccount,configmap -n $NAMESPACE -l app.kubernetes.io/name=egress-mirror &&
    kubectl delete clusterrolebinding,clusterrole,validatingadmissionpolicybinding,validatingadmissionpolicy egress-mirror
}
deploy_webhook() {
  local not=app.kubernetes.io/component!=registration
  if ! uses cert-manager; then scripts/certs.sh; fi
  step "Applying egress-webhook" apply "app.kubernetes.io/name=egress-webhook,$not"
  step "Waiting until egress-webhook runs" rolled_out egress-webhook
  step "Registering it with API servers" apply app.kubernetes.io/component=registration
  if uses cert-manager; then
    step "Waiting until cert-manager sets its CA" eventually 60 has_bundle
  else
    scripts/certs.sh
  fi
  refuses_in_a_namespace_of_its_own
}
has_bundle() { [ -n "$(kubectl get validatingwebhookconfiguration egress-webhook -o 'jsonpath={.webhooks[0].clientConfig.caBundle}')" ]; }
eventually() { # SECONDS COMMAND...
  local end=$((SECONDS + $1)); shift
  until "$@"; do [ $SECONDS -lt $end ] || return 1; sleep 1; done
}

# refuses NAMESPACE: succeeds if the webhook refuses a policy with a mistake there. It is a dry run and stores nothing.
refuses() {
  answer=$(kubectl create -n "$1" --dry-run=server -f - 2>&1 <<'Y'
{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "egress-check-", "labels": {"egress-controller": "managed"}},
 "data": {"policy.json": "{\"allowedDestinations\": [{\"name\": \"x\", \"cidr\": \"10.0.0.0/99\"}]}"}}
Y
  ) && answer="the policy was allowed" && return 1
  [[ $answer == *"denied the request: Policy validation failed"* ]]
}
refused() { # NAMESPACE
  eventually 60 refuses "$1" || { say "The last answer: $answer"; return 1; }
  say "$answer"
}
refuses_in_a_namespace_of_its_own() {
  local check=egress-webhook-check
  trap 'kubectl delete namespace '$check' --ignore-not-found --wait=false >/dev/null' EXIT
  kubectl apply -f - >/dev/null <<<'{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "'$check'", "labels": {"egress-validation": "enabled"}}}'
  step "Waiting until it refuses a policy with a mistake (a dry run in the temporary namespace $check)" refused $check
}

remove_webhook() {
  # Delete the registration first: while it exists without a webhook, API servers refuse every policy.
  kubectl delete validatingwebhookconfiguration egress-webhook --ignore-not-found &&
    kubectl delete deployment,service,serviceaccount,poddisruptionbudget,networkpolicy -n $NAMESPACE -l app.kubernetes.io/name=egress-webhook &&
    kubectl delete secret egress-webhook-tls -n $NAMESPACE --ignore-not-found
}
remove() {
  step "Deleting egress-webhook" remove_webhook
  step "Deleting egress-agent" kubectl delete deployment egress-agent -n $NAMESPACE --ignore-not-found --cascade=foreground --timeout=60s
  step "Deleting its rights" kubectl delete clusterrolebinding,clusterrole,rolebinding,role,validatingadmissionpolicybinding,validatingadmissionpolicy -n default -l app.kubernetes.io/part-of=egress-control
  step "Deleting the namespace $NAMESPACE, with the saved AWS ranges" kubectl delete namespace $NAMESPACE --ignore-not-found --timeout=120s
  step "Deleting the priority class" kubectl delete priorityclass egress-control --ignore-not-found
  local line kind count
  for line in "${optional[@]}"; do
    kind=${line%% *}
    # A report that nothing updates is wrong soon. The other kinds belong to the NetworkPolicies.
    if [ "${PURGE:-}" = 1 ] || [ "$kind" = reports.openreports.io ]; then delete_written "$kind"; fi
  done
  count=$(kubectl get networkpolicies -A -l $managed -o name | wc -l)
  if [ "${PURGE:-}" = 1 ]; then
    step "Deleting the tenants' $count NetworkPolicies (PURGE=1), so their pods may connect anywhere" kubectl delete networkpolicies -A -l $managed
  else
    say "The tenants' $count NetworkPolicies stay and are still enforced. Each is deleted with its ConfigMap. To delete all: make undeploy PURGE=1"
  fi
}

status() {
  kubectl get deployments,pods,poddisruptionbudgets -n $NAMESPACE -o wide
  say "" "Leader: $(kubectl get lease egress-agent -n $NAMESPACE --ignore-not-found -o 'jsonpath={.spec.holderIdentity}')"
  say "AWS ranges: $(kubectl get configmap egress-ranges -n $NAMESPACE --ignore-not-found -o 'jsonpath={.metadata.annotations}')"
  say "Certificate: $(kubectl get secret egress-webhook-tls -n $NAMESPACE --ignore-not-found -o 'jsonpath={.data.tls\.crt}' | base64 -d | openssl x509 -noout -enddate 2>/dev/null)"
  say "Tenants that opted in: $(kubectl get namespaces -l egress-validation=enabled -o 'jsonpath={.items[*].metadata.name}')"
  say "Policies: $(kubectl get configmaps -A -l egress-controller=managed -o name | wc -l), NetworkPolicies made of them: $(kubectl get networkpolicies -A -l app.kubernetes.io/managed-by=egress-agent -o name | wc -l)"
}

# checked NAMESPACE: fails unless it is a valid name of a namespace (a DNS label of RFC 1123).
checked() {
  [ -n "$1" ] || fail "NS is missing: make tenant-onboard NS=tenant-a"
  [[ $1 =~ ^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$ ]] ||
    fail "$(printf %q "$1") is not a namespace name: use at most 63 lower-case letters, digits and -, such as NS=tenant-a"
}
onboard() {
  local bases labels=()
  read -ra labels <<<"${LABELS:-}"
  for label in ${labels[@]+"${labels[@]}"}; do
    [[ $label =~ ^[A-Za-z0-9._/-]+=[A-Za-z0-9._-]*$ ]] || fail "$(printf %q "$label") is not a label: give LABELS=KEY=VALUE"
  done
  exists namespace "$1" || fail "there is no namespace $1: run 'kubectl create namespace $1'"
  exists validatingwebhookconfiguration egress-webhook || fail "the cluster has no egress-webhook: run 'make webhook-full-deploy' first"
  step "Labelling the namespace $1" kubectl label namespace "$1" egress-validation=enabled --overwrite
  [ ${#labels[@]} -eq 0 ] || step "Labelling it ${labels[*]}, too" kubectl label namespace "$1" --overwrite "${labels[@]}"
  step "Waiting until the webhook refuses a policy with a mistake there (a dry run)" refused "$1"
  bases=$(kubectl get networkpolicy -n "$1" -l egress-controller/platform=base -o 'jsonpath={.items[*].metadata.name}')
  if [ -n "$bases" ]; then
    say "By default it is closed: $bases"
  else
    say "It is open until its first policy. To close it by default, give it the label of a platform document, as in LABELS=tier=tenant: deploy/README.md, \"What binds every tenant\"."
  fi
  say "$1 is protected. Its policies are ConfigMaps with the label egress-controller=managed: README.md, \"The policy\"."
}

case ${1:-} in
agent) announce "Deploying egress-agent"; render egress-agent; deploy_shared; deploy_agent ;;
webhook) announce "Deploying egress-webhook"; render egress-webhook; deploy_shared; deploy_webhook ;;
all) announce "Deploying egress-agent and egress-webhook"; render egress-agent egress-webhook; deploy_shared; deploy_agent; deploy_webhook ;;
remove) announce "Removing egress-agent and egress-webhook"; remove ;;
remove-webhook) announce "Removing egress-webhook"; step "Deleting egress-webhook" remove_webhook ;;
status) announce "Status of egress-agent and egress-webhook"; status ;;
logs)
  [[ ${TAIL:-50} =~ ^-?[0-9]+$ ]] || fail "TAIL must be a number of lines, not $(printf %q "$TAIL")"
  announce "Logs of egress-agent and egress-webhook"; kubectl logs -n $NAMESPACE -l app.kubernetes.io/part-of=egress-control --prefix --tail="${TAIL:-50}" ${FOLLOW:+--follow} ;;
restart)
  announce "Restarting egress-agent and egress-webhook"
  for deployment in egress-agent egress-webhook egress-mirror; do
    exists deployment $deployment -n $NAMESPACE || continue
    step "Restarting $deployment, one Pod after the other" kubectl rollout restart deployment/$deployment -n $NAMESPACE
    step "Waiting until $deployment runs" rolled_out $deployment
  done ;;
onboard) checked "${2:-}"; announce "Onboarding the namespace $2"; onboard "$2" ;;
*) fail "unknown command $(printf %q "${1:-}"): see the head of scripts/deploy.sh" ;;
esac
