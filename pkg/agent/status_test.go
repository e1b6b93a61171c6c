package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/status"
)

// TestStatusAgrees has every policy in every situation: what status reads off the cluster is what the agent
// decides on it.
func TestStatusAgrees(t *testing.T) {
	states := map[string]status.State{
		ReasonInvalid: status.Invalid, ReasonNameConflict: status.NameConflict, ReasonRangesUnavailable: status.RangesUnavailable,
	}
	var currents []*networkingv1.NetworkPolicy
	for _, document := range []string{valid, edited, invalid} {
		currents = append(currents,
			writtenFor(t, document),
			with(writtenFor(t, document), func(p *networkingv1.NetworkPolicy) { p.Spec.Egress = nil }),
			with(writtenFor(t, document), func(p *networkingv1.NetworkPolicy) { p.Labels = nil }),
			with(writtenFor(t, document), func(p *networkingv1.NetworkPolicy) { p.Labels, p.OwnerReferences = nil, nil }),
			with(writtenFor(t, document), func(p *networkingv1.NetworkPolicy) { p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} }))
	}
	if result, problems := netpol.Evaluate(configMap(valid), nil, options); problems == nil {
		currents = append(currents, netpol.NetworkPolicyFor(configMap(valid), result)) // written without ranges
	}
	seen := make(map[status.State]int)
	for _, document := range []string{valid, edited, invalid} {
		for _, table := range []*awsranges.Table{testTable(t), nil} {
			for _, current := range append(currents, nil) {
				cluster := status.Cluster{ConfigMaps: []*corev1.ConfigMap{configMap(document)}, Table: table, Options: options}
				var o *networkPolicyMeta
				if current != nil {
					cluster.NetworkPolicies = append(cluster.NetworkPolicies, current)
					o = metaOf(current)
				}
				d := plan(configMap(document), nil, o, false, table, Options{Compile: options, ChunkPeers: 200})
				got := status.Policies(cluster)[0].State
				want, refused := states[d.reason]
				switch {
				case refused:
				case d.desired != nil || current != nil && current.DeletionTimestamp != nil:
					want = status.Pending
				default:
					want = status.Applied
				}
				require.Equal(t, want, got, "policy %s, NetworkPolicy %+v, ranges %t: %+v", document, current, table != nil, d)
				seen[got]++
			}
		}
	}
	require.Len(t, seen, len(status.States)-1, "a state that no situation has, but for NamespaceExempt")
}
