#!/usr/bin/env bash
# Fails if a program calls a function with a known vulnerability, by the database of the Go project, and prints the
# call. PACKAGEs are the packages to check (default: both programs). VULN_DB is another database, such as
# file:///folder. If the database cannot be read, as on a machine without internet, the script says so and ends with
# status 0.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- ./cmd/...
check=("${BIN:-bin}/govulncheck" -db "${VULN_DB:-https://vuln.go.dev}")

# govulncheck ends with 3 for a vulnerability, and with 1 for any error
# (https://pkg.go.dev/golang.org/x/vuln/cmd/govulncheck#hdr-Exit_codes).
status=0
# The imports take seconds to check. The calls take up to a minute, so only a vulnerable import is worth it.
output=$("${check[@]}" -scan package "$@" 2>&1) || status=$?
if [ $status = 3 ]; then
  status=0
  output=$("${check[@]}" "$@" 2>&1) || status=$?
fi
[ $status != 0 ] || exit 0
if [[ $output == *"fetching vulnerabilities: "* ]]; then
  echo "govulncheck left out: the vulnerability database cannot be read: ${output##*fetching vulnerabilities: }"
  exit 0
fi
printf '%s\n' "$output" >&2
exit 1
