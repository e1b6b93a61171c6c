// Package script runs the built programs in a shell, without a cluster. Each file in testdata is a script of commands,
// with their output and exit status.
package script

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"
)

// Folders, from this one.
const (
	root = "../../.."
	bin  = root + "/bin"
)

// TestScripts runs the scripts of testdata. UPDATE_GOLDEN=1 rewrites the expected output.
func TestScripts(t *testing.T) {
	for _, program := range []string{"egress-agent", "egress-webhook"} {
		_, err := os.Stat(filepath.Join(bin, program))
		require.NoError(t, err, "run 'make e2e', which builds it")
	}
	absolute, err := filepath.Abs(root)
	require.NoError(t, err)
	testscript.Run(t, testscript.Params{
		Dir:                "testdata",
		UpdateScripts:      os.Getenv("UPDATE_GOLDEN") != "",
		RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", filepath.Join(absolute, "bin")+string(os.PathListSeparator)+env.Getenv("PATH"))
			// The programs' output contains the paths of these files, so the paths must be short.
			for _, folder := range []string{"testdata", "examples"} {
				if err := os.Symlink(filepath.Join(absolute, folder), filepath.Join(env.WorkDir, folder)); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "large": large, "windows": windows},
	})
}

// exits is the command "exits STATUS PROGRAM ARG...": it is exec with an expected exit status.
func exits(ts *testscript.TestScript, negated bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	var exit *exec.ExitError
	switch err := ts.Exec(args[1], args[2:]...); {
	case negated:
		ts.Fatalf("exits takes a status, and no !")
	case err == nil && want != 0:
		ts.Fatalf("exit status 0, not %d", want)
	case errors.As(err, &exit) && exit.ExitCode() != want:
		ts.Fatalf("exit status %d, not %d", exit.ExitCode(), want)
	case !errors.As(err, &exit):
		ts.Check(err)
	}
}

// large is the command "large SOURCE FILE": it repeats SOURCE up to five megabytes.
func large(ts *testscript.TestScript, _ bool, args []string) {
	source := ts.ReadFile(args[0])
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(strings.Repeat(source, 5<<20/len(source)+1)), 0o600))
}

// windows is the command "windows SOURCE FILE": it writes SOURCE as Windows does, with a byte order mark and CR LF.
func windows(ts *testscript.TestScript, _ bool, args []string) {
	content := "\ufeff" + strings.ReplaceAll(ts.ReadFile(args[0]), "\n", "\r\n")
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(content), 0o600))
}
