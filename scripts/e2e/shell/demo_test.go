package shell

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"egress-agent/scripts/e2e/harness"
)

// TestInterruptedDemoLeavesNothing presses Ctrl-C after each of these lines of make demo. No process and no file may be
// left. A demonstration beside it goes on.
func TestInterruptedDemoLeavesNothing(t *testing.T) {
	harness.SkipUnlessAll(t)
	beside := startDemo(t)
	for _, line := range []string{"starting a local control plane", "1. The agent runs", "2. The webhook runs", "5. The webhook refuses", "8. The agent undoes"} {
		t.Run(line, func(t *testing.T) {
			demo := startDemo(t)
			demo.await(t, line)
			require.NoError(t, syscall.Kill(-demo.command.Process.Pid, syscall.SIGINT))
			require.Error(t, demo.wait(t))
			demo.requireNothingLeft(t)
		})
	}
	require.NoError(t, beside.wait(t), "the demonstration beside the others")
	require.Contains(t, beside.seen.String(), "All 14 steps succeeded.")
	beside.requireNothingLeft(t)
}

// demo is a running make demo, in a session of its own.
type demo struct {
	command *exec.Cmd
	tmp     string
	lines   chan string
	seen    strings.Builder
}

func startDemo(t *testing.T) *demo {
	t.Helper()
	d := &demo{command: exec.Command("make", "--no-print-directory", "demo"), tmp: t.TempDir(), lines: make(chan string, 10_000)}
	d.command.Dir = root
	d.command.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=", "BIN=bin", "TMPDIR="+d.tmp)
	d.command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	read, write, err := os.Pipe()
	require.NoError(t, err)
	d.command.Stdout, d.command.Stderr = write, write
	require.NoError(t, d.command.Start())
	require.NoError(t, write.Close())
	t.Cleanup(func() { _ = syscall.Kill(-d.command.Process.Pid, syscall.SIGINT) }) // if the test fails
	go func() {
		for scanner := bufio.NewScanner(read); scanner.Scan(); {
			d.lines <- scanner.Text()
		}
		close(d.lines)
	}()
	return d
}

// await waits for a line with this text.
func (d *demo) await(t *testing.T, text string) {
	t.Helper()
	for timeout := time.After(3 * time.Minute); ; {
		select {
		case line, ok := <-d.lines:
			require.True(t, ok, "the output ended without %q:\n%s", text, d.seen.String())
			d.seen.WriteString(line + "\n")
			if strings.Contains(line, text) {
				return
			}
		case <-timeout:
			require.Fail(t, "not in time", "%q:\n%s", text, d.seen.String())
		}
	}
}

// wait reads the output to its end, and returns the error of the exit status.
func (d *demo) wait(t *testing.T) error {
	t.Helper()
	for timeout := time.After(3 * time.Minute); ; {
		select {
		case line, ok := <-d.lines:
			if !ok {
				return d.command.Wait()
			}
			d.seen.WriteString(line + "\n")
		case <-timeout:
			require.Fail(t, "it does not end", "%s", d.seen.String())
		}
	}
}

// requireNothingLeft requires that no process of the session runs, and that TMPDIR is empty.
func (d *demo) requireNothingLeft(t *testing.T) {
	t.Helper()
	session := fmt.Sprint(d.command.Process.Pid)
	harness.Eventually(t, "no process is left", func() bool { return len(processesOf(t, session)) == 0 })
	entries, err := os.ReadDir(d.tmp)
	require.NoError(t, err)
	require.Empty(t, entries)
}

// processesOf returns the command lines of the processes of a session.
func processesOf(t *testing.T, session string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
	var found []string
	for _, file := range files {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// The name of the program, in parentheses, may contain spaces: proc_pid_stat(5).
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if fields[0] != "Z" && fields[3] == session {
			commandLine, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
			found = append(found, strings.ReplaceAll(string(commandLine), "\x00", " "))
		}
	}
	return found
}
