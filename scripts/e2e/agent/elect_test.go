package agent

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"egress-agent/scripts/e2e/harness"
)

// TestStandbyTakesOverAtOnce runs two agents: one works, both are ready, and a clean stop hands over at once, without a
// write to what is as it should be.
func TestStandbyTakesOverAtOnce(t *testing.T) {
	harness.CreateNamespace(t, "tenant-leader")
	arguments := []string{"--ranges-file", harness.RangesFile, "--leader-elect"}
	working := func(p *harness.Process) bool { return strings.Contains(p.Log(t), "msg=running") }
	first := harness.StartAgent(t, arguments...)
	harness.Eventually(t, "the first works", func() bool { return working(first) })
	second := harness.StartAgent(t, arguments...)
	mark, err := harness.Control(t).Mark()
	require.NoError(t, err)
	harness.Kubectl(t, harness.PolicyManifest("tenant-leader", "egress", harness.S3Policy), "apply", "-f", "-")
	harness.AwaitNetworkPolicy(t, "tenant-leader", "egress", "there", harness.Exists)
	harness.AwaitQuiet(t)
	require.False(t, working(second), "it waits")
	require.Equal(t, []string{"create networkpolicies tenant-leader/egress"}, harness.NetworkPolicyWrites(t, mark, "tenant-leader"))

	first.Stop(t)
	harness.Eventually(t, "the second works", func() bool { return working(second) })
	harness.Kubectl(t, harness.PolicyManifest("tenant-leader", "another", harness.S3Policy), "apply", "-f", "-")
	harness.AwaitNetworkPolicy(t, "tenant-leader", "another", "there", harness.Exists)
	harness.AwaitQuiet(t)
	require.Equal(t, []string{"create networkpolicies tenant-leader/egress", "create networkpolicies tenant-leader/another"}, harness.NetworkPolicyWrites(t, mark, "tenant-leader"))
}
