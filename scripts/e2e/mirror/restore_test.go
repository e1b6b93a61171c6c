package mirror

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"egress-agent/scripts/e2e/harness"
)

// TestFaultHubRestored restores the hub's etcd from a backup that lacks half of the policies, and has old versions of the
// others. The versions of the restored hub are behind those that the mirror has seen.
func TestFaultHubRestored(t *testing.T) {
	harness.SkipUnlessAll(t)
	w := newWorld(t, "restored")
	w.putMany("restored", 0, 10)
	etcd, apiserver := hubProcesses(t)
	backup := filepath.Join(t.TempDir(), "backup")
	etcd.restart(t, apiserver, func(dir string) { require.NoError(t, os.CopyFS(backup, os.DirFS(dir))) })

	w.putMany("restored", 10, 20)
	for i := range 10 {
		w.put("restored", fmt.Sprintf("p-%d", i), policy(1000+i), nil)
	}
	m := w.start()
	w.awaitCopies("restored", 20)
	w.awaitDocument("restored", "p-0", policy(1000))
	etcd.restart(t, apiserver, func(dir string) {
		require.NoError(t, os.RemoveAll(dir))
		require.NoError(t, os.CopyFS(dir, os.DirFS(backup)))
	})
	w.awaitDocument("restored", "p-0", policy(0))
	w.awaitLog(m, `msg="deletions held" owed=10 copies=20 deletedInLastHour=0`)
	w.putMany("restored", 10, 20)
	harness.Eventually(t, "nothing is held", func() bool { return m.Metric(t, "egress_agent_mirror_deletions_held") == 0 })
	require.Len(t, w.copies("restored"), 20)
	require.NotContains(t, m.Log(t), "verb=delete")
}

// process is a program of the hub's control plane. Its arguments outlive it.
type process struct {
	pid       int
	arguments []string
}

// hubProcesses returns etcd and the API server of the hub.
func hubProcesses(t *testing.T) (etcd, apiserver *process) {
	t.Helper()
	all := children(t)
	for _, p := range all {
		if strings.Contains(strings.Join(p.arguments, " "), "--audit-log-path="+hub.dir) {
			apiserver = p
		}
	}
	require.NotNil(t, apiserver)
	server := regexp.MustCompile(`--etcd-servers=(\S+)`).FindStringSubmatch(strings.Join(apiserver.arguments, " "))
	require.NotNil(t, server)
	for _, p := range all {
		if filepath.Base(p.arguments[0]) == "etcd" && strings.Contains(strings.Join(p.arguments, " "), server[1]) {
			etcd = p
		}
	}
	require.NotNil(t, etcd)
	return etcd, apiserver
}

// children returns the children of this process.
func children(t *testing.T) []*process {
	t.Helper()
	var all []*process
	files, err := filepath.Glob("/proc/self/task/*/children")
	require.NoError(t, err)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for _, field := range strings.Fields(string(data)) {
			p := &process{}
			_, err := fmt.Sscan(field, &p.pid)
			require.NoError(t, err)
			commandLine, err := os.ReadFile("/proc/" + field + "/cmdline")
			require.NoError(t, err)
			p.arguments = strings.Split(strings.TrimSuffix(string(commandLine), "\x00"), "\x00")
			all = append(all, p)
		}
	}
	return all
}

// restart kills etcd and its API server, calls change with the folder of etcd's data, and starts both again.
func (p *process) restart(t *testing.T, apiserver *process, change func(dir string)) {
	t.Helper()
	for _, stopped := range []*process{apiserver, p} {
		require.NoError(t, syscall.Kill(stopped.pid, syscall.SIGKILL))
	}
	time.Sleep(500 * time.Millisecond) // until the kernel has closed the ports
	dir := regexp.MustCompile(`--data-dir=(\S+)`).FindStringSubmatch(strings.Join(p.arguments, " "))
	require.NotNil(t, dir)
	change(dir[1])
	p.start(t)
	apiserver.start(t)
	harness.Eventually(t, "the hub is ready", func() bool {
		_, err := hub.cluster.Admin.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(context.Background())
		return err == nil
	})
}

func (p *process) start(t *testing.T) {
	t.Helper()
	command := exec.Command(p.arguments[0], p.arguments[1:]...)
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, command.Start())
	p.pid = command.Process.Pid
}
