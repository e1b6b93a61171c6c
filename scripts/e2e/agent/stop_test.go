package agent

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"egress-agent/scripts/e2e/harness"
)

// TestStopWaitsForWriteInFlight stops an agent during a write: it waits until the write is done. After a second SIGTERM
// it does not wait.
func TestStopWaitsForWriteInFlight(t *testing.T) {
	harness.CreateNamespace(t, "tenant-stop")
	p := harness.StartProxy(t)
	p.HoldNamespace = "tenant-stop"
	agent := harness.StartAgentWithRanges(t, "--kubeconfig", p.Kubeconfig)
	p.Hold.Store(int64(3 * time.Second))
	harness.Kubectl(t, harness.PolicyManifest("tenant-stop", "in-flight", harness.S3Policy), "apply", "-f", "-")
	harness.Eventually(t, "a write is in flight", func() bool { return p.HeldCount.Load() == 1 })
	require.Equal(t, "application/vnd.kubernetes.protobuf", p.HeldContentType.Load())
	agent.Stop(t)
	require.NotNil(t, harness.GetNetworkPolicy(t, "tenant-stop", "in-flight"), "the agent waits for the write")
	require.NotContains(t, agent.Log(t), "sync failed, retrying")

	agent = harness.StartAgentWithRanges(t, "--kubeconfig", p.Kubeconfig)
	p.Hold.Store(int64(time.Minute))
	harness.Kubectl(t, harness.PolicyManifest("tenant-stop", "held", harness.S3Policy), "apply", "-f", "-")
	harness.Eventually(t, "the next write is in flight", func() bool { return p.HeldCount.Load() == 2 })
	agent.Ended = true
	require.NoError(t, agent.Command.Process.Signal(syscall.SIGTERM))
	harness.Eventually(t, "the agent is stopping", func() bool { return strings.Contains(agent.Log(t), "msg=stopping") })
	go func() { // the agent may not have asked the system yet to end it at the second signal, so there are more
		for agent.Command.Process.Signal(syscall.SIGTERM) == nil {
			time.Sleep(100 * time.Millisecond)
		}
	}()
	var exit *exec.ExitError
	require.ErrorAs(t, agent.Command.Wait(), &exit)
	require.Equal(t, syscall.SIGTERM, exit.Sys().(syscall.WaitStatus).Signal(), "the agent does not wait after a second signal")
}
