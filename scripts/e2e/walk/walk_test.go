// Package walk follows README.md as somebody would who has just found the project: in an empty folder, with Go, git, make
// and openssl, and without kubectl, a C compiler or a cluster.
package walk

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"

	"egress-agent/scripts/e2e/harness"
	"egress-agent/scripts/e2e/markdown"
)

// programs are all programs that the walk finds: Go, git, make and openssl, and what every Linux has.
var programs = strings.Fields(`go git make openssl
	awk base64 basename bash cat chmod cmp cp cut date df dirname env find grep gzip head id ln ls mkdir mktemp mv
	paste printf readlink realpath rm rmdir sed seq sh sha256sum sleep sort stat tail tar tee test timeout touch tr
	uname uniq wc xargs`)

// TestReadmeWalk runs the commands of README.md in a clone: try, demo, then, in the playground, onboard, be refused, fix
// and prove. It prints the seconds of each command, and writes the output of each to bin/walk.txt. It leaves out make
// test, because it is one of the tests.
//
// With E2E_COLD the caches of Go are empty, and the control plane is downloaded or built.
func TestReadmeWalk(t *testing.T) {
	w := newWalk(t)
	document, err := markdown.Read(filepath.Join(w.dir, "README.md"))
	require.NoError(t, err)

	tried := 0
	for _, c := range document.Section("Try it") {
		for command := range strings.Lines(c.Script) {
			command = strings.TrimSpace(command)
			if command == "make test" {
				continue
			}
			status, output := w.timed(command, func() (int, string) { return w.bash(command) })
			require.Zero(t, status, "%s: %s", command, output)
			tried++
		}
	}
	require.Equal(t, 2, tried, "try and demo")

	commands := document.Section("Onboard a tenant")
	require.NotEmpty(t, commands)
	playground := w.startPlayground(t)
	for i, c := range commands {
		status, output := w.timed(c.Script, func() (int, string) { return playground.run(t, i, c) })
		require.Equal(t, c.Status, status, "README.md:%d: %s", c.Line, output)
		require.True(t, c.Output == "" || c.Prints(output), "README.md:%d prints\n%s", c.Line, output)
	}
	require.NoError(t, playground.stdin.Close())
	require.NoError(t, playground.command.Wait(), playground.log.String())
	w.write(t)
}

// walk is a clone of the repository, with an environment for commands.
type walk struct {
	dir, home   string
	environment []string
	steps       []step
}

type step struct {
	command, output string
	took            time.Duration
}

func newWalk(t *testing.T) *walk {
	t.Helper()
	folder := t.TempDir()
	w := &walk{dir: filepath.Join(folder, "egress"), home: filepath.Join(folder, "home")}
	path := filepath.Join(folder, "programs")
	for _, dir := range []string{w.home, path} {
		require.NoError(t, os.Mkdir(dir, 0o700))
	}
	for _, program := range programs {
		file, err := exec.LookPath(program)
		require.NoError(t, err)
		require.NoError(t, os.Symlink(file, filepath.Join(path, program)))
	}
	goEnv := func(name string) string {
		output, err := exec.Command("go", "env", name).Output()
		require.NoError(t, err)
		return name + "=" + strings.TrimSpace(string(output))
	}
	w.environment = append(os.Environ(), "PATH="+path, "HOME="+w.home, goEnv("GOENV"), "BIN=bin", "RANGES=", "MAKEFLAGS=", "MAKELEVEL=")
	if os.Getenv("E2E_COLD") == "" {
		w.environment = append(w.environment, goEnv("GOCACHE"), goEnv("GOMODCACHE"), "KUBEBUILDER_ASSETS="+harness.ControlPlaneDir)
	} else { // -modcacherw, because the test deletes the folder in the end
		w.environment = append(w.environment, "GOCACHE="+folder+"/build", "GOMODCACHE="+folder+"/modules", "GOFLAGS=-modcacherw", "KUBEBUILDER_ASSETS=")
	}
	output, err := exec.Command("git", "clone", "--quiet", harness.Root, w.dir).CombinedOutput()
	require.NoError(t, err, string(output))
	return w
}

// timed runs a command and records it.
func (w *walk) timed(command string, run func() (status int, output string)) (int, string) {
	started := time.Now()
	status, output := run()
	w.steps = append(w.steps, step{command, output, time.Since(started)})
	return status, output
}

func (w *walk) command(name string, args ...string) *exec.Cmd {
	command := exec.Command(name, args...)
	command.Dir, command.Env = w.dir, w.environment
	return command
}

func (w *walk) bash(script string) (status int, output string) {
	command := w.command("bash", "-euo", "pipefail", "-c", script)
	combined, _ := command.CombinedOutput() // the status tells of an error
	return command.ProcessState.ExitCode(), string(combined)
}

// playground is a running "make playground".
type playground struct {
	walk    *walk
	command *exec.Cmd
	stdin   io.WriteCloser
	log     bytes.Buffer
}

func (w *walk) startPlayground(t *testing.T) *playground {
	t.Helper()
	p := &playground{walk: w, command: w.command("make", "--no-print-directory", "playground")}
	p.command.Stdout, p.command.Stderr = &p.log, &p.log
	var err error
	p.stdin, err = p.command.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, p.command.Start())
	t.Cleanup(func() { _ = p.stdin.Close() }) // ends it if the test fails
	return p
}

// run runs a command of README.md in the playground's shell, again until the output is as README.md shows, because the
// agent may need a moment.
func (p *playground) run(t *testing.T, number int, c markdown.Command) (status int, output string) {
	t.Helper()
	file := filepath.Join(p.walk.home, fmt.Sprint(number))
	require.NoError(t, os.WriteFile(file, []byte(c.Script), 0o600))
	for end := time.Now().Add(harness.Timeout); ; {
		done := filepath.Join(p.walk.home, "done")
		_, err := fmt.Fprintf(p.stdin, "status=0; bash -euo pipefail %q </dev/null >%q 2>&1 || status=$?; echo $status >%q; mv %q %q\n", file, file+".out", done+".new", done+".new", done)
		require.NoError(t, err)
		require.Eventually(t, func() bool { _, err := os.Stat(done); return err == nil }, 2*time.Minute, 10*time.Millisecond, "%s", c.Script)
		text, err := os.ReadFile(done)
		require.NoError(t, err)
		require.NoError(t, os.Remove(done))
		_, err = fmt.Sscan(string(text), &status)
		require.NoError(t, err)
		combined, err := os.ReadFile(file + ".out")
		require.NoError(t, err)
		output = string(combined)
		if status != c.Status || c.Output == "" || c.Prints(output) || time.Now().After(end) {
			return status, output
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// write writes all commands and outputs to bin/walk.txt, and prints how long each command took.
func (w *walk) write(t *testing.T) {
	t.Helper()
	var all strings.Builder
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, s := range w.steps {
		fmt.Fprintf(&all, "$ %s(%.1f s)\n%s\n", strings.TrimSuffix(s.command, "\n")+"\n", s.took.Seconds(), s.output)
		first, _, _ := strings.Cut(s.command, "\n")
		fmt.Fprintf(table, "%s\t%.1f s\n", first, s.took.Seconds())
	}
	require.NoError(t, table.Flush())
	require.NoError(t, os.WriteFile(filepath.Join(harness.BinDir, "walk.txt"), []byte(all.String()), 0o600))
}
