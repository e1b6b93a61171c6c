package cluster

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/scripts/e2e/harness"
)

func TestFaultAPIServerKilled(t *testing.T) {
	w := harness.NewWorld(t, "apiserver", 10)
	w.Put(0, 300, 0)
	harness.StartAgentWithRanges(t)
	w.PutInBackground(300, 600, 0)
	harness.Eventually(t, "some are written", func() bool { return w.WrittenCount() >= 100 })
	restartAPIServer(t)
	harness.Eventually(t, "all are written", func() bool { return w.WrittenCount() == 600 })
	w.AwaitRest(time.Minute)
}

// restartAPIServer kills the API server and starts it again with the same arguments.
func restartAPIServer(t *testing.T) {
	t.Helper()
	pids := childProcesses(t, "kube-apiserver")
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
		_, err := harness.Control(t).Admin.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(context.Background())
		return err == nil
	}, time.Minute, 200*time.Millisecond)
}

func TestFaultEtcdPaused(t *testing.T) {
	w := harness.NewWorld(t, "etcd", 10)
	w.Put(0, 200, 0)
	harness.StartAgentWithRanges(t)
	pids := childProcesses(t, "etcd")
	require.Len(t, pids, 1)
	harness.Eventually(t, "some are written", func() bool { return w.WrittenCount() >= 20 })
	require.NoError(t, syscall.Kill(pids[0], syscall.SIGSTOP))
	time.Sleep(20 * time.Second)
	require.NoError(t, syscall.Kill(pids[0], syscall.SIGCONT))
	w.Put(200, 300, 0)
	w.AwaitRest(time.Minute)
}

func TestFaultRBACWithdrawn(t *testing.T) {
	w := harness.NewWorld(t, "rbac", 10)
	p := harness.StartAgentWithRanges(t)
	w.Put(0, 100, 0)
	harness.Kubectl(t, "", "delete", "clusterrolebinding", "egress-agent")
	w.Put(0, 150, 1)
	harness.Eventually(t, "the API server refuses a write", func() bool { return strings.Contains(p.Log(t), "forbidden") })
	time.Sleep(3 * time.Second)
	harness.Kubectl(t, "", "apply", "-f", harness.Root+"/deploy/base/agent-rbac.yaml")
	w.AwaitRest(time.Minute)
}

func TestFaultNamespaceDeleted(t *testing.T) {
	w := harness.NewWorld(t, "namespace", 10)
	w.AllowRecreation = true
	p := harness.StartAgentWithRanges(t)
	w.PutInBackground(0, 100, 0)
	harness.Eventually(t, "some are written", func() bool { return w.WrittenCount() >= 20 })
	for i := range 3 {
		harness.Kubectl(t, "", "delete", "namespace", w.Namespace(i), "--wait=false")
	}
	for i := range 3 {
		require.Eventually(t, func() bool {
			_, err := harness.Control(t).Admin.CoreV1().Namespaces().Get(context.Background(), w.Namespace(i), metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		}, 2*time.Minute, 100*time.Millisecond, "the namespace controller retries a namespace that is not empty after 5, 10 and 20 seconds")
	}
	w.AwaitRest(time.Minute)
	require.NotContains(t, p.Log(t), "sync failed, retrying", "the agent logs no errors")
}

func TestFaultChurn(t *testing.T) {
	w := harness.NewWorld(t, "churn", 5)
	w.AllowRecreation = true
	harness.StartAgentWithRanges(t)
	for range 5 {
		w.Put(0, 100, 0)
		w.Remove(0, 100)
		w.Put(0, 100, 1)
		w.Remove(50, 100)
	}
	w.AwaitRest(time.Minute)
}
