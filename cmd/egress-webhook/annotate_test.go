package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const heading = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: egress, namespace: tenant-a, labels: {egress-controller: managed}}\n"

// TestAnnotate checks the position of a wrong value in every way to write a policy.json. The character ^ marks the
// expected position.
func TestAnnotate(t *testing.T) {
	const bad = `^"10.1.0.0/99"`
	entry := func(cidr string) string {
		return `{"allowedDestinations": [{"name": "ü, d''b", "cidr": ` + cidr + `, "ports": [443]}]}`
	}
	indented := strings.ReplaceAll(entry("\n  "+bad), "''", "'")
	for _, test := range []struct{ name, file, content string }{
		{"literal", "p.yaml", heading + "data:\n  # a comment\n  policy.json: |-  # another\n\n    " + strings.ReplaceAll(indented, "\n", "\n    ") + "\n  z: y\n"},
		{"folded", "p.yaml", heading + "data:\n  policy.json: >\n    " + strings.ReplaceAll(indented, "\n", "\n    ") + "\n"},
		{"single quotes", "p.yaml", heading + "data:\n  policy.json: '" + entry("\n    "+bad) + "'\n"},
		{"double quotes", "p.yaml", heading + `data: {policy.json: "{\"allowedDestinations\":\n\t[{\"name\": \"a\u0062\",` + " \\\n" + `  \"cidr\": ^\"10.1.0.0/99\", \"ports\": [443]}]}"}` + "\n"},
		{"JSON", "p.json", `{"kind": "ConfigMap", "metadata": {"name": "😀", "labels": {"egress-controller": "managed"}},
			"data": {"policy.json": "{\"allowedDestinations\":\n\t[{\"name\": \"\ud83d\ude00\", \"cidr\": ^\"10.1.0.0/99\", \"ports\": [443]}]}"}}`},
		{"JSON list", "p.json", `{"kind": "List", "items": [{"kind": "Secret"}, {"kind": "ConfigMap", "metadata": {"name": "a", "labels": {"egress-controller": "managed"}}, "data": {"policy.json": "^[]"}}]}`},
		{"bare", "p.json", strings.ReplaceAll(indented, "''", "'")},
		{"anchor", "p.yaml", heading + "data:\n  other: &text |\n    " + strings.ReplaceAll(indented, "\n", "\n    ") + "\n  policy.json: *text\n"},
		{"merged", "p.yaml", heading + "immutable: false\ndata:\n  <<: {policy.json: '" + entry(bad) + "'}\n"},
		{"Windows", "p.yaml", "\ufeff" + strings.ReplaceAll(heading+"data:\n  policy.json: |\n    "+strings.ReplaceAll(indented, "\n", "\n    ")+"\n", "\n", "\r\n")},
		{"second document", "p.yml", goodManifest + otherManifests + heading + "data: {policy.json: '" + entry(bad) + "'}\n"},
		{"unknown field", "p.yaml", heading + "data:\n  policy.json: |\n    {\"allowedDestinations\": [],\n     ^\"allow\": 1}\n"},
		{"truncated", "p.yaml", heading + "data:\n  policy.json: |\n    {\"allowedDestinations\": [^\n  z: y\n"},
		{"key missing", "p.yaml", heading + "data:\n  ^policy.yaml: x\n"},
		{"empty", "p.yaml", heading + "data:\n  policy.json: ^''\n"},
		{"line breaks of YAML only", "p.yaml", strings.Repeat("#\u2028", 9) + "#\u0085#\r#\n" + heading + "data: {policy.json: '^[]'}"},
	} {
		t.Run(test.name, func(t *testing.T) {
			before, after, marked := strings.Cut(test.content, "^")
			require.True(t, marked)
			file := filepath.Join(t.TempDir(), test.file)
			require.NoError(t, os.WriteFile(file, []byte(before+after), 0o600))
			status, stdout, stderr := shell(t, "", "validate", "-f", file, "-o", "github")
			require.Equal(t, 1, status)
			require.Empty(t, stderr)
			line := strings.TrimPrefix(before[strings.LastIndex(before, "\n")+1:], "\ufeff")
			require.Contains(t, stdout, fmt.Sprintf("::error file=%s,line=%d,col=%d::", file, strings.Count(before, "\n")+1, len([]rune(line))+1))
			require.Equal(t, 1, strings.Count(stdout, "\n"), stdout)
		})
	}
}

func TestAnnotateEscapes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a,b:c%")
	require.NoError(t, os.Mkdir(dir, 0o700))
	file := filepath.Join(dir, "policy.json")
	require.NoError(t, os.WriteFile(file, []byte(`{"allowedDestinations": [{"name": "a%b", "cidr": "10.1.0.0/24"}]}`), 0o600))
	status, stdout, stderr := shell(t, "", "validate", "-f", dir, "-o", "github")
	require.Zero(t, status)
	require.Empty(t, stderr)
	escaped := strings.NewReplacer("%", "%25", ":", "%3A", ",", "%2C").Replace(file)
	require.Equal(t, "::warning file="+escaped+",line=1,col=26::a%25b opens every port and protocol; name ports to open fewer (allowedDestinations[0])\n", stdout)

	_, stdout, _ = shell(t, badManifest, "validate", "-f", "-", "-o", "github")
	require.Contains(t, stdout, "::error::tenant-b/typo: Invalid CIDR format: 10.1.0.0/99 (allowedDestinations[0].cidr)\n")
}

func TestValidateFolder(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	write("README.md", "# no manifest")
	status, _, stderr := shell(t, "", "validate", "-f", dir)
	require.Equal(t, 2, status)
	require.Equal(t, "egress-webhook validate: "+dir+": the folder has no .yaml, .yml or .json files\n", stderr)

	good, bad, bare := write("a/good.yaml", goodManifest), write("b.yml", badManifest), write("z/policy.json", `{"allowedDestinations": []}`)
	write(".github/workflow.yaml", "- no\n- object\n")
	other := write("package.json", `{"name": "x"}`)
	values := write("values.yaml", "replicas: 1\n")
	write("deployment.yaml", otherManifests)
	status, stdout, stderr := shell(t, "", "validate", "-f", dir)
	require.Equal(t, 1, status)
	require.Equal(t, good+": tenant-a/egress: valid\n"+bad+": tenant-b/typo: invalid\n"+bare+": valid\n", stdout)
	require.Contains(t, stderr, other+": skipped: it has no kind; if it is a policy, rename it to policy.json or give the file itself with -f\n")
	require.Contains(t, stderr, values+": skipped: it has no kind\n")
	require.NotContains(t, stderr, "no policy found")
}

// TestUnreadableFile requires status 2 and one line that names the file and the position.
func TestUnreadableFile(t *testing.T) {
	for _, test := range []struct{ name, content, message string }{
		{"list without objects", "kind: List\nitems: {a: b}\n", ":2:8: items must be a list, not a mapping"},
		{"list in a list", "kind: List\nitems:\n- kind: List\n", ":3:3: a List must not contain a List: list the objects themselves"},
		{"itself in a list", "kind: List\nitems: &all\n- kind: Lists\n  items: *all\n- *all\n", ":2:8: not a Kubernetes object: an object must be a mapping, not a list"},
		{"a number for a name", strings.Replace(heading, "name: egress", "name: 5", 1), ":3:18: name must be a string, not a number: quote it, or begin it with |"},
		{"a key twice", heading + "data: {policy.json: x, policy.json: y}\n", ":4: invalid YAML: mapping key \"policy.json\" already defined at line 4"},
		{"an open brace", "a: b\nc: {d: e\nf: g\n", ":2: invalid YAML: did not find expected ',' or '}'"},
		{"an open brace in the first line", "a: {b: c]}\n", ":1: invalid YAML: did not find expected ',' or '}'"},
		{"no kind", "a: b\n", ":1:1: not a Kubernetes object: it has no kind"},
		{"invalid YAML", "a: b\n c: [\n", ":2: invalid YAML: mapping values are not allowed in this context"},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, stdout, stderr := shell(t, test.content, "validate", "-f", "-")
			require.Equal(t, 2, status)
			require.Empty(t, stdout)
			require.Equal(t, "egress-webhook validate: -"+test.message+"\n", stderr)
		})
	}
}

// TestValidateLarge validates a megabyte of manifests with one mistake, a megabyte with a mistake in each manifest, and
// 60,000 mistakes in one policy. The tests in scripts/e2e validate five megabytes with the built program, which the
// race detector does not slow down.
func TestValidateLarge(t *testing.T) {
	validManifests := strings.Repeat(goodManifest+"---\n", 1<<20/len(goodManifest))
	status, stdout, stderr := shell(t, validManifests+badManifest, "validate", "-f", "-")
	require.Equal(t, 1, status)
	require.Equal(t, 2, strings.Count(stderr, "\n"))
	require.Equal(t, 1, strings.Count(stdout, "invalid"))

	invalidManifests := strings.Repeat("---\n"+badManifest, 1<<20/len(badManifest))
	status, stdout, _ = shell(t, invalidManifests, "validate", "-f", "-")
	require.Equal(t, 1, status)
	require.Equal(t, strings.Count(invalidManifests, "kind"), strings.Count(stdout, "invalid"))

	const mistakes = 60_000
	status, stdout, _ = shell(t, `{"allowedDestinations": [`+strings.Repeat("[], ", mistakes)+`[]]}`, "validate", "-f", "-", "-o", "github")
	require.Equal(t, 1, status)
	require.Equal(t, 101, strings.Count(stdout, "\n"), "too many destinations, 99 invalid destinations, and the count of further problems")
	require.Contains(t, stdout, "::policy: and 901 more\n")
}
