package shell

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"egress-agent/scripts/e2e/harness"
)

// TestVulncheckFailsOnCalls checks pkg/policy, which calls json.Unmarshal and does not call json.HTMLEscape, against
// databases with one made-up vulnerability.
func TestVulncheckFailsOnCalls(t *testing.T) {
	harness.SkipUnlessAll(t) // it scans both programs
	run(t, root, "make", "--no-print-directory", "bin/govulncheck")
	for name, test := range map[string]struct {
		module, path, function string
		finds                  bool
	}{
		"a function that is called":     {"stdlib", "encoding/json", "Unmarshal", true},
		"a function that is not called": {"stdlib", "encoding/json", "HTMLEscape", false},
		"a package that is not used":    {"example.com/none", "example.com/none", "Do", false},
	} {
		t.Run(name, func(t *testing.T) {
			output, status := vulncheck(t, "VULN_DB=file://"+database(t, test.module, test.path, test.function))
			if !test.finds {
				require.Zero(t, status, output)
				require.Empty(t, output)
				return
			}
			require.Equal(t, 1, status, output)
			require.Contains(t, output, "GO-2026-0001")
			require.Contains(t, output, "calls json."+test.function)
		})
	}
}

// TestVulncheckNeedsNoInternet reaches no database, as behind a proxy that is down.
func TestVulncheckNeedsNoInternet(t *testing.T) {
	run(t, root, "make", "--no-print-directory", "bin/govulncheck")
	output, status := vulncheck(t, "VULN_DB=", "HTTPS_PROXY=http://127.0.0.1:1", "NO_PROXY=")
	require.Zero(t, status, output)
	require.Regexp(t, `^govulncheck left out: the vulnerability database cannot be read: .*vuln\.go\.dev.*\n$`, output)
}

// TestVulncheckFailsOnErrors gives a database that does not exist, and a package that does not.
func TestVulncheckFailsOnErrors(t *testing.T) {
	run(t, root, "make", "--no-print-directory", "bin/govulncheck")
	output, status := vulncheck(t, "VULN_DB=file:///none")
	require.Equal(t, 1, status)
	require.Contains(t, output, "/none")
	command := exec.Command("scripts/vulncheck.sh", "./pkg/none")
	command.Dir = root
	command.Env = append(os.Environ(), "VULN_DB=file://"+database(t, "stdlib", "encoding/json", "Unmarshal"))
	out, err := command.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "pkg/none")
}

func vulncheck(t *testing.T, environment ...string) (output string, status int) {
	t.Helper()
	command := exec.Command("scripts/vulncheck.sh", "./pkg/policy")
	command.Dir = root
	command.Env = append(os.Environ(), environment...)
	var out strings.Builder
	command.Stdout, command.Stderr = &out, &out
	if err := command.Run(); err != nil {
		require.IsType(t, &exec.ExitError{}, err)
	}
	return out.String(), command.ProcessState.ExitCode()
}

// database returns the folder of a vulnerability database (https://go.dev/security/vuln/database) with one entry: every
// version of a function.
func database(t *testing.T, module, path, function string) string {
	t.Helper()
	dir := t.TempDir()
	const id, at = "GO-2026-0001", "2026-01-02T03:04:05Z"
	for file, content := range map[string]string{
		"index/db.json":      fmt.Sprintf(`{"modified": %q}`, at),
		"index/modules.json": fmt.Sprintf(`[{"path": %q, "vulns": [{"id": %q, "modified": %q}]}]`, module, id, at),
		"index/vulns.json":   fmt.Sprintf(`[{"id": %q, "modified": %q}]`, id, at),
		"ID/" + id + ".json": fmt.Sprintf(`{"schema_version": "1.3.1", "id": %q, "modified": %[2]q, "published": %[2]q, "details": "Made up.",
			"affected": [{"package": {"name": %[3]q, "ecosystem": "Go"}, "ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}]}],
				"ecosystem_specific": {"imports": [{"path": %[4]q, "symbols": [%[5]q]}]}}],
			"database_specific": {"url": "https://example.com/"}}`, id, at, module, path, function),
	} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(file)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600))
	}
	return dir
}
