package agent

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"egress-agent/scripts/e2e/harness"
)

// TestStandbyTakesOverAtOnce runs two agents. Both are ready and only the leader writes. After a clean stop of the
// leader, the standby leads at once, and writes nothing that is already correct.
func TestStandbyTakesOverAtOnce(t *testing.T) {
	harness.CreateNamespace(t, "tenant-leader")
	arguments := []string{"--ranges-file", harness.RangesFile, "--leader-elect"}
	leads := func(p *harness.Process) bool { return strings.Contains(p.Log(t), "msg=running") }
	first := harness.StartAgent(t, arguments...)
	harness.Eventually(t, "the first agent leads", func() bool { return leads(first) })
	second := harness.StartAgent(t, arguments...)
	mark, err := harness.Control(t).Mark()
	require.NoError(t, err)
	harness.Kubectl(t, harness.PolicyManifest("tenant-leader", "egress", harness.S3Policy), "apply", "-f", "-")
	harness.AwaitNetworkPolicy(t, "tenant-leader", "egress", "there", harness.Exists)
	harness.AwaitQuiet(t)
	require.False(t, leads(second), "the second agent is the standby")
	require.Equal(t, []string{"create networkpolicies tenant-leader/egress"}, harness.NetworkPolicyWrites(t, mark, "tenant-leader"))

	first.Stop(t)
	harness.Eventually(t, "the second agent leads", func() bool { return leads(second) })
	harness.Kubectl(t, harness.PolicyManifest("tenant-leader", "another", harness.S3Policy), "apply", "-f", "-")
	harness.AwaitNetworkPolicy(t, "tenant-leader", "another", "there", harness.Exists)
	harness.AwaitQuiet(t)
	require.Equal(t, []string{"create networkpolicies tenant-leader/egress", "create networkpolicies tenant-leader/another"}, harness.NetworkPolicyWrites(t, mark, "tenant-leader"))
}
