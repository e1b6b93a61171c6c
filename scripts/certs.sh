#!/usr/bin/env bash
# Sees that the webhook of the cluster that kubectl points at has a serving certificate for 30 days to come,
# in the Secret egress-webhook-tls, and that API servers know its CA, the caBundle. Safe to run again: what
# is good is kept. ROTATE=1 makes new ones in any case. At each moment the API servers know the CA of each
# certificate that a Pod serves, so that no request is refused.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/cluster.sh
secret=egress-webhook-tls
configuration=validatingwebhookconfiguration/egress-webhook

announce "Seeing to the webhook's certificate"
exists namespace $NAMESPACE || fail "there is no namespace $NAMESPACE: run 'make webhook-deploy', which makes it, and the certificate too"
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
trust() { # FILE...: API servers trust these CAs
  kubectl patch $configuration -p "{\"webhooks\": [{\"name\": \"policy.egress-controller.io\",
    \"clientConfig\": {\"caBundle\": \"$(cat "$@" | base64 -w0)\"}}]}"
}
# serves POD FILE: writes the certificate that the Pod serves. It asks the Pod: a kubelet brings a new Secret to it late.
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
# ask_pods writes what each Pod serves, in served; it fails where one cannot be asked. Pods that are going count: they
# still take reviews.
ask_pods() {
  local pods pod
  pods=$(kubectl get pods -n $NAMESPACE -l app.kubernetes.io/name=egress-webhook -o 'jsonpath={.items[*].metadata.name}') || return
  for pod in $pods; do
    serves "$pod" "$work/served/$pod" || { say "    Pod $pod cannot be asked which certificate it serves: every CA stays"; return 1; }
  done
}
is_served() { # CA: a Pod serves a certificate of it
  local served
  for served in "$work"/served/*; do
    ! openssl verify -CAfile "$1" "$served" >/dev/null 2>&1 || return 0
  done
  return 1
}
# The CAs that API servers trust beside the Secret's: of each that a Pod may still serve a certificate of, they stay.
# Where a rotation was cut off there may be several.
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
  say "==> The certificate in Secret $secret stays, good until $(openssl x509 -in "$work/now/tls.crt" -noout -enddate | cut -d= -f2)"
  if [ "$registered" ] && [ ! "$known" ]; then
    step "API servers trust its CA, and still those that Pods serve certificates of" trust "$work/now/ca.crt" "${stay[@]}"
  elif [ $gone = 1 ]; then
    step "API servers trust no CA any more that no Pod serves a certificate of" trust "$work/now/ca.crt" "${stay[@]}"
  fi
  exit 0
fi
# The old CA stays until a later run finds no Pod that serves a certificate of it. Its key was thrown away when its
# certificate was made: nobody can sign with it, and no Pod that still has the old certificate is ever refused.
if [ "$registered" ]; then
  step "API servers trust the new CA, and still those before" trust "$work/next/ca.crt" "$work/now/ca.crt" "${stay[@]}"
  sleep 5 # every API server has heard of it by then
fi
store() {
  kubectl create secret generic $secret -n $NAMESPACE --type=kubernetes.io/tls --dry-run=client -o yaml \
    --from-file=ca.crt="$work/next/ca.crt" --from-file=tls.crt="$work/next/tls.crt" --from-file=tls.key="$work/next/tls.key" |
    kubectl label --local -f - app.kubernetes.io/name=egress-webhook app.kubernetes.io/part-of=egress-control -o yaml |
    kubectl apply --server-side --force-conflicts --field-manager=egress-certs -f -
}
step "The certificate goes into Secret $secret" store
if exists deployment/egress-webhook -n $NAMESPACE; then
  step "The webhook's Pods take it up, one after the other" kubectl rollout restart deployment/egress-webhook -n $NAMESPACE
  step "They are ready" rolled_out egress-webhook
fi
