package plan

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/agent/internal/cached"
	"egress-agent/pkg/agent/internal/testobjects"
	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/status"
)

// TestStatusAgrees requires that the status command and the agent find the same state, for each policy document with
// each NetworkPolicy and each table.
func TestStatusAgrees(t *testing.T) {
	var currents []*networkingv1.NetworkPolicy
	for _, document := range []string{testobjects.Valid, testobjects.Edited, testobjects.Invalid} {
		currents = append(currents,
			testobjects.NetworkPolicy(t, document),
			testobjects.EditedByOthers(testobjects.NetworkPolicy(t, document), func(p *networkingv1.NetworkPolicy) { p.Spec.Egress = nil }),
			testobjects.EditedByOthers(testobjects.NetworkPolicy(t, document), func(p *networkingv1.NetworkPolicy) { p.Labels = nil }),
			testobjects.EditedByOthers(testobjects.NetworkPolicy(t, document), func(p *networkingv1.NetworkPolicy) { p.Labels, p.OwnerReferences = nil, nil }),
			testobjects.EditedByOthers(testobjects.NetworkPolicy(t, document), func(p *networkingv1.NetworkPolicy) { p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} }))
	}
	withoutRanges := netpol.Inputs{Options: testobjects.Options}
	currents = append(currents,
		testobjects.Created(netpol.Assess(testobjects.ConfigMap(testobjects.Valid), nil, withoutRanges).Desired[0]))
	seen := make(map[status.State]int)
	for _, document := range []string{testobjects.Valid, testobjects.Edited, testobjects.Invalid} {
		for _, table := range []*awsranges.Table{testobjects.Table(t), nil} {
			for _, current := range append(currents, nil) {
				cluster := status.Cluster{ConfigMaps: []*corev1.ConfigMap{testobjects.ConfigMap(document)}, Table: table, Options: testobjects.Options}
				var inCluster *netpol.Current
				if current != nil {
					cluster.NetworkPolicies = append(cluster.NetworkPolicies, current)
					var isSpecKnown bool
					if inCluster, isSpecKnown = cached.NetworkPolicyOf(testobjects.Metadata(current)).Current(); !isSpecKnown {
						inCluster = netpol.CurrentOf(current)
					}
				}
				assessment := netpol.Assess(testobjects.ConfigMap(document), inCluster, netpol.Inputs{Table: table, Options: testobjects.Options})
				reported := status.Policies(cluster)[0]
				require.Equal(t, assessment.State, reported.State, "policy %s, NetworkPolicy %+v, ranges %t", document, current, table != nil)
				if assessment.State != netpol.Pending {
					require.Equal(t, assessment.Messages(), append([]string(nil), reported.Messages...))
				}
				seen[reported.State]++
			}
		}
	}
	require.Len(t, seen, len(status.States)-1, "every state but NamespaceExempt occurs")
}
