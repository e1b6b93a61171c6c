package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	namespaceFile = "apiVersion: v1\nkind: Namespace\nmetadata: {name: team, labels: {tier: tenant}}\n---\n"
	policyFile    = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: egress, namespace: team, labels: {egress-controller: managed}}\ndata:\n  policy.json: |\n    {\"allowedDestinations\": [\n      {\"name\": \"db\", \"cidr\": \"10.1.0.0/24\", \"ports\": [5432]}]}\n"
	platformFile  = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: baseline, namespace: egress-system, labels: {egress-controller: platform}}\ndata:\n  platform.json: |\n    {\"namespaces\": {\"matchLabels\": {\"tier\": \"tenant\"}},\n     \"guardrails\": {\"denied\": [{\"name\": \"ten\", \"cidr\": \"10.0.0.0/8\"}]}}\n"
)

// TestValidateByPlatformDocuments judges a policy with the files that a repository would have.
func TestValidateByPlatformDocuments(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	known, unknown := file("known.yaml", namespaceFile+policyFile), file("unknown.yaml", policyFile)
	document, namespaces := file("platform.yaml", platformFile), file("namespaces.yaml", namespaceFile)
	broken := file("broken.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: broken, labels: {egress-controller: platform}}\ndata:\n  platform.json: |\n    {\"namespaces\": {},\n     \"guardrail\": {}}\n")
	bare := file("platform.json", `{"namespaces": {}, "guardrails": {"require": ["reason"]}}`)
	const refusal = "Denied by guardrail ten of platform document baseline: db opens 10.1.0.0/24 on TCP 5432; narrow it (allowedDestinations[0])"
	for _, test := range []struct {
		name           string
		args           []string
		status         int
		stdout, stderr string
	}{
		{"refused", []string{"-f", known, "--platform", document}, 1, known + ": team/egress: invalid\n", known + ": team/egress: " + refusal + "\n"},
		{"the Namespace in another file", []string{"-f", unknown, "-f", namespaces, "--platform", document}, 1, unknown + ": team/egress: invalid\n", unknown + ": team/egress: " + refusal + "\n"},
		{"no Namespace", []string{"-f", unknown, "--platform", document}, 0, unknown + ": team/egress: valid\n",
			`egress-webhook validate: note: no file has the Namespace "team", so only platform documents for every namespace judge its policies; give its manifest with -f` + "\n"},
		{"a bare document", []string{"-f", known, "--platform", bare}, 1, known + ": team/egress: invalid\n", known + ": team/egress: Missing field: reason; platform document platform requires it (allowedDestinations[0].reason)\n"},
		{"two of one name", []string{"-f", known, "--platform", document, "--platform", document}, 2, "", document + ": egress-system/baseline: the platform document baseline is also in " + document + "\n"},
		{"an invalid document", []string{"-f", known, "--platform", broken}, 1, "", broken + `: broken: Must specify allowedDestinations, guardrails or both (platform.json)` + "\n" + broken + `: broken: Unknown field: guardrail; did you mean "guardrails"? (guardrail)` + "\n"},
		{"no document", []string{"-f", known, "--platform", namespaces}, 2, "", "egress-webhook validate: --platform: no platform document found: no ConfigMap has the label egress-controller: platform\n"},
		{"the document itself", []string{"-f", document, "-f", broken}, 1, document + ": egress-system/baseline: valid\n" + broken + ": broken: invalid\n", broken + `: broken: Must specify allowedDestinations, guardrails or both (platform.json)` + "\n" + broken + `: broken: Unknown field: guardrail; did you mean "guardrails"? (guardrail)` + "\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, stdout, stderr := shell(t, "", append([]string{"validate", "--ip-family", "ipv4"}, test.args...)...)
			require.Equal(t, test.stderr, stderr)
			require.Equal(t, test.stdout, stdout)
			require.Equal(t, test.status, status)
		})
	}
	t.Run("the position in the file", func(t *testing.T) {
		_, stdout, _ := shell(t, "", "validate", "-f", broken, "-o", "github")
		require.Contains(t, stdout, "line=7,col=6")
	})
}
