package language

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/scripts/e2e/harness"
)

// TestAgentAudits changes a policy, edits its NetworkPolicy and deletes the policy, and reads the agent's audit trail.
func TestAgentAudits(t *testing.T) {
	harness.SkipUnlessAll(t)
	agent := harness.StartAgentWithRanges(t, "--audit")
	harness.CreateNamespace(t, "audited")
	const v1, v2 = `{"allowedDestinations": [{"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]}]}`, `{"allowedDestinations": [{"name": "db", "cidr": "10.1.0.0/25", "ports": [5432]}, {"name": "s3", "awsService": "s3", "regions": ["us-west-2"], "ports": [443]}]}`
	harness.Kubectl(t, harness.PolicyManifest("audited", "egress", v1), "apply", "-f", "-")
	harness.AwaitNetworkPolicy(t, "audited", "egress", "open", harness.HasCIDR("10.1.0.0/24"))
	harness.Kubectl(t, harness.PolicyManifest("audited", "egress", v2), "apply", "-f", "-")
	harness.AwaitNetworkPolicy(t, "audited", "egress", "narrower", harness.HasCIDR("10.1.0.0/25"))
	harness.Kubectl(t, "", "patch", "networkpolicy", "-n", "audited", "egress", "--type=json", "--field-manager=mallory", "-p", `[{"op": "add", "path": "/spec/egress/-", "value": {"to": [{"ipBlock": {"cidr": "10.66.0.0/16"}}]}}]`)
	harness.AwaitNetworkPolicy(t, "audited", "egress", "restored", func(n *networkingv1.NetworkPolicy) bool { return !harness.Opens(n, "10.66.0.0/16") })
	harness.Kubectl(t, "", "delete", "configmap", "-n", "audited", "egress")
	harness.Eventually(t, "the NetworkPolicy is gone", func() bool { return harness.GetNetworkPolicy(t, "audited", "egress") == nil })

	var found []string
	harness.Eventually(t, "the deletion is in the trail", func() bool {
		found = nil
		for line := range strings.Lines(agent.Log(t)) {
			var e struct {
				Audit                                          bool
				Program, Event, Namespace, Name, Cause, Ranges string
				EditedBy                                       string
				Opened, Closed                                 []struct{ To, Ports []string }
			}
			if !strings.HasPrefix(line, "{") || json.Unmarshal([]byte(line), &e) != nil || !e.Audit || e.Namespace != "audited" {
				continue
			}
			require.Equal(t, "egress-agent egress", e.Program+" "+e.Name)
			if e.Event == "written" {
				require.Equal(t, "1700000000", e.Ranges)
			}
			found = append(found, fmt.Sprintf("%s %s %s +%v -%v", e.Event, e.Cause, e.EditedBy, e.Opened, e.Closed))
		}
		return len(found) > 0 && strings.HasPrefix(found[len(found)-1], "deleted")
	})
	require.Len(t, found, 4, found)
	require.Contains(t, found[0], "written Missing  +[{[10.1.0.0/24] [TCP 5432]} {[pods k8s-app=kube-dns of namespaces kubernetes.io/metadata.name=kube-system] [TCP 53 UDP 53]}] -[]")
	require.Equal(t, "written Policy  +[{[198.18.8.0/24] [TCP 443]}] -[{[10.1.0.128/25] [TCP 5432]}]", found[1])
	require.Equal(t, "written Edited mallory +[] -[{[10.66.0.0/16] []}]", found[2])
}
