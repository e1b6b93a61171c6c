package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Aliases can expand a small file to a very large amount of data. Without a budget, this test would run out of time or
// memory.
func TestDecodeFileLimitsAliases(t *testing.T) {
	const head = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, labels: {egress-controller: managed}}\n"
	policy := "'" + strings.Repeat(" ", 100_000) + "'"
	nestedMerges := "a0: &a0 {x: 1}\n"
	for i := range 30 {
		nestedMerges += fmt.Sprintf("a%d: &a%d {<<: [%s]}\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i), 10), ", "))
	}
	var manyFields strings.Builder
	for i := range 30_000 {
		fmt.Fprintf(&manyFields, "f%d: x\n", i)
	}
	for _, test := range []struct{ name, text, unread string }{
		{"one object, many times", "kind: List\nitems:\n- &o {kind: ConfigMap, metadata: {name: a, labels: {egress-controller: managed}}, data: {policy.json: " + policy + "}}\n" + strings.Repeat("- *o\n", 50_000), "aliases"},
		{"one policy, many times", "kind: List\nitems:\n- &p " + policy + "\n" + strings.Repeat("- {kind: ConfigMap, metadata: {name: a, labels: {egress-controller: managed}}, data: {policy.json: *p}}\n", 2_000), "aliases"},
		{"merged ten times, thirty levels deep", head + nestedMerges + "<<: *a30\n", "aliases"},
		{"merged into itself", head + "data: &d {<<: *d, policy.json: '{}'}\n", ""},
		{"very many fields", head + manyFields.String(), ""},
		{"an alias that contains itself", "kind: List\nitems: &i [*i, *i]\n", "not a Kubernetes object"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var notes bytes.Buffer
			result := &ReadResult{}
			decodeFile(result, "a.yaml", []byte(test.text), false, NewOutput(&notes))
			var total int
			for _, source := range result.Sources {
				total += len(source.ConfigMap.Data["policy.json"])
			}
			require.LessOrEqual(t, total, 4*len(test.text)+1<<20)
			if test.unread == "" {
				require.Empty(t, result.Unread)
				require.Len(t, result.Sources, 1)
				return
			}
			require.NotEmpty(t, result.Unread)
			require.LessOrEqual(t, len(result.Unread), 2, "the message must not repeat")
			require.Contains(t, result.Unread[len(result.Unread)-1].Message, test.unread)
		})
	}
}

// An unreadable file does not stop ReadPolicies from reading the others.
func TestReadPoliciesContinuesAfterUnread(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "policy.json"), []byte(`{"allowedDestinations": []}`), 0o600))
	require.NoError(t, os.Symlink(filepath.Join(dir, "gone"), filepath.Join(dir, "dangling.yaml")))
	var notes bytes.Buffer
	result := ReadPolicies([]string{dir, filepath.Join(dir, "none.json")}, strings.NewReader(""), NewOutput(&notes))
	require.Len(t, result.Sources, 1)
	require.Len(t, result.Unread, 2)
	var stderr bytes.Buffer
	require.Equal(t, ExitUsage, result.ReportUnread(NewOutput(&stderr), "p", ExitInvalid))
	require.Equal(t, "p: open "+dir+"/dangling.yaml: no such file or directory\np: open "+dir+"/none.json: no such file or directory\n", stderr.String())
}
