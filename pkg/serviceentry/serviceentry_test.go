package serviceentry

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

func compile(t *testing.T, document string) *networkingv1.NetworkPolicy {
	t.Helper()
	configMap := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Data: map[string]string{policy.Key: document}}
	compiled := netpol.CompileConfigMap(configMap, netpol.Inputs{Options: netpol.Options{Family: netpol.Dual, AllowDNS: true}})
	require.Empty(t, compiled.Problems)
	return netpol.NetworkPolicyFor(configMap, compiled)
}

func TestOf(t *testing.T) {
	entries, notes := Of(compile(t, `{"allowedDestinations": [
		{"name": "db", "cidr": "10.1.0.0/24", "ports": [5432, {"port": 8000, "endPort": 8001}, {"port": 53, "protocol": "UDP"}]},
		{"name": "v6", "cidr": "2001:db8::/32", "ports": [443]}, {"name": "peer", "pods": {}, "ports": [80]}]}`))
	require.Empty(t, notes)
	port := func(number uint32) Port { return Port{number, fmt.Sprint("tcp-", number), "TCP"} }
	entry := func(number, cidr string, ports ...Port) ServiceEntry {
		return ServiceEntry{
			metav1.TypeMeta{APIVersion: "networking.istio.io/v1", Kind: "ServiceEntry"},
			Metadata{"web-" + number, "shop", map[string]string{"app.kubernetes.io/managed-by": "egress-agent"}},
			Spec{[]string{number + ".web.shop.egress.invalid"}, []string{cidr}, ports, "MESH_EXTERNAL", "NONE", []string{"."}},
		}
	}
	require.ElementsMatch(t, []ServiceEntry{entry("1", "2001:db8::/32", port(443)), entry("2", "10.1.0.0/24", port(5432), port(8000), port(8001))}, entries)
}

func TestOfLeavesOut(t *testing.T) {
	for _, test := range []struct{ name, document, note string }{
		{"everything", `{"defaultAction": "allow", "allowedDestinations": []}`, "it allows everything, which no ServiceEntry can say"},
		{"every port", `{"allowedDestinations": [{"name": "a", "cidr": "10.1.0.0/24"}]}`, "every port of 10.1.0.0/24: a ServiceEntry lists each port"},
		{"many ports", `{"allowedDestinations": [{"name": "a", "cidr": "10.1.0.0/24", "ports": [{"port": 1, "endPort": 1025}]}]}`, "TCP 1-1025 of 10.1.0.0/24: a ServiceEntry lists each port, and these are more than 1024"},
		{"UDP", `{"allowedDestinations": [{"name": "a", "cidr": "10.1.0.0/24", "ports": [{"port": 53, "protocol": "UDP"}]}]}`, "UDP 53 of 10.1.0.0/24: a sidecar forwards only TCP, and not the ports 15000 to 15090"},
		{"the sidecar", `{"allowedDestinations": [{"name": "a", "cidr": "10.1.0.0/24", "ports": [{"port": 15000, "endPort": 15090}]}]}`, "TCP 15000-15090 of 10.1.0.0/24: a sidecar forwards only TCP, and not the ports 15000 to 15090"},
		{"two CIDRs", `{"allowedDestinations": [{"name": "a", "cidr": "10.1.0.0/24"}, {"name": "b", "cidr": "10.3.0.0/24"}]}`, "every port of 10.1.0.0/24 and 1 more CIDRs: a ServiceEntry lists each port"},
		{"wide", `{"allowedDestinations": [{"name": "a", "cidr": "10.0.0.0/7", "ports": [443]}]}`, "10.0.0.0/7: a ServiceEntry wider than /8 takes its ports away from all other hosts of the mesh"},
	} {
		entries, notes := Of(compile(t, test.document))
		require.Empty(t, entries, test.name)
		require.Equal(t, []string{test.note}, notes, test.name)
	}
	except := compile(t, `{"allowedDestinations": [{"name": "a", "cidr": "10.1.0.0/24", "ports": [443]}]}`)
	for i := range except.Spec.Egress {
		for k := range except.Spec.Egress[i].To {
			if block := except.Spec.Egress[i].To[k].IPBlock; block != nil {
				block.Except = []string{"10.1.0.0/25"}
			}
		}
	}
	entries, notes := Of(except)
	require.Empty(t, entries)
	require.Equal(t, []string{"10.1.0.0/24: it is no plain CIDR"}, notes)
}

// TestOfIsNeverWider compares random policies with their ServiceEntries, point by point, and checks the limits of Istio.
func TestOfIsNeverWider(t *testing.T) {
	for seed := range uint64(10) {
		random := rand.New(rand.NewPCG(seed, 23))
		var destinations []string
		for i := range 1 + random.IntN(700) {
			first := 1 + random.IntN(20000)
			destinations = append(destinations, fmt.Sprintf(`{"name": "%d", "cidr": "10.%d.%d.0/24", "ports": [443, {"port": %d, "endPort": %d}]}`,
				i, random.IntN(4), random.IntN(256), first, first+random.IntN(3)*random.IntN(400)))
			if random.IntN(3) > 0 {
				destinations[i] = fmt.Sprintf(`{"name": "%d", "cidr": "10.%d.%d.0/24", "ports": [443]}`, i, random.IntN(8), random.IntN(256))
			}
		}
		networkPolicy := compile(t, `{"allowedDestinations": [`+strings.Join(destinations, ",")+`]}`)
		entries, _ := Of(networkPolicy)
		again, _ := Of(networkPolicy)
		require.Equal(t, entries, again)
		allowed := make(map[string][]networkingv1.NetworkPolicyPort)
		for _, rule := range networkPolicy.Spec.Egress {
			for _, peer := range rule.To {
				if peer.IPBlock != nil {
					allowed[peer.IPBlock.CIDR] = rule.Ports
				}
			}
		}
		hosts := make(map[string]bool)
		for _, e := range entries {
			require.Len(t, e.Spec.Hosts, 1)
			require.False(t, hosts[e.Spec.Hosts[0]])
			hosts[e.Spec.Hosts[0]] = true
			require.True(t, 0 < len(e.Spec.Addresses) && len(e.Spec.Addresses) <= 256, "no addresses would mean all addresses")
			require.True(t, 0 < len(e.Spec.Ports) && len(e.Spec.Ports) <= 256)
			for _, address := range e.Spec.Addresses {
				netip.MustParsePrefix(address)
				for _, port := range e.Spec.Ports {
					require.Equal(t, "TCP", port.Protocol)
					require.True(t, slices.ContainsFunc(allowed[address], func(p networkingv1.NetworkPolicyPort) bool {
						last := p.Port.IntVal
						if p.EndPort != nil {
							last = *p.EndPort
						}
						return *p.Protocol == corev1.ProtocolTCP && p.Port.IntVal <= int32(port.Number) && int32(port.Number) <= last
					}), "%s %d", address, port.Number)
				}
			}
		}
	}
}
