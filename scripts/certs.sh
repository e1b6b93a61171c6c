#!/usr/bin/env bash
# Sees that the webhook of the cluster that kubectl points at has a serving certificate for 30 days to come,
# in the Secret egress-webhook-tls, and that API servers know its CA, the caBundle. Safe to run again: what
# is good is kept. ROTATE=1 makes new ones in any case. At each moment the API servers know the CA of each
# certificate that is served, so that no request is refused.
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

bundle() { kubectl get $configuration --ignore-not-found -o 'jsonpath={.webhooks[0].clientConfig.caBundle}'; }
trust() { # FILE...: API servers trust these CAs
  kubectl patch $configuration -p "{\"webhooks\": [{\"name\": \"policy.egress-controller.io\",
    \"clientConfig\": {\"caBundle\": \"$(cat "$@" | base64 -w0)\"}}]}"
}
if cmp -s "$work/now/tls.crt" "$work/next/tls.crt"; then
  say "==> The certificate in Secret $secret stays, good until $(openssl x509 -in "$work/now/tls.crt" -noout -enddate | cut -d= -f2)"
  # Where a rotation was cut off the bundle has another CA too, and Pods may still need it.
  ! exists $configuration || [[ "$(bundle | base64 -d)" == *"$(cat "$work/now/ca.crt")"* ]] || step "API servers trust its CA" trust "$work/now/ca.crt"
  exit 0
fi
# The old CA stays until the next rotation. Its key was thrown away when its certificate was made: nobody
# can sign with it, and no Pod that still has the old certificate is ever refused.
if exists $configuration; then
  step "API servers trust the new CA, and still the one before" trust "$work/next/ca.crt" "$work/now/ca.crt"
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
