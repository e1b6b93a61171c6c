package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// shell runs the program with stdin and args, like a shell.
func shell(t *testing.T, stdin string, args ...string) (status int, stdout, stderr string) {
	var out, errs bytes.Buffer
	status = run(t.Context(), args, strings.NewReader(stdin), &out, &errs)
	return status, out.String(), errs.String()
}

const (
	ranges = "../../testdata/ranges/ip-ranges.json"
	custom = "../../testdata/ranges/custom.json"

	goodManifest = `apiVersion: v1
kind: ConfigMap
metadata: {name: egress, namespace: tenant-a, labels: {egress-controller: managed}}
data:
  policy.json: '{"allowedDestinations": [{"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]}]}'
`
	badManifest = `apiVersion: v1
kind: ConfigMap
metadata: {name: typo, namespace: tenant-b, labels: {egress-controller: managed}}
data:
  policy.json: '{"allowedDestinations": [{"name": "db", "cidr": "10.1.0.0/99", "prots": [5432]}]}'
`
	otherManifests = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: x}\ndata: {a: YQ==}\n---\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {replicas: 1}\n---\n"
)

func TestValidate(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	good, bad := write("good.yaml", goodManifest), write("bad.yaml", badManifest)
	invalidLines := bad + `: tenant-b/typo: Invalid CIDR format: 10.1.0.0/99 (allowedDestinations[0].cidr)
` + bad + `: tenant-b/typo: Unknown field: prots; did you mean "ports"? (allowedDestinations[0].prots)
`
	bare := write("bare.json", `{"allowedDestinations": [`)
	list := write("list.yaml", "apiVersion: v1\nkind: List\nitems:\n- "+strings.ReplaceAll(strings.TrimSpace(badManifest), "\n", "\n  ")+"\n- "+strings.ReplaceAll(strings.TrimSpace(goodManifest), "\n", "\n  ")+"\n")
	unlabelled := write("unlabelled.yaml", strings.ReplaceAll(goodManifest, "egress-controller: managed", "app: x"))
	service := write("service.json", `{"allowedDestinations": [{"name": "bills", "awsService": "billing", "regions": ["dublin"], "ports": [443]}]}`)
	wide := write("wide-ranges.json", `{"prefixes": [{"ip_prefix": "0.0.0.0/0", "service": "s3", "region": "x"}]}`)
	keyless := write("keyless.yaml", strings.ReplaceAll(goodManifest, "policy.json", "policy.yaml"))
	nested := write("nested.yaml", strings.Repeat("[", 20000))
	utf8 := write("utf8.yaml", strings.ReplaceAll(goodManifest, "db", "\xff"))
	mapping := write("mapping.yaml", strings.ReplaceAll(goodManifest, "'", ""))

	for _, test := range []struct {
		name           string
		stdin          string
		args           []string
		status         int
		stdout, stderr string
	}{
		{"valid", "", []string{"-f", good}, 0, good + ": tenant-a/egress: valid\n", ""},
		{"invalid", "", []string{"-f", bad}, 1, bad + ": tenant-b/typo: invalid\n", invalidLines},
		{"a valid and an invalid file", "", []string{"-f", good, bad, "--ranges-file", ranges}, 1, good + ": tenant-a/egress: valid\n" + bad + ": tenant-b/typo: invalid\n", invalidLines},
		{"standard input among others", goodManifest + otherManifests, []string{"-f", "-"}, 0, "-: tenant-a/egress: valid\n", ""},
		{"a list", "", []string{"-f", list}, 1, list + ": tenant-b/typo: invalid\n" + list + ": tenant-a/egress: valid\n", strings.ReplaceAll(invalidLines, bad, list)},
		{"bare", "", []string{"-f", bare}, 1, bare + ": invalid\n", bare + ": Invalid JSON: unexpected end of JSON input at line 1, column 26 (policy.json)\n"},
		{"bare on standard input", `{"allowedDestinations": []}`, []string{"-f", "-"}, 0, "-: valid\n", ""},
		{"nested", "", []string{"-f", nested}, 1, nested + ": invalid\n", nested + ": Invalid JSON: invalid character '[' exceeded max depth at line 1, column 10001 (policy.json)\n"},
		{"key missing", "", []string{"-f", keyless}, 1, keyless + ": tenant-a/egress: invalid\n", keyless + ": tenant-a/egress: Missing field: policy.json; the agent does not read the key policy.yaml: rename it to policy.json, and write JSON (data)\n"},
		{"no policy", otherManifests, []string{"-f", "-"}, 0, "", "-: no policy found: no ConfigMap has the label egress-controller: managed\n"},
		{"no label", "", []string{"-f", unlabelled}, 0, "", unlabelled + ": tenant-a/egress: skipped: it has policy.json, but not the label egress-controller: managed\n" +
			unlabelled + ": no policy found: no ConfigMap has the label egress-controller: managed\n"},
		{"unknown service", "", []string{"-f", service}, 1, service + ": invalid\n", service + ": Invalid service: billing (allowedDestinations[0].awsService)\n" +
			service + ": Invalid region: dublin (allowedDestinations[0].regions[0])\n"},
		{"custom service", "", []string{"-f", service, "--custom-ranges", custom}, 0, service + ": valid\n", ""},
		{"custom s3", "", []string{"-f", bare, "--custom-ranges", wide}, 2, "", "egress-webhook validate: " + wide +
			": 0.0.0.0/0 (S3, x) has the name of an AWS service (and 1 more); correct the file or start with --trust-custom-ranges\n"},
		{"custom s3, trusted", `{"allowedDestinations": []}`, []string{"-f", "-", "--custom-ranges", wide, "--trust-custom-ranges"}, 0, "-: valid\n",
			"egress-webhook validate: note: " + wide + ": 0.0.0.0/0 (S3, x) has the name of an AWS service\n" +
				"egress-webhook validate: note: " + wide + ": 0.0.0.0/0 (S3, x) is wider than /8\n"},

		{"nothing", "", nil, 2, "", "egress-webhook validate: no input: give -f FILE\nRun 'egress-webhook validate --help' for usage.\n"},
		{"argument without -f", "", []string{good}, 2, "", "egress-webhook validate: unexpected argument \"" + good + "\": give files with -f\nRun 'egress-webhook validate --help' for usage.\n"},
		{"unknown flag", "", []string{"--nope"}, 2, "", "egress-webhook validate: flag provided but not defined: -nope\nRun 'egress-webhook validate --help' for usage.\n"},
		{"bad format", "", []string{"-f", good, "-o", "xml"}, 2, "", "egress-webhook validate: invalid -o \"xml\": must be text, json or github\nRun 'egress-webhook validate --help' for usage.\n"},
		{"bad family", "", []string{"-f", good, "--ip-family", "4"}, 2, "", "egress-webhook validate: unknown IP family \"4\": must be auto, ipv4, ipv6 or dual\nRun 'egress-webhook validate --help' for usage.\n"},
		{"bad DNS CIDR", "", []string{"-f", good, "--dns-cidr", "169.254.20.10", "--dns-cidr", "fd00::/8"}, 2, "",
			"egress-webhook validate: invalid --dns-cidr \"169.254.20.10\": must be a CIDR such as 169.254.20.10/32\negress-webhook validate: DNS CIDR fd00::/8 is not in the cluster's address family, IPv4\nRun 'egress-webhook validate --help' for usage.\n"},
		{"no such file", "", []string{"-f", dir + "/none.yaml"}, 2, "", "egress-webhook validate: open " + dir + "/none.yaml: no such file or directory\n"},
		{"no such ranges", "", []string{"-f", good, "--ranges-file", dir + "/none"}, 2, "", "egress-webhook validate: open " + dir + "/none: no such file or directory\n"},
		{"a ranges file with other content", "", []string{"-f", good, "--ranges-file", good}, 2, "", "egress-webhook validate: " + good + ": not an ip-ranges document: invalid character 'a' looking for beginning of value\n"},
		{"invalid UTF-8", "", []string{"-f", utf8}, 2, "", "egress-webhook validate: " + utf8 + ": invalid YAML: invalid leading UTF-8 octet\n"},
		{"policy not a string", "", []string{"-f", mapping}, 2, "", "egress-webhook validate: " + mapping + ":5:16: policy.json must be a string, not a mapping: quote it, or begin it with |\n"},
		{"YAML without an object", "", []string{"-f", write("scalar.yaml", "just text")}, 2, "", "egress-webhook validate: " + dir + "/scalar.yaml:1:1: not a Kubernetes object: an object must be a mapping, not text\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, stdout, stderr := shell(t, test.stdin, append([]string{"validate"}, test.args...)...)
			require.Equal(t, test.stderr, stderr)
			require.Equal(t, test.stdout, stdout)
			require.Equal(t, test.status, status)
		})
	}
}

func TestValidateJSON(t *testing.T) {
	status, stdout, stderr := shell(t, goodManifest+"---\n"+badManifest, "validate", "-f", "-", "-o", "json")
	require.Equal(t, 1, status)
	require.Empty(t, stderr)
	require.JSONEq(t, `[
		{"file": "-", "namespace": "tenant-a", "name": "egress", "valid": true, "problems": [], "warnings": []},
		{"file": "-", "namespace": "tenant-b", "name": "typo", "valid": false, "warnings": [], "problems": [
			{"message": "Invalid CIDR format: 10.1.0.0/99", "path": "allowedDestinations[0].cidr", "line": 11, "column": 65},
			{"message": "Unknown field: prots; did you mean \"ports\"?", "path": "allowedDestinations[0].prots", "line": 11, "column": 80}]}]`, stdout)
	_, stdout, _ = shell(t, otherManifests, "validate", "-f", "-", "-o", "json")
	require.Equal(t, "[]\n", stdout)
	require.True(t, json.Valid([]byte(stdout)))
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"-h"}, {"help"}, {"validate", "--help"}} {
		status, stdout, stderr := shell(t, "", args...)
		require.Zero(t, status)
		require.Empty(t, stderr)
		require.Contains(t, stdout, "Usage:")
		require.Contains(t, stdout, "Examples:")
	}
	status, stdout, _ := shell(t, "", "--version")
	require.Zero(t, status)
	require.Regexp(t, `^egress-webhook \S+ \(.*go1\.`, stdout)
	for _, test := range []struct {
		args   []string
		stderr string
	}{
		{nil, "egress-webhook: no serving certificate: give --tls-cert-file and --tls-key-file\n"},
		{[]string{"vaildate"}, "egress-webhook: unknown command \"vaildate\"\n"},
		{[]string{"--tls-cert-file", "a", "--tls-key-file", "b", "extra"}, "egress-webhook: unexpected argument \"extra\"\n"},
		{[]string{"--tls-cert-file", "a", "--tls-key-file", "b", "--log-level", "loud", "--ip-family", "x"},
			"egress-webhook: unknown IP family \"x\": must be auto, ipv4, ipv6 or dual\negress-webhook: invalid --log-level \"loud\": must be debug, info, warn or error\n"},
	} {
		status, stdout, stderr := shell(t, "", test.args...)
		require.Equal(t, 2, status)
		require.Empty(t, stdout)
		require.Equal(t, test.stderr+"Run 'egress-webhook --help' for usage.\n", stderr)
	}
	status, _, stderr := shell(t, "", "--tls-cert-file", "/none.crt", "--tls-key-file", "/none.key")
	require.Equal(t, 2, status)
	require.Contains(t, stderr, "open /none.crt: no such file or directory")
}
