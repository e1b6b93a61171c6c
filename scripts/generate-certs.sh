#!/usr/bin/env bash
# Makes a CA and the webhook's serving certificate with openssl, valid for a year, in DIR:
#   ca.crt             for the caBundle of the ValidatingWebhookConfiguration
#   tls.crt, tls.key   for --tls-cert-file and --tls-key-file
# NAMEs are the names by which API servers call the webhook (default: its Service's and this machine's). The script
# keeps a certificate in DIR that is valid for these names and for 30 more days. It deletes the CA's key, so each new
# certificate has a new CA.
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: $0 DIR [NAME...]" >&2; exit 2; }
command -v openssl >/dev/null || { echo "$0: openssl is not installed: install it" >&2; exit 1; }
dir=$1
shift
[ $# -gt 0 ] || set -- egress-webhook.egress-system.svc egress-webhook.egress-system.svc.cluster.local localhost 127.0.0.1

names=
for name in "$@"; do
  [[ $name =~ ^[A-Za-z0-9:*][A-Za-z0-9.:*-]*$ ]] || { printf '%s: %q is neither a host name nor an address\n' "$0" "$name" >&2; exit 2; }
  kind=DNS
  [[ ! $name =~ ^[0-9.]+$|: ]] || kind=IP
  names+=${names:+,}$kind:$name
done
umask 077
mkdir -p "$dir"
cd "$dir"
good() { # NAME...: succeeds if the certificate in DIR is valid for each NAME
  local name check
  openssl x509 -in tls.crt -noout -checkend $((30 * 24 * 3600)) && openssl verify -CAfile ca.crt tls.crt || return
  [ "$(openssl x509 -in tls.crt -noout -pubkey)" = "$(openssl pkey -in tls.key -pubout)" ] || return
  for name in "$@"; do
    check=-checkhost
    [[ ! $name =~ ^[0-9.]+$|: ]] || check=-checkip
    openssl x509 -in tls.crt -noout $check "$name" | grep -q 'does match' || return
  done
}
if good "$@" >/dev/null 2>&1; then
  echo "the certificate for $* in $dir is still valid" >&2
  exit 0
fi
work=$(mktemp -d .new.XXXXXX)
trap 'rm -rf "$work"' EXIT
key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
openssl req -x509 "${key[@]}" -keyout "$work/ca.key" -out "$work/ca.crt" -days 365 -subj "/CN=egress-webhook CA" \
  -addext keyUsage=critical,keyCertSign 2>/dev/null
openssl req "${key[@]}" -keyout "$work/tls.key" -out "$work/tls.csr" -subj "/CN=egress-webhook" 2>/dev/null
printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\nkeyUsage=critical,digitalSignature\n' "$names" >"$work/tls.ext"
openssl x509 -req -in "$work/tls.csr" -CA "$work/ca.crt" -CAkey "$work/ca.key" -CAcreateserial -days 365 \
  -extfile "$work/tls.ext" -out "$work/tls.crt" 2>/dev/null
mv "$work"/{ca.crt,tls.crt,tls.key} .
echo "made a certificate for $* in $dir" >&2
