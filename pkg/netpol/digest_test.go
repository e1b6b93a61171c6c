package netpol

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// TestSpecDigestDiffersForEachField changes one field of a spec at a time. No two specs may have the same digest, and
// encoding to JSON and back must not change a digest.
func TestSpecDigestDiffersForEachField(t *testing.T) {
	base := func() *networkingv1.NetworkPolicySpec {
		tcp, port, end := corev1.ProtocolTCP, intstr.FromInt32(443), int32(450)
		return &networkingv1.NetworkPolicySpec{
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
			Egress: []networkingv1.NetworkPolicyEgressRule{
				{
					Ports: []networkingv1.NetworkPolicyPort{{Protocol: &tcp, Port: &port, EndPort: &end}},
					To: []networkingv1.NetworkPolicyPeer{
						{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8"}},
						{IPBlock: &networkingv1.IPBlock{CIDR: "11.0.0.0/8"}},
					},
				},
				{To: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}}}},
			},
		}
	}
	first := func(s *networkingv1.NetworkPolicySpec) *networkingv1.NetworkPolicyEgressRule { return &s.Egress[0] }
	changes := map[string]func(*networkingv1.NetworkPolicySpec){
		"none":           func(*networkingv1.NetworkPolicySpec) {},
		"pod selector":   func(s *networkingv1.NetworkPolicySpec) { s.PodSelector.MatchLabels = map[string]string{"a": "b"} },
		"another type":   func(s *networkingv1.NetworkPolicySpec) { s.PolicyTypes[0] = networkingv1.PolicyTypeIngress },
		"no type":        func(s *networkingv1.NetworkPolicySpec) { s.PolicyTypes = nil },
		"two types":      func(s *networkingv1.NetworkPolicySpec) { s.PolicyTypes = append(s.PolicyTypes, "Ingress") },
		"ingress":        func(s *networkingv1.NetworkPolicySpec) { s.Ingress = []networkingv1.NetworkPolicyIngressRule{{}} },
		"no egress":      func(s *networkingv1.NetworkPolicySpec) { s.Egress = nil },
		"one rule less":  func(s *networkingv1.NetworkPolicySpec) { s.Egress = s.Egress[:1] },
		"order of rules": func(s *networkingv1.NetworkPolicySpec) { s.Egress[0], s.Egress[1] = s.Egress[1], s.Egress[0] },
		"an empty rule": func(s *networkingv1.NetworkPolicySpec) {
			s.Egress = append(s.Egress, networkingv1.NetworkPolicyEgressRule{})
		},
		"every port":       func(s *networkingv1.NetworkPolicySpec) { first(s).Ports = nil },
		"no protocol":      func(s *networkingv1.NetworkPolicySpec) { first(s).Ports[0].Protocol = nil },
		"another protocol": func(s *networkingv1.NetworkPolicySpec) { *first(s).Ports[0].Protocol = "UDP" },
		"no port":          func(s *networkingv1.NetworkPolicySpec) { first(s).Ports[0].Port = nil },
		"another port":     func(s *networkingv1.NetworkPolicySpec) { first(s).Ports[0].Port.IntVal = 44 },
		"a named port":     func(s *networkingv1.NetworkPolicySpec) { *first(s).Ports[0].Port = intstr.FromString("443") },
		"no end":           func(s *networkingv1.NetworkPolicySpec) { first(s).Ports[0].EndPort = nil },
		"another end":      func(s *networkingv1.NetworkPolicySpec) { *first(s).Ports[0].EndPort = 451 },
		"everywhere":       func(s *networkingv1.NetworkPolicySpec) { first(s).To = nil },
		"another CIDR":     func(s *networkingv1.NetworkPolicySpec) { first(s).To[0].IPBlock.CIDR = "10.0.0.0/9" },
		"order of CIDRs": func(s *networkingv1.NetworkPolicySpec) {
			first(s).To[0], first(s).To[1] = first(s).To[1], first(s).To[0]
		},
		"except":          func(s *networkingv1.NetworkPolicySpec) { first(s).To[0].IPBlock.Except = []string{"10.1.0.0/16"} },
		"an empty peer":   func(s *networkingv1.NetworkPolicySpec) { first(s).To[0] = networkingv1.NetworkPolicyPeer{} },
		"every pod":       func(s *networkingv1.NetworkPolicySpec) { s.Egress[1].To[0].PodSelector = &metav1.LabelSelector{} },
		"every namespace": func(s *networkingv1.NetworkPolicySpec) { s.Egress[1].To[0].NamespaceSelector = &metav1.LabelSelector{} },
		"another label":   func(s *networkingv1.NetworkPolicySpec) { s.Egress[1].To[0].PodSelector.MatchLabels["a"] = "c" },
		"an expression": func(s *networkingv1.NetworkPolicySpec) {
			s.Egress[1].To[0].PodSelector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "a"}}
		},
		"selector elsewhere": func(s *networkingv1.NetworkPolicySpec) {
			peer := &s.Egress[1].To[0]
			peer.NamespaceSelector, peer.PodSelector = peer.PodSelector, nil
		},
	}
	seen := make(map[string]string)
	for name, change := range changes {
		spec := base()
		change(spec)
		digest := SpecDigestOf(*spec)
		require.Empty(t, seen[digest], "%s has the digest of %s", name, seen[digest])
		seen[digest] = name
		encoded, err := json.Marshal(spec)
		require.NoError(t, err)
		var again networkingv1.NetworkPolicySpec
		require.NoError(t, json.Unmarshal(encoded, &again))
		require.Equal(t, digest, SpecDigestOf(again), name)
	}
	empty := base()
	empty.Egress[0].Ports, empty.Ingress = []networkingv1.NetworkPolicyPort{}, []networkingv1.NetworkPolicyIngressRule{}
	withoutPorts := base()
	withoutPorts.Egress[0].Ports = nil
	require.Equal(t, SpecDigestOf(*withoutPorts), SpecDigestOf(*empty))
}

// TestParseCountsReadsFormattedCounts also requires that ParseCounts refuses text that formatCounts cannot write.
func TestParseCountsReadsFormattedCounts(t *testing.T) {
	for _, counts := range [][]Count{nil, {{"s3", 15}}, {{"s3", 15}, {"a b", 0}, {"a=1 b", 7}, {`"quoted"`, 1}, {"`", 2}, {"'x'", 3}, {"and", 4}}} {
		got, complete := ParseCounts(formatCounts(counts))
		require.True(t, complete)
		require.Equal(t, counts, got)
	}
	many := make([]Count, 40000)
	for i := range many {
		many[i] = Count{"n", i}
	}
	got, complete := ParseCounts(formatCounts(many))
	require.False(t, complete, "the annotation has only the first destinations")
	require.Equal(t, many[:len(got)], got)
	require.NotEmpty(t, got)
	for _, wrong := range []string{"s3", "s3=", "s3=x", "s3=-1", "=1", `"s3=1`, "s3=1  db=2", "s3=99999999999"} {
		_, complete := ParseCounts(wrong)
		require.False(t, complete, wrong)
	}
}
