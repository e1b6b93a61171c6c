package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDiffComparesWithBase(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	content, err := os.ReadFile(demo)
	require.NoError(t, err)
	edited := write("new.yaml", strings.NewReplacer("10.1.0.0/24", "10.1.0.0/23", `["us-east-1"]`, `["us-west-2"]`).Replace(string(content)))
	arguments := []string{"diff", "-f", edited, "--base", demo, "--ranges-file", ranges}

	status, stdout, stderr := shell(t, "", arguments...)
	require.Equal(t, 0, status)
	require.Empty(t, stderr)
	require.Equal(t, edited+`: tenant-a/egress: s3 (allowedDestinations[0]): + 198.18.8.0/24 TCP 443
`+edited+`: tenant-a/egress: database (allowedDestinations[1]): + 10.1.1.0/24 TCP 5432
`+edited+`: tenant-a/egress: s3 (allowedDestinations[0]): - 198.18.0.0/24 TCP 443
`+edited+`: tenant-a/egress: s3 (allowedDestinations[0]): - 198.18.4.0/24 TCP 443
`, stdout)

	status, stdout, _ = shell(t, string(content), "diff", "-f", edited, "--base", "-", "--ranges-file", ranges, "-o", "markdown")
	require.Equal(t, 0, status)
	require.Equal(t, `#### tenant-a/egress: changed

| | addresses | ports | entry |
|---|---|---|---|
| opens | 198.18.8.0/24 | TCP 443 | s3 (allowedDestinations\[0\]) |
| opens | 10.1.1.0/24 | TCP 5432 | database (allowedDestinations\[1\]) |
| closes | 198.18.0.0/24<br>198.18.4.0/24 | TCP 443 | s3 (allowedDestinations\[0\]) |

`, stdout)

	status, stdout, _ = shell(t, "", "diff", "-f", "../../examples/demo/tenant-b.yaml", "--base", demo, "--ranges-file", ranges)
	require.Equal(t, 0, status)
	require.Contains(t, stdout, "../../examples/demo/tenant-b.yaml: tenant-b/egress: new\n")
	require.Contains(t, stdout, demo+": tenant-a/egress: removed\n")
	require.Contains(t, stdout, demo+": tenant-a/egress: database (allowedDestinations[1]): - 10.1.0.0/24 TCP 5432\n")

	old := write("old.json", `{"defaultAction": "allow", "allowedDestinations": []}`)
	bare := write("bare.json", `{"allowedDestinations": [{"name": "a|b", "cidr": "0.0.0.0/1", "ports": [443]}]}`)
	status, stdout, _ = shell(t, "", "diff", "-f", old, "--base", bare, "-o", "json")
	require.Equal(t, 0, status)
	require.JSONEq(t, `[{"file": "`+old+`", "namespace": "", "name": "old", "state": "changed", "closes": [], "opens": [
		{"path": "defaultAction", "ports": ["protocols without ports", "SCTP 1-65535", "TCP 1-442", "TCP 444-65535", "UDP 1-65535"], "prefixes": ["0.0.0.0/0"]},
		{"path": "defaultAction", "ports": ["TCP 443"], "prefixes": ["128.0.0.0/1"]}]}]`, stdout)
	status, stdout, _ = shell(t, "", "diff", "-f", bare, "--base", bare)
	require.Equal(t, 0, status)
	require.Equal(t, bare+": unchanged\n", stdout)
}

func TestDiffExplainsWrongUsage(t *testing.T) {
	for _, test := range []struct {
		name   string
		args   []string
		status int
		stderr string
	}{
		{"invalid", []string{"--ranges-file", ranges, "--base", broken}, 1, broken + ": Invalid port: 70000; must be a whole number from 1 to 65535 (allowedDestinations[0].ports[0])\n"},
		{"both", []string{"--base", seed, "--against", ranges}, 2, "--base and --against exclude each other: give one of them"},
		{"neither", nil, 2, "nothing to compare: give --base FILE, or --ranges-file OLD and --against NEW"},
		{"another format", []string{"--ranges-file", ranges, "--against", ranges, "-o", "yaml"}, 2, `invalid -o "yaml": must be text, json or markdown`},
		{"no such file", []string{"--base", "none.yaml"}, 2, "egress-agent diff: open none.yaml: no such file or directory\n"},
		{"no ranges", []string{"--base", seed}, 2, seed + ": s3 is left out: no AWS ranges are loaded; give --ranges-file\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, _, stderr := shell(t, "", append([]string{"diff", "-f", seed}, test.args...)...)
			require.Equal(t, test.status, status)
			require.Contains(t, stderr, test.stderr)
		})
	}
}
