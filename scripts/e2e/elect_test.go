package e2e

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestLeader runs two agents: one works, both are ready, and a clean stop hands over at once, without a
// write to what is as it should be.
func TestLeader(t *testing.T) {
	namespace(t, "tenant-leader")
	arguments := []string{"--ranges-file", ranges, "--leader-elect"}
	working := func(p *process) bool { return strings.Contains(p.logged(t), "msg=running") }
	first := startAgent(t, arguments...)
	eventually(t, "the first works", func() bool { return working(first) })
	second := startAgent(t, arguments...)
	mark, err := control.Mark()
	require.NoError(t, err)
	kubectl(t, manifest("tenant-leader", "egress", s3Only), "apply", "-f", "-")
	eventuallyPolicy(t, "tenant-leader", "egress", "there", exists)
	quiet(t)
	require.False(t, working(second), "it waits")
	require.Equal(t, []string{"create networkpolicies tenant-leader/egress"}, networkPolicyWrites(t, mark, "tenant-leader"))

	first.stop(t)
	eventually(t, "the second works", func() bool { return working(second) })
	kubectl(t, manifest("tenant-leader", "another", s3Only), "apply", "-f", "-")
	eventuallyPolicy(t, "tenant-leader", "another", "there", exists)
	quiet(t)
	require.Equal(t, []string{"create networkpolicies tenant-leader/egress", "create networkpolicies tenant-leader/another"}, networkPolicyWrites(t, mark, "tenant-leader"))
}
