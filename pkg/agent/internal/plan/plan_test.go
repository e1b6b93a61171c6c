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
	"egress-agent/pkg/platform"
	"egress-agent/pkg/policy"
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
	require.Len(t, seen, len(status.States)-2, "every state but NamespaceExempt and Guarded occurs")
}

// Status does not read platform documents. It takes the state from an annotation, and names the guardrails as the agent
// does.
func TestStatusAgreesOnGuardrails(t *testing.T) {
	document, problems := platform.Parse([]byte(`{"namespaces": {}, "guardrails": {"denied": [{"name": "db", "cidr": "10.1.0.0/24"}]}}`), policy.Names{})
	require.Empty(t, problems)
	in := netpol.Inputs{Table: testobjects.Table(t), Options: testobjects.Options,
		Guardrails: netpol.NewGuardrails([]netpol.PlatformDocument{{Name: "baseline", Document: document}}, nil, netpol.IPv4)}
	configMap := testobjects.ConfigMap(testobjects.Valid)
	current := testobjects.Created(netpol.Assess(configMap, nil, in).Desired[0])
	assessment := netpol.Assess(configMap, netpol.CurrentOf(current), in)
	require.Equal(t, netpol.Guarded, assessment.State)
	require.Contains(t, assessment.Message(), "guardrail db of platform document baseline")
	reported := status.Policies(status.Cluster{
		ConfigMaps: []*corev1.ConfigMap{configMap}, NetworkPolicies: []*networkingv1.NetworkPolicy{current}, Table: in.Table, Options: in.Options,
	})[0]
	require.Equal(t, netpol.Guarded, reported.State)
	require.Equal(t, []string{"These guardrails of the platform close a part of what the policy opens: baseline/db"}, reported.Messages)
}
