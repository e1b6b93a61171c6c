package shell

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"egress-agent/scripts/e2e/harness"
)

// TestTryShowsBothPrograms runs "make try" in a copy of the repository, because it builds the programs, and other tests
// run those of this repository meanwhile.
func TestTryShowsBothPrograms(t *testing.T) {
	harness.SkipUnlessAll(t) // it builds the programs again
	dir := repository(t)
	try := func(args ...string) (stdout, stderr string, err error) {
		command := exec.Command("make", append([]string{"--no-print-directory", "try"}, args...)...)
		command.Dir = dir
		command.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=", "BIN=bin", "RANGES=")
		var out, errs strings.Builder
		command.Stdout, command.Stderr = &out, &errs
		err = command.Run()
		return out.String(), errs.String(), err
	}

	t.Log("a file that does not exist: one line and make's own, before anything is built")
	stdout, stderr, err := try("RANGES=none.json")
	require.Error(t, err)
	require.Empty(t, stdout)
	require.Regexp(t, `\Atry\.sh: cannot read RANGES=none\.json: name a file with the ip-ranges\.json of AWS, plain or gzip\nmake: .*\n\z`, stderr)
	require.NoFileExists(t, dir+"/bin/egress-agent")

	t.Log("the ranges of testdata")
	stdout, stderr, err = try()
	require.NoError(t, err, stderr)
	requireInOrder(t, stdout,
		"$ scripts/build.sh egress-webhook\n",
		"$ bin/egress-webhook validate -f examples/demo/mistakes.yaml --ranges-file testdata/ranges/ip-ranges.json\n",
		"Invalid region: us-esat-1; did you mean us-east-1? (allowedDestinations[0].regions[0])\n",
		"$ scripts/build.sh egress-agent\n",
		"the addresses of testdata/ranges/ip-ranges.json are made up; RANGES=FILE uses AWS's\n",
		"$ cat examples/demo/tenant-a.yaml\n",
		`{"name": "database", "cidr": "10.1.0.0/24", "ports": [5432]}`,
		"$ bin/egress-agent render -f examples/demo/tenant-a.yaml --ranges-file testdata/ranges/ip-ranges.json\n",
		"kind: NetworkPolicy\n",
		"cidr: 198.18.4.0/24\n",
		"$ bin/egress-agent explain -f examples/demo/tenant-a.yaml --ranges-file testdata/ranges/ip-ranges.json --to 198.18.0.0:443\n",
		"198.18.0.0:443/TCP allowed by s3 (allowedDestinations[0]): S3 us-east-1: 198.18.0.0/25, syncToken 1700000000\n",
		"10.1.0.5:3306/TCP denied: database (allowedDestinations[1]) covers 10.1.0.5, but opens TCP 5432 only\n",
		"\nAll 5 steps succeeded.")

	t.Log("another file: its addresses")
	ranges := filepath.Join(t.TempDir(), "ranges of AWS.json")
	next, err := os.ReadFile(root + "/testdata/ranges/ip-ranges-next.json")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(ranges, next, 0o600))
	stdout, stderr, err = try("RANGES=" + ranges)
	require.NoError(t, err, stderr)
	requireInOrder(t, stdout, "--ranges-file "+strings.ReplaceAll(ranges, " ", `\ `)+"\n", "cidr: 198.18.5.0/24\n", " allowed by s3 ", "\nAll 5 steps succeeded.")
	require.NotContains(t, stdout, "198.18.4.0/24")

	t.Log("a step that does something else: the target fails")
	valid, err := os.ReadFile(dir + "/examples/demo/tenant-a.yaml")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(dir+"/examples/demo/mistakes.yaml", valid, 0o600))
	command := exec.Command(dir + "/scripts/try.sh")
	command.Env = append(os.Environ(), "BIN=", "RANGES=")
	output, err := command.CombinedOutput()
	require.Error(t, err, string(output))
	require.True(t, strings.HasSuffix(string(output), "FAILED: the command exits with 0 instead of 1\n"), string(output))
}

// requireInOrder requires that text contains the parts, one after the other.
func requireInOrder(t *testing.T, text string, parts ...string) {
	t.Helper()
	rest := text
	for _, part := range parts {
		_, after, found := strings.Cut(rest, part)
		require.True(t, found, "%q is missing, or in another order, in\n%s", part, text)
		rest = after
	}
}
