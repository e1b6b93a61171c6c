package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// long skips a test that takes minutes, but for where E2E_ALL is set, as make test-all does.
func long(t *testing.T) {
	t.Helper()
	if os.Getenv("E2E_ALL") == "" {
		t.Skip("it takes long: make test-all runs it")
	}
}

func fieldsAsInts(t *testing.T, text string) []int {
	var numbers []int
	for _, field := range strings.Fields(text) {
		n, err := strconv.Atoi(field)
		require.NoError(t, err)
		numbers = append(numbers, n)
	}
	return numbers
}

func procPath(pid int, file string) string { return fmt.Sprintf("/proc/%d/%s", pid, file) }

func faultAgent(t *testing.T, args ...string) *process {
	t.Helper()
	return startAgent(t, append([]string{"--ranges-file", ranges}, args...)...)
}

func TestFaultKilled(t *testing.T) {
	w := newWorld(t, "killed", 20)
	w.put(0, 1000, 0)
	for _, after := range []int{50, 300, 700} {
		p := faultAgent(t)
		eventually(t, "some are written", func() bool { return w.written() >= after })
		p.kill(t)
	}
	p := faultAgent(t)
	w.rests(10 * time.Second)
	w.begin(0, 1000, 1)
	time.Sleep(500 * time.Millisecond)
	p.kill(t)
	faultAgent(t)
	w.rests(time.Minute)
}

// TestFaultKilledBetweenWrites kills the agent after the first write of changes that take two, whose second is
// then for its successor.
func TestFaultKilledBetweenWrites(t *testing.T) {
	w := newWorld(t, "between", 10)
	arguments := []string{"--chunk-peers", "1", "--settle", "10s"}
	p := faultAgent(t, arguments...)
	w.put(0, 100, 0)
	eventually(t, "all are written", func() bool { return w.written() == 100 })
	for version, after := range []int{1, 25, 50, 75} {
		eventually(t, "the change before is over", func() bool { return w.wide() == 0 })
		w.begin(0, 100, version+1)
		eventually(t, "some are wide", func() bool { return w.wide() >= after })
		p.kill(t)
		require.Positive(t, w.wide(), "it was between two writes")
		p = faultAgent(t, arguments...)
	}
	w.rests(time.Minute)
}

func TestFaultAPIServerKilled(t *testing.T) {
	w := newWorld(t, "apiserver", 10)
	w.put(0, 300, 0)
	faultAgent(t)
	w.begin(300, 600, 0)
	eventually(t, "some are written", func() bool { return w.written() >= 100 })
	restartAPIServer(t)
	eventually(t, "all are written", func() bool { return w.written() == 600 })
	w.rests(time.Minute)
}

// restartAPIServer kills the API server, and starts it again as it was.
func restartAPIServer(t *testing.T) {
	t.Helper()
	pids := children(t, "kube-apiserver")
	require.Len(t, pids, 1)
	commandLine, err := os.ReadFile(procPath(pids[0], "cmdline"))
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pids[0], syscall.SIGKILL))
	time.Sleep(2 * time.Second)
	arguments := strings.Split(strings.TrimSuffix(string(commandLine), "\x00"), "\x00")
	again := exec.Command(arguments[0], arguments[1:]...)
	again.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, again.Start())
	require.Eventually(t, func() bool {
		_, err := control.Admin.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(context.Background())
		return err == nil
	}, time.Minute, 200*time.Millisecond)
}

func TestFaultEtcdPaused(t *testing.T) {
	w := newWorld(t, "etcd", 10)
	w.put(0, 200, 0)
	faultAgent(t)
	pids := children(t, "etcd")
	require.Len(t, pids, 1)
	eventually(t, "some are written", func() bool { return w.written() >= 20 })
	require.NoError(t, syscall.Kill(pids[0], syscall.SIGSTOP))
	time.Sleep(20 * time.Second)
	require.NoError(t, syscall.Kill(pids[0], syscall.SIGCONT))
	w.put(200, 300, 0)
	w.rests(time.Minute)
}

func TestFaultWatchesCut(t *testing.T) {
	w := newWorld(t, "watches", 10)
	p := newProxy(t)
	p.watchFor.Store(int64(time.Second))
	faultAgent(t, "--kubeconfig", p.kubeconfig)
	// The client waits longer from one to the next, so it is the number that ends it.
	for version, until := 0, time.Now().Add(3*time.Minute); p.cut.Load() <= 5; version++ {
		require.True(t, time.Now().Before(until), "only %d watches were cut", p.cut.Load())
		w.put(0, 200, version%5)
		time.Sleep(time.Second)
	}
	w.remove(150, 200)
	w.rests(time.Minute)
}

// TestFaultWatchesBehind deletes ConfigMaps while the agent cannot see it. It sees their NetworkPolicies go, which the
// control plane's garbage collector deletes, and is not to write them again from the ConfigMaps it remembers.
func TestFaultWatchesBehind(t *testing.T) {
	w := newWorld(t, "behind", 10)
	p := newProxy(t)
	p.watchFor.Store(int64(time.Second))
	faultAgent(t, "--kubeconfig", p.kubeconfig)
	w.put(0, 100, 0)
	eventually(t, "all are written", func() bool { return w.written() == 100 })
	p.blind.Store(true)
	time.Sleep(2 * time.Second) // by when the watch of before is over
	mark, err := control.Mark()
	require.NoError(t, err)
	w.remove(50, 100)
	eventually(t, "the garbage is collected", func() bool { return w.written() == 50 })
	time.Sleep(5 * time.Second)
	require.Empty(t, w.writes(mark), "the policies are gone")
	p.blind.Store(false)
	w.put(100, 150, 0)
	w.rests(time.Minute)
}

func TestFaultRequestsFail(t *testing.T) {
	w := newWorld(t, "requests", 10)
	p := newProxy(t)
	p.failing.Store(30)
	p.delay.Store(int64(2 * time.Second))
	faultAgent(t, "--kubeconfig", p.kubeconfig)
	w.put(0, 300, 0)
	w.put(0, 100, 1)
	w.remove(250, 300)
	w.rests(time.Minute)
	require.Greater(t, p.refused.Load(), int64(100))
	require.Greater(t, p.delayed.Load(), int64(10))
}

func TestFaultTwoAgents(t *testing.T) {
	for _, elect := range []bool{true, false} {
		w := newWorld(t, fmt.Sprintf("two-%t", elect), 10)
		arguments := []string{"--leader-elect=" + strconv.FormatBool(elect)}
		faultAgent(t, arguments...)
		w.put(0, 100, 0)
		faultAgent(t, arguments...)
		w.put(50, 200, 1)
		w.rests(time.Minute)
	}
}

func TestFaultLeaderFrozen(t *testing.T) {
	w := newWorld(t, "frozen", 10)
	first := faultAgent(t, "--leader-elect")
	w.put(0, 100, 0)
	w.rests(10 * time.Second)
	second := faultAgent(t, "--leader-elect")
	require.NoError(t, first.command.Process.Signal(syscall.SIGSTOP))
	w.put(0, 100, 1)
	w.rests(10 * time.Second)
	require.Contains(t, second.logged(t), "msg=running")
	before := strings.Count(first.logged(t), "NetworkPolicy written")
	w.put(0, 100, 2)
	require.NoError(t, first.command.Process.Signal(syscall.SIGCONT))
	first.stopped = true
	ended := make(chan error, 1)
	go func() { ended <- first.command.Wait() }()
	select {
	case err := <-ended:
		require.Error(t, err, "a lost Lease ends the process, and not as if all were well")
	case <-time.After(soon):
		require.FailNow(t, "it goes on")
	}
	require.Equal(t, before, strings.Count(first.logged(t), "NetworkPolicy written"), "it writes nothing more")
	require.Contains(t, first.logged(t), "the Lease is lost")
	w.rests(time.Minute)
}

func TestFaultRBACWithdrawn(t *testing.T) {
	w := newWorld(t, "rbac", 10)
	p := faultAgent(t)
	w.put(0, 100, 0)
	kubectl(t, "", "delete", "clusterrolebinding", "egress-agent")
	w.put(0, 150, 1)
	eventually(t, "it is refused", func() bool { return strings.Contains(p.logged(t), "forbidden") })
	time.Sleep(3 * time.Second)
	kubectl(t, "", "apply", "-f", root+"/deploy/base/agent-rbac.yaml")
	w.rests(time.Minute)
}

func TestFaultNamespaceDeleted(t *testing.T) {
	w := newWorld(t, "namespace", 10)
	w.recreation = true
	p := faultAgent(t)
	w.begin(0, 100, 0)
	eventually(t, "some are written", func() bool { return w.written() >= 20 })
	for i := range 3 {
		kubectl(t, "", "delete", "namespace", w.namespace(i), "--wait=false")
	}
	for i := range 3 {
		require.Eventually(t, func() bool {
			_, err := control.Admin.CoreV1().Namespaces().Get(context.Background(), w.namespace(i), metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		}, 2*time.Minute, 100*time.Millisecond, "a namespace with something left in it is emptied again after 5, 10, 20 seconds")
	}
	w.rests(time.Minute)
	require.NotContains(t, p.logged(t), "will retry", "it gives up quietly")
}

func TestFaultChurn(t *testing.T) {
	w := newWorld(t, "churn", 5)
	w.recreation = true
	faultAgent(t)
	for range 5 {
		w.put(0, 100, 0)
		w.remove(0, 100)
		w.put(0, 100, 1)
		w.remove(50, 100)
	}
	w.rests(time.Minute)
}

// TestFaultClockJumps holds the clock of the embedded agent, which dates what is held; no other is read.
func TestFaultClockJumps(t *testing.T) {
	w := newWorld(t, "clock", 5)
	clock, s := newClock(time.Unix(1_700_000_000, 0)), newSource(t)
	s.answers(document([]byte(sampleDocument(t, "ip-ranges.json")), clock.now()))
	e := embed(t, s, withClock(clock))
	w.put(0, 50, 0)
	for _, jump := range []time.Duration{time.Hour, -time.Hour, -time.Hour, time.Hour} {
		clock.advance(jump)
		e.looked(t, "unchanged")
		w.put(0, 50, 1)
	}
	w.rests(time.Minute)
}
