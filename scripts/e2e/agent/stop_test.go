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

// TestStopWaitsForWriteInFlight asks an agent to stop while a write is on its way: it waits for that. Asked twice, it waits for nothing.
func TestStopWaitsForWriteInFlight(t *testing.T) {
	harness.CreateNamespace(t, "tenant-stop")
	p := harness.StartProxy(t)
	p.HoldNamespace = "tenant-stop"
	agent := harness.StartAgentWithRanges(t, "--kubeconfig", p.Kubeconfig)
	p.Hold.Store(int64(3 * time.Second))
	harness.Kubectl(t, harness.PolicyManifest("tenant-stop", "in-flight", harness.S3Policy), "apply", "-f", "-")
	harness.Eventually(t, "the write is on its way", func() bool { return p.HeldCount.Load() == 1 })
	require.Equal(t, "application/vnd.kubernetes.protobuf", p.HeldContentType.Load())
	agent.Stop(t)
	require.NotNil(t, harness.GetNetworkPolicy(t, "tenant-stop", "in-flight"), "it stopped when the write was done")
	require.NotContains(t, agent.Log(t), "will retry")

	agent = harness.StartAgentWithRanges(t, "--kubeconfig", p.Kubeconfig)
	p.Hold.Store(int64(time.Minute))
	harness.Kubectl(t, harness.PolicyManifest("tenant-stop", "held", harness.S3Policy), "apply", "-f", "-")
	harness.Eventually(t, "the next is on its way", func() bool { return p.HeldCount.Load() == 2 })
	agent.Ended = true
	require.NoError(t, agent.Command.Process.Signal(syscall.SIGTERM))
	harness.Eventually(t, "it is stopping", func() bool { return strings.Contains(agent.Log(t), "msg=stopping") })
	require.NoError(t, agent.Command.Process.Signal(syscall.SIGTERM))
	var exit *exec.ExitError
	require.ErrorAs(t, agent.Command.Wait(), &exit)
	require.Equal(t, syscall.SIGTERM, exit.Sys().(syscall.WaitStatus).Signal(), "it did not wait for the end of its work")
}
