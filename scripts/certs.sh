#!/usr/bin/env bash
# Makes the webhook's serving certificate in the current cluster of kubectl: the Secret egress-webhook-tls, and its CA
# in the caBundle that API servers use. It keeps a certificate that is valid for 30 more days, so it is safe to run
# again. ROTATE=1 replaces it in any case. API servers always trust the CA of each certificate that a Pod serves, so no
# request is refused during a rotation.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/cluster.sh
secret=egress-webhook-tls
configuration=validatingwebhookconfiguration/egress-webhook

announce "Checking the webhook's certificate"
exists namespace $NAMESPACE || fail "there is no namespace $NAMESPACE: run 'make webhook-deploy', which creates it and the certificate"
[ "$(kubectl get secret $secret -n $NAMESPACE --ignore-not-found -o 'jsonpath={.metadata.annotations.cert-manager\.io/certificate-name}')" = "" ] ||
  fail "cert-manager makes this certificate: deploy with OVERLAYS=cert-manager, and renew it with 'cmctl renew -n $NAMESPACE egress-webhook'"
umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/now" "$work/next"
for file in ca.crt tls.crt tls.key; do
  kubectl get secret $secret -n $NAMESPACE --ignore-not-found -o "jsonpath={.data.${file/./\\.}}" | base64 -d >"$work/now/$file"
done
[ "${ROTATE:-}" = 1 ] || cp "$work"/now/* "$work/next/"
scripts/generate-certs.sh "$work/next" egress-webhook.$NAMESPACE.svc egress-webhook.$NAMESPACE.svc.cluster.local 2>"$work/log" || fail "$(cat "$work/log")"

registered=
! exists $configuration || registered=1
trust() { # FILE...: makes API servers trust these CAs, and no others
  local name names entries=
  names=$(kubectl get $configuration -o 'jsonpath={.webhooks[*].name}') || return
  for name in $names; do # an earlier version has fewer entries
    entries+="${entries:+, }{\"name\": \"$name\", \"clientConfig\": {\"caBundle\": \"$(cat "$@" | base64 -w0)\"}}"
  done
  kubectl patch $configuration -p "{\"webhooks\": [$entries]}"
}
# serves POD FILE: writes the certificate that the Pod serves to FILE. It asks the Pod, because the kubelet mounts a new
# Secret up to two minutes late.
serves() {
  local forward port="" end=$((SECONDS + 10))
  command "$KUBECTL" port-forward -n $NAMESPACE "pod/$1" :8443 >"$work/forward" 2>&1 &
  forward=$!
  while [ -z "$port" ] && [ $SECONDS -lt $end ] && kill -0 $forward 2>/dev/null; do
    sleep 0.1
    port=$(sed -n 's/^Forwarding from 127\.0\.0\.1:\([0-9]*\) .*/\1/p' "$work/forward")
  done
  [ -z "$port" ] || timeout 10 openssl s_client -connect "127.0.0.1:$port" </dev/null 2>/dev/null | openssl x509 -out "$2" 2>/dev/null || true
  kill $forward 2>/dev/null || true
  wait $forward 2>/dev/null || true
  [ -s "$2" ]
}
# ask_pods writes the certificate of each Pod to served/POD. It fails if a Pod does not answer. Terminating Pods count,
# because they still answer reviews.
ask_pods() {
  local pods pod
  pods=$(kubectl get pods -n $NAMESPACE -l app.kubernetes.io/name=egress-webhook -o 'jsonpath={.items[*].metadata.name}') || return
  for pod in $pods; do
    serves "$pod" "$work/served/$pod" || { say "    Pod $pod does not say which certificate it serves, so API servers still trust every CA"; return 1; }
  done
}
is_served() { # CA: succeeds if a Pod serves a certificate of this CA
  local served
  for served in "$work"/served/*; do
    ! openssl verify -CAfile "$1" "$served" >/dev/null 2>&1 || return 0
  done
  return 1
}
# API servers may trust other CAs beside the Secret's: one after a rotation, several after a rotation that was
# interrupted. They keep a CA while a Pod may still serve a certificate of it.
mkdir "$work/trusted" "$work/served"
if [ "$registered" ]; then
  kubectl get $configuration -o 'jsonpath={.webhooks[0].clientConfig.caBundle}' | base64 -d |
    awk -v dir="$work/trusted" '/-----BEGIN CERTIFICATE-----/ {n++} n {print > (dir "/" n ".crt")}'
fi
stay=() gone=0 known=
for ca in "$work"/trusted/*; do
  if [ ! -e "$ca" ]; then continue; fi
  if cmp -s "$ca" "$work/now/ca.crt"; then known=1; else stay+=("$ca"); fi
done
if [ ${#stay[@]} -gt 0 ] && ask_pods; then
  others=("${stay[@]}") stay=()
  for ca in "${others[@]}"; do
    if is_served "$ca"; then stay+=("$ca"); else gone=1; fi
  done
fi
if cmp -s "$work/now/tls.crt" "$work/next/tls.crt"; then
  say "==> The certificate in Secret $secret is valid until $(openssl x509 -in "$work/now/tls.crt" -noout -enddate | cut -d= -f2)"
  if [ "$registered" ] && [ ! "$known" ]; then
    step "API servers trust its CA, and the CA of each certificate that a Pod serves" trust "$work/now/ca.crt" "${stay[@]}"
  elif [ $gone = 1 ]; then
    step "API servers no longer trust the CAs that no Pod serves a certificate of" trust "$work/now/ca.crt" "${stay[@]}"
  fi
  exit 0
fi
# API servers trust the old CA until a later run finds no Pod that serves a certificate of it, so a Pod with the old
# certificate is never refused. That is safe: generate-certs.sh deleted the CA's key, so nobody can sign with it.
if [ "$registered" ]; then
  step "API servers trust the new CA beside the old ones" trust "$work/next/ca.crt" "$work/now/ca.crt" "${stay[@]}"
  sleep 5 # until every API server has the change
fi
store() {
  kubectl create secret generic $secret -n $NAMESPACE --type=kubernetes.io/tls --dry-run=client -o yaml \
    --from-file=ca.crt="$work/next/ca.crt" --from-file=tls.crt="$work/next/tls.crt" --from-file=tls.key="$work/next/tls.key" |
    kubectl label --local -f - app.kubernetes.io/name=egress-webhook app.kubernetes.io/part-of=egress-control -o yaml |
    kubectl apply --server-side --force-conflicts --field-manager=egress-certs -f -
}
step "Writing the certificate to Secret $secret" store
if exists deployment/egress-webhook -n $NAMESPACE; then
  step "Restarting the webhook's Pods with it, one after the other" kubectl rollout restart deployment/egress-webhook -n $NAMESPACE
  step "Waiting until they are ready" rolled_out egress-webhook
fi
