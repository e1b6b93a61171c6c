package e2e

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestStop asks an agent to stop while a write is on its way: it waits for that. Asked twice, it waits for nothing.
func TestStop(t *testing.T) {
	namespace(t, "tenant-stop")
	p := newProxy(t)
	p.holdIn = "tenant-stop"
	agent := startAgent(t, "--ranges-file", ranges, "--kubeconfig", p.kubeconfig)
	p.hold.Store(int64(3 * time.Second))
	kubectl(t, manifest("tenant-stop", "in-flight", s3Only), "apply", "-f", "-")
	eventually(t, "the write is on its way", func() bool { return p.held.Load() == 1 })
	require.Equal(t, "application/vnd.kubernetes.protobuf", p.encoding.Load())
	agent.stop(t)
	require.NotNil(t, getPolicy(t, "tenant-stop", "in-flight"), "it stopped when the write was done")
	require.NotContains(t, agent.logged(t), "will retry")

	agent = startAgent(t, "--ranges-file", ranges, "--kubeconfig", p.kubeconfig)
	p.hold.Store(int64(time.Minute))
	kubectl(t, manifest("tenant-stop", "held", s3Only), "apply", "-f", "-")
	eventually(t, "the next is on its way", func() bool { return p.held.Load() == 2 })
	agent.stopped = true
	require.NoError(t, agent.command.Process.Signal(syscall.SIGTERM))
	eventually(t, "it is stopping", func() bool { return strings.Contains(agent.logged(t), "msg=stopping") })
	require.NoError(t, agent.command.Process.Signal(syscall.SIGTERM))
	var exit *exec.ExitError
	require.ErrorAs(t, agent.command.Wait(), &exit)
	require.Equal(t, syscall.SIGTERM, exit.Sys().(syscall.WaitStatus).Signal(), "it did not wait for the end of its work")
}
