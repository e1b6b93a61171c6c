# shellcheck shell=bash
# Sourced by the scripts that build programs. The script that sources it defines say TEXT, which prints a line to stderr.

# explain_failure LOG: prints what to do about a go command whose messages are in LOG, if that is known.
explain_failure() {
  if grep -q 'no space left on device' "$1"; then
    say "the disk is full: free 3 GB, or set GOCACHE and TMPDIR to folders of another disk"
  elif grep -qE 'requires go >= |toolchain not available|unknown toolchain' "$1"; then
    say "this Go is too old: install Go $(sed -n 's/^go //p' go.mod) or later, see https://go.dev/dl"
  elif grep -qE 'dial tcp|i/o timeout|proxyconnect|TLS handshake|tls: |unexpected EOF|: [45][0-9][0-9] [A-Z]' "$1"; then
    say "the Go modules cannot be downloaded: check the network, and the proxy that 'go env GOPROXY' prints"
  fi
}

# has_go: fails with a message if Go is not installed.
has_go() {
  command -v go >/dev/null && return
  say "Go is not installed: install Go $(sed -n 's/^go //p' go.mod) or later, see https://go.dev/dl"
  return 1
}
