package harness

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"egress-agent/scripts/e2e/measure"
)

// Process is a running copy of one of the built programs.
type Process struct {
	Command       *exec.Cmd
	HealthAddress string // the address of /readyz and /metrics
	LogFile       string
	Ended         bool // the test has ended the process itself, so Stop does nothing
}

// Binary returns the path of a built program. The programs are in bin, or in the folder E2E_BIN if this variable is
// set. A relative E2E_BIN starts at the root of the repository. make test-faults sets it to programs with the race
// detector.
func Binary(t testing.TB, program string) string {
	t.Helper()
	dir := BinDir
	if folder := os.Getenv("E2E_BIN"); filepath.IsAbs(folder) {
		dir = folder
	} else if folder != "" {
		dir = filepath.Join(Root, folder)
	}
	path := filepath.Join(dir, program)
	_, err := os.Stat(path)
	require.NoError(t, err, "run 'make build' to build it")
	return path
}

// StartProcess starts a program, waits until it is ready, and stops it when the test ends. If the test fails, the
// test's output has the log of the program.
func StartProcess(t testing.TB, program string, args ...string) *Process {
	t.Helper()
	path, healthAddress := Binary(t, program), FreeAddress(t)
	log, err := os.Create(filepath.Join(t.TempDir(), program+".log"))
	require.NoError(t, err)
	defer log.Close()
	p := &Process{HealthAddress: healthAddress, LogFile: log.Name()}
	p.Command = exec.Command(path, append(args, "--http-addr", healthAddress)...)
	p.Command.Stdout, p.Command.Stderr = log, log
	p.Command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, p.Command.Start())
	t.Cleanup(func() {
		p.Stop(t)
		if t.Failed() {
			t.Logf("log of %s:\n%s", program, p.Log(t))
		}
	})
	client := &http.Client{Timeout: time.Second}
	require.Eventually(t, func() bool {
		response, err := client.Get("http://" + healthAddress + "/readyz")
		if err != nil {
			return false
		}
		defer response.Body.Close()
		return response.StatusCode == http.StatusOK
	}, Timeout, 20*time.Millisecond, "%s is not ready", program)
	return p
}

// Stop sends SIGTERM and requires exit status 0.
func (p *Process) Stop(t testing.TB) {
	if p.Ended {
		return
	}
	p.Ended = true
	require.NoError(t, p.Command.Process.Signal(syscall.SIGTERM))
	require.NoError(t, p.Command.Wait(), "a clean stop has exit status 0")
}

// Kill ends the process as a crash would.
func (p *Process) Kill(t testing.TB) {
	p.Ended = true
	require.NoError(t, p.Command.Process.Kill())
	require.Error(t, p.Command.Wait())
}

// Log returns the process's output so far.
func (p *Process) Log(t testing.TB) string {
	data, err := os.ReadFile(p.LogFile)
	require.NoError(t, err)
	return string(data)
}

// Scraper opens a new connection for each request. A connection that stays open would count in the metrics that it
// reads.
var Scraper = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// Metric returns the value of a series. series is its name with its labels, as /metrics writes them.
func (p *Process) Metric(t testing.TB, series string) float64 {
	t.Helper()
	response, err := Scraper.Get("http://" + p.HealthAddress + "/metrics")
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	for line := range strings.Lines(string(body)) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			number, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			require.NoError(t, err)
			return number
		}
	}
	require.FailNow(t, "no series "+series, string(body))
	return 0
}

// FreeAddress returns an address on 127.0.0.1 with a port that is free now.
func FreeAddress(t testing.TB) string {
	t.Helper()
	address, err := measure.FreeAddress()
	require.NoError(t, err)
	return address
}
