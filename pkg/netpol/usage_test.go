package netpol

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// TestParseUsageReadsString requires that ParseUsage returns the usage that Usage.String wrote.
func TestParseUsageReadsString(t *testing.T) {
	udp, port, end := corev1.ProtocolUDP, intstr.FromInt32(8000), int32(8100)
	rules := func(ports ...networkingv1.NetworkPolicyPort) networkingv1.NetworkPolicySpec {
		return networkingv1.NetworkPolicySpec{Egress: []networkingv1.NetworkPolicyEgressRule{{
			To: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8"}}}, Ports: ports,
		}}}
	}
	for _, test := range []struct {
		spec networkingv1.NetworkPolicySpec
		want string
	}{
		{networkingv1.NetworkPolicySpec{}, "0"},
		{rules(), "1 *"},
		{rules(networkingv1.NetworkPolicyPort{Protocol: &udp}), "1 UDP/*"},
		{rules(networkingv1.NetworkPolicyPort{Port: &port}, networkingv1.NetworkPolicyPort{Protocol: &udp, Port: &port, EndPort: &end}), "1 TCP/8000 UDP/8000-8100"},
	} {
		usage := UsageOf(test.spec)
		require.Equal(t, test.want, usage.String())
		read, ok := ParseUsage(usage.String())
		require.True(t, ok)
		require.Equal(t, usage.CIDRs, read.CIDRs)
		require.ElementsMatch(t, usage.Ports, read.Ports)
	}
	var many []networkingv1.NetworkPolicyPort
	for i := range maxUsagePorts + 1 {
		port := intstr.FromInt(1 + 2*i)
		many = append(many, networkingv1.NetworkPolicyPort{Port: &port})
	}
	require.Equal(t, "1 many", UsageOf(rules(many...)).String())
	read, ok := ParseUsage("1 many")
	require.True(t, ok)
	require.Equal(t, Usage{CIDRs: 1, Many: true}, read)
	largest := UsageOf(rules(many[1:]...)).String()
	read, ok = ParseUsage(largest)
	require.True(t, ok)
	require.Len(t, read.Ports, maxUsagePorts)
	for _, text := range append([]string{"", "x", "-1", "1 TCP", "1 TCP/x", "1 TCP/1-x", largest + " TCP/1"}, slices.Repeat([]string{fmt.Sprint(1 << 31)}, 1)...) {
		_, ok := ParseUsage(text)
		require.False(t, ok, text)
	}
}
