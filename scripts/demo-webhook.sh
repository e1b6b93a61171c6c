#!/usr/bin/env bash
# Starts egress-webhook on this machine with its own certificates. Sends it a review for each kind of mistake, as an API
# server does. Exits with 0 only if each verdict is the expected one.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v curl >/dev/null || { echo "demo-webhook needs curl" >&2; exit 1; }
work=$(mktemp -d)
webhook=
trap 'kill $webhook 2>/dev/null || true; rm -rf "$work"' EXIT

scripts/generate-certs.sh "$work" localhost
free_port() { # prints a port of this machine on which nothing listens
  local port
  while port=$((20000 + RANDOM % 20000)); (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  echo "$port"
}
port=$(free_port)
health=$(free_port)
bin/egress-webhook --addr "127.0.0.1:$port" --http-addr "127.0.0.1:$health" --ranges-file testdata/ranges/ip-ranges.json --ip-family ipv4 \
  --tls-cert-file "$work/tls.crt" --tls-key-file "$work/tls.key" --log-level warn 2>"$work/log" &
webhook=$!
curl -fsS --retry 50 --retry-delay 1 --retry-connrefused -o "$work/ready" "http://127.0.0.1:$health/readyz"

failed=0
ask() { # WANT WHAT POLICY: sends a review of a ConfigMap with the policy, and compares the verdict with WANT
  local want=$1 what=$2 policy=$3 answer verdict
  policy=${policy//\\/\\\\}
  policy=${policy//\"/\\\"}
  cat >"$work/review.json" <<J
{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
  "uid": "$RANDOM", "kind": {"group": "", "version": "v1", "kind": "ConfigMap"}, "operation": "CREATE", "namespace": "tenant-a", "name": "egress",
  "object": {"apiVersion": "v1", "kind": "ConfigMap",
    "metadata": {"name": "egress", "namespace": "tenant-a", "labels": {"egress-controller": "managed"}},
    "data": {"policy.json": "$policy"}}}}
J
  answer=$(curl -fsS --cacert "$work/ca.crt" -H 'Content-Type: application/json' --data-binary "@$work/review.json" "https://localhost:$port/validate")
  verdict=denied
  [[ $answer != *'"allowed":true'* ]] || verdict=allowed
  printf '\n%s: %s\n  %s\n' "$what" "$verdict" "$answer"
  [ "$verdict" = "$want" ] || { echo "  EXPECTED: $want"; failed=1; }
}
ask allowed "a good policy" '{"allowedDestinations": [{"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]}]}'
ask denied "JSON syntax" '{"allowedDestinations": [{"name": "db",}]}'
ask denied "CIDR format" '{"allowedDestinations": [{"name": "db", "cidr": "10.1.0.0/99", "ports": [5432]}]}'
ask denied "AWS service" '{"allowedDestinations": [{"name": "x", "awsService": "invalid-svc", "regions": ["us-east-1"], "ports": [443]}]}'
ask denied "required field" '{"allowedDestinations": [{"cidr": "10.1.0.0/24", "ports": [5432]}]}'
ask denied "both cidr and awsService" '{"allowedDestinations": [{"name": "x", "cidr": "10.1.0.0/24", "awsService": "s3", "ports": [443]}]}'
exit $failed
