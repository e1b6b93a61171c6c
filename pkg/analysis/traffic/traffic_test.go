package traffic

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"egress-agent/pkg/analysis/flows"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

func compiledOf(t *testing.T, document string) *netpol.Compiled {
	t.Helper()
	configMap := &corev1.ConfigMap{Data: map[string]string{policy.Key: document}}
	c := netpol.CompileConfigMap(configMap, netpol.Inputs{Options: netpol.Options{Family: netpol.IPv4, AllowDNS: true}})
	require.Empty(t, c.Problems)
	return c
}

func sampleCluster() *flows.Cluster {
	c := flows.NewCluster()
	c.AddPod(netip.MustParseAddr("10.0.1.5"), flows.Pod{Namespace: "shop", Labels: map[string]string{"app": "web"}})
	c.AddPod(netip.MustParseAddr("10.0.1.6"), flows.Pod{Namespace: "shop", Labels: map[string]string{"app": "db"}})
	c.AddPod(netip.MustParseAddr("10.0.2.7"), flows.Pod{Namespace: "monitoring", Labels: map[string]string{"app": "web"}})
	c.AddPod(netip.MustParseAddr("10.0.0.2"), flows.Pod{Namespace: "kube-system", Labels: map[string]string{"k8s-app": "kube-dns"}})
	c.AddService(netip.MustParseAddr("172.20.0.9"), flows.Service{Namespace: "shop", Selector: map[string]string{"app": "db"}, TargetPorts: map[uint16]uint16{80: 5432}})
	return c
}

func TestNamespaceAllows(t *testing.T) {
	const document = `{"podSelector": {"matchLabels": {"app": "web"}}, "allowedDestinations": [
		{"name": "net", "cidr": "10.9.0.0/16", "except": ["10.9.1.0/24"], "ports": [443, {"port": 8000, "endPort": 8100}]},
		{"name": "db", "pods": {"app": "db"}, "ports": [5432]}, {"name": "metrics", "namespace": "monitoring", "ports": [{"port": 9090, "protocol": "UDP"}]}]}`
	spec := compiledOf(t, document).Spec()
	withCluster := NewNamespace("shop", []networkingv1.NetworkPolicySpec{spec}, sampleCluster())
	withoutCluster := NewNamespace("", []networkingv1.NetworkPolicySpec{spec}, nil)
	everything := NewNamespace("", []networkingv1.NetworkPolicySpec{spec, compiledOf(t, `{"defaultAction": "allow", "allowedDestinations": []}`).Spec()}, nil)
	for _, test := range []struct {
		source, destination string
		port                uint16
		protocol            policy.Protocol
		with, without       bool
	}{
		{"10.0.1.5", "10.9.0.1", 443, policy.TCP, true, true},
		{"10.0.1.5", "10.9.0.1", 8050, policy.TCP, true, true},
		{"10.0.1.5", "10.9.0.1", 443, policy.UDP, false, false},
		{"10.0.1.5", "10.9.1.1", 443, policy.TCP, false, false},
		{"10.0.1.5", "10.0.1.6", 5432, policy.TCP, true, false},
		{"10.0.1.5", "172.20.0.9", 80, policy.TCP, true, false},
		{"10.0.1.5", "172.20.0.9", 5432, policy.TCP, true, false},
		{"10.0.1.5", "10.0.2.7", 9090, policy.UDP, true, false},
		{"10.0.1.5", "10.0.2.7", 9090, policy.TCP, false, false},
		{"10.0.1.6", "10.200.0.1", 1, policy.TCP, true, false}, // no policy selects this pod
		{"10.0.1.5", "10.0.0.2", 53, policy.UDP, true, true},   // DNS
		{"10.0.1.5", "8.8.8.8", 53, policy.UDP, false, false},  // other DNS
	} {
		f := flows.Flow{Source: netip.MustParseAddr(test.source), Destination: netip.MustParseAddr(test.destination), Port: test.port, Protocol: test.protocol, Accepted: 1}
		require.Equal(t, test.with, withCluster.Allows(f), "%+v", test)
		require.Equal(t, test.without, withoutCluster.Allows(f), "%+v", test)
		require.True(t, everything.Allows(f))
	}
}

func TestUsage(t *testing.T) {
	p := compiledOf(t, `{"allowedDestinations": [{"name": "net", "cidr": "10.9.0.0/16", "ports": [443]}, {"name": "host", "cidr": "10.9.0.1/32", "ports": [443]},
		{"name": "db", "pods": {"app": "db"}, "ports": [5432]}, {"name": "other", "namespace": "monitoring"}, {"name": "unused", "cidr": "10.8.0.0/16"}]}`).Policy
	flow := func(destination string, port uint16) flows.Flow {
		return flows.Flow{Source: netip.MustParseAddr("10.0.1.5"), Destination: netip.MustParseAddr(destination), Port: port, Protocol: policy.TCP, Accepted: 1}
	}
	denied := flow("10.8.0.1", 443)
	denied.Accepted = 0
	all := []flows.Flow{flow("10.9.0.1", 443), flow("10.9.0.2", 443), flow("10.9.0.1", 80), flow("10.0.1.6", 5432), flow("172.20.0.9", 80), flow("10.0.2.7", 1), denied}
	require.Equal(t, []int{2, 1, 2, 1, 0}, NewDestinations(p.Destinations, nil, "shop", sampleCluster()).Usage(all))
	require.Equal(t, []int{2, 1, 0, 0, 0}, NewDestinations(p.Destinations, nil, "shop", nil).Usage(all))
}

// TestForeignNetworkPolicies has rules that the agent never makes.
func TestForeignNetworkPolicies(t *testing.T) {
	to := func(destination string, port uint16, protocol policy.Protocol) flows.Flow {
		return flows.Flow{Source: netip.MustParseAddr("10.0.1.5"), Destination: netip.MustParseAddr(destination), Port: port, Protocol: protocol, Accepted: 1}
	}
	block := func(except ...string) []networkingv1.NetworkPolicyPeer {
		return []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "10.9.0.5/16", Except: except}}}
	}
	name, number, udp := intstr.FromString("https"), intstr.FromInt32(443), corev1.ProtocolUDP
	egress := []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
	for _, test := range []struct {
		name    string
		spec    networkingv1.NetworkPolicySpec
		flow    flows.Flow
		allowed bool
	}{
		{"except", networkingv1.NetworkPolicySpec{PolicyTypes: egress, Egress: []networkingv1.NetworkPolicyEgressRule{{To: block("10.9.1.0/24")}}}, to("10.9.1.1", 443, policy.TCP), false},
		{"beside except", networkingv1.NetworkPolicySpec{PolicyTypes: egress, Egress: []networkingv1.NetworkPolicyEgressRule{{To: block("10.9.1.0/24")}}}, to("10.9.2.1", 443, policy.TCP), true},
		{"no peers", networkingv1.NetworkPolicySpec{PolicyTypes: egress, Egress: []networkingv1.NetworkPolicyEgressRule{{Ports: []networkingv1.NetworkPolicyPort{{Port: &number}}}}}, to("2001:db8::1", 443, policy.TCP), true},
		{"no peers, another port", networkingv1.NetworkPolicySpec{PolicyTypes: egress, Egress: []networkingv1.NetworkPolicyEgressRule{{Ports: []networkingv1.NetworkPolicyPort{{Port: &number}}}}}, to("10.9.1.1", 80, policy.TCP), false},
		{"no port number", networkingv1.NetworkPolicySpec{PolicyTypes: egress, Egress: []networkingv1.NetworkPolicyEgressRule{{To: block(), Ports: []networkingv1.NetworkPolicyPort{{Protocol: &udp}}}}}, to("10.9.1.1", 80, policy.UDP), true},
		{"no protocol means TCP", networkingv1.NetworkPolicySpec{PolicyTypes: egress, Egress: []networkingv1.NetworkPolicyEgressRule{{To: block(), Ports: []networkingv1.NetworkPolicyPort{{Port: &number}}}}}, to("10.9.1.1", 443, policy.UDP), false},
		{"a named port", networkingv1.NetworkPolicySpec{PolicyTypes: egress, Egress: []networkingv1.NetworkPolicyEgressRule{{To: block(), Ports: []networkingv1.NetworkPolicyPort{{Port: &name}}}}}, to("10.9.1.1", 0, policy.TCP), false},
		{"no types, with egress", networkingv1.NetworkPolicySpec{Egress: []networkingv1.NetworkPolicyEgressRule{{To: block()}}}, to("10.8.0.1", 443, policy.TCP), false},
		{"only ingress", networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}}, to("10.8.0.1", 443, policy.TCP), true},
		{"no types", networkingv1.NetworkPolicySpec{}, to("10.8.0.1", 443, policy.TCP), true},
	} {
		require.Equal(t, test.allowed, NewNamespace("shop", []networkingv1.NetworkPolicySpec{test.spec}, sampleCluster()).Allows(test.flow), test.name)
	}
}
