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
	var currents []*networkingv1.NetworkPolicy
	for _, document := range []string{valid, edited, invalid} {
		currents = append(currents,
			writtenFor(t, document),
			with(writtenFor(t, document), func(p *networkingv1.NetworkPolicy) { p.Spec.Egress = nil }),
			with(writtenFor(t, document), func(p *networkingv1.NetworkPolicy) { p.Labels = nil }),
			with(writtenFor(t, document), func(p *networkingv1.NetworkPolicy) { p.Labels, p.OwnerReferences = nil, nil }),
			with(writtenFor(t, document), func(p *networkingv1.NetworkPolicy) { p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} }))
	}
	currents = append(currents, netpol.Assess(configMap(valid), nil, netpol.Inputs{Options: options}).Desired[0]) // written without ranges
	seen := make(map[status.State]int)
	for _, document := range []string{valid, edited, invalid} {
		for _, table := range []*awsranges.Table{testTable(t), nil} {
			for _, current := range append(currents, nil) {
				cluster := status.Cluster{ConfigMaps: []*corev1.ConfigMap{configMap(document)}, Table: table, Options: options}
				var inCluster *netpol.Current
				if current != nil {
					cluster.NetworkPolicies = append(cluster.NetworkPolicies, current)
					inCluster = metaOf(current).current()
				}
				agents := netpol.Assess(configMap(document), inCluster, netpol.Inputs{Table: table, Options: options})
				got := status.Policies(cluster)[0]
				require.Equal(t, agents.State, got.State, "policy %s, NetworkPolicy %+v, ranges %t", document, current, table != nil)
				if agents.State != netpol.Pending {
					require.Equal(t, agents.Messages(), append([]string(nil), got.Messages...))
				}
				seen[got.State]++
			}
		}
	}
	require.Len(t, seen, len(status.States)-1, "a state that no situation has, but for NamespaceExempt")
}
