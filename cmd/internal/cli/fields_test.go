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

// TestBombs reads small files that could mean very much: unbounded, they would end neither in go test's ten minutes nor in
// memory.
func TestBombs(t *testing.T) {
	const head = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, labels: {egress-controller: managed}}\n"
	policy := "'" + strings.Repeat(" ", 100_000) + "'"
	laughs := "a0: &a0 {x: 1}\n"
	for i := range 30 {
		laughs += fmt.Sprintf("a%d: &a%d {<<: [%s]}\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i), 10), ", "))
	}
	var many strings.Builder
	for i := range 30_000 {
		fmt.Fprintf(&many, "f%d: x\n", i)
	}
	for _, test := range []struct{ name, text, unread string }{
		{"one object, many times", "kind: List\nitems:\n- &o {kind: ConfigMap, metadata: {name: a, labels: {egress-controller: managed}}, data: {policy.json: " + policy + "}}\n" + strings.Repeat("- *o\n", 50_000), "aliases"},
		{"one policy, many times", "kind: List\nitems:\n- &p " + policy + "\n" + strings.Repeat("- {kind: ConfigMap, metadata: {name: a, labels: {egress-controller: managed}}, data: {policy.json: *p}}\n", 2_000), "aliases"},
		{"merged, times ten thirty times", head + laughs + "<<: *a30\n", "aliases"},
		{"merged into itself", head + "data: &d {<<: *d, policy.json: '{}'}\n", ""},
		{"very many fields", head + many.String(), ""},
		{"an alias that holds itself", "kind: List\nitems: &i [*i, *i]\n", "no Kubernetes object"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var notes bytes.Buffer
			found := &Found{}
			decode(found, "a.yaml", []byte(test.text), false, NewOutput(&notes))
			var total int
			for _, source := range found.Sources {
				total += len(source.ConfigMap.Data["policy.json"])
			}
			require.LessOrEqual(t, total, 4*len(test.text)+1<<20)
			if test.unread == "" {
				require.Empty(t, found.Unread)
				require.Len(t, found.Sources, 1)
				return
			}
			require.NotEmpty(t, found.Unread)
			require.LessOrEqual(t, len(found.Unread), 2, "said once")
			require.Contains(t, found.Unread[len(found.Unread)-1].Message, test.unread)
		})
	}
}

// TestUnreadDoesNotStop reads a policy beside files that cannot be read.
func TestUnreadDoesNotStop(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "policy.json"), []byte(`{"allowedDestinations": []}`), 0o600))
	require.NoError(t, os.Symlink(filepath.Join(dir, "gone"), filepath.Join(dir, "dangling.yaml")))
	var notes bytes.Buffer
	found := ReadPolicies([]string{dir, filepath.Join(dir, "none.json")}, strings.NewReader(""), NewOutput(&notes))
	require.Len(t, found.Sources, 1)
	require.Len(t, found.Unread, 2)
	var stderr bytes.Buffer
	require.Equal(t, ExitUsage, found.Report(NewOutput(&stderr), "p", ExitInvalid))
	require.Equal(t, "p: open "+dir+"/dangling.yaml: no such file or directory\np: open "+dir+"/none.json: no such file or directory\n", stderr.String())
}
