package netpol

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/internal/policytest"
	"egress-agent/pkg/policy"
)

// compiled returns the spec of n addresses with the same ports: first, and then every second address after it.
func compiled(t *testing.T, first string, n int, ports ...policy.Port) networkingv1.NetworkPolicySpec {
	p := &policy.Policy{}
	address := netip.MustParseAddr(first)
	for i := range n {
		p.Destinations = append(p.Destinations, policy.Destination{Name: fmt.Sprint(i), CIDR: netip.PrefixFrom(address, address.BitLen()), Ports: ports})
		address = address.Next().Next()
	}
	result, problems := compile(p, nil, Options{Family: Dual, AllowDNS: true})
	require.Empty(t, problems)
	return result.Spec
}

func tcp(port uint16) policy.Port {
	return policy.Port{Protocol: policy.TCP, First: port, Last: port}
}

func TestTransition(t *testing.T) {
	const chunk = 200
	https := compiled(t, "10.0.0.0", 300, tcp(443))
	both := compiled(t, "10.0.0.0", 300, tcp(80), tcp(443))
	for _, test := range []struct {
		name             string
		current, desired networkingv1.NetworkPolicySpec
		want             []Step
	}{
		{"ports change", https, both, []Step{Widen, Narrow}},
		{"and back", both, https, []Step{Widen, Narrow}},
		{"CIDRs change", https, compiled(t, "10.0.1.0", 300, tcp(443)), []Step{Widen, Narrow}},
		{"a CIDR is dropped", https, compiled(t, "10.0.0.0", 299, tcp(443)), []Step{Narrow}},
		{"most are dropped", https, compiled(t, "10.0.0.0", 1, tcp(443)), []Step{Narrow}},
		{"a CIDR is added", https, compiled(t, "10.0.0.0", 301, tcp(443)), []Step{Replace}},
		{"it grows from small, and changes", compiled(t, "10.0.0.0", 2, tcp(80)), https, []Step{Widen, Narrow}},
		{"small", compiled(t, "10.0.0.0", 184, tcp(443)), compiled(t, "10.0.0.0", 184, tcp(80)), []Step{Replace}},
		{"with DNS's peers it may take two objects", compiled(t, "10.0.0.0", 185, tcp(443)), compiled(t, "10.0.0.0", 185, tcp(80)), []Step{Widen, Narrow}},
		{"more CIDRs than a pod's map takes", compiled(t, "10.0.0.0", 15001, tcp(443)), compiled(t, "11.0.0.0", 15001, tcp(443)), []Step{Replace}},
		{"more bytes than etcd takes", compiled(t, "2001:db8:1111:2222:3333:4444:5555:0", 13000, tcp(443)), compiled(t, "2001:db8:1111:2222:3333:4444:6666:0", 13000, tcp(443)), []Step{Replace}},
		{"as many as it takes", compiled(t, "10.0.0.0", 15000, tcp(443)), compiled(t, "11.0.0.0", 15000, tcp(443)), []Step{Widen, Narrow}},
		{"to everything", https, newSpec([]networkingv1.NetworkPolicyEgressRule{allowAllRule()}), []Step{Widen, Narrow}},
		{"from everything", newSpec([]networkingv1.NetworkPolicyEgressRule{allowAllRule()}), https, []Step{Widen, Narrow}},
		{"more slots than there are", compiled(t, "10.0.0.0", 300, everyOther(1000, 12)...), compiled(t, "10.0.0.0", 300, everyOther(3000, 11)...), []Step{Replace}},
		{"as many slots as there are", compiled(t, "10.0.0.0", 300, everyOther(1000, 11)...), compiled(t, "10.0.0.0", 300, everyOther(3000, 11)...), []Step{Widen, Narrow}},
	} {
		t.Run(test.name, func(t *testing.T) {
			current := test.current
			for i, want := range test.want {
				step, write := Transition(current, test.desired, chunk, Options{AllowDNS: true, MaxPortSlots: DefaultPortSlots})
				require.Equal(t, want, step)
				if i < len(test.want)-1 {
					require.NotEqual(t, test.desired, write)
				}
				current = write
			}
			require.Equal(t, test.desired, current)
			step, write := Transition(current, test.desired, chunk, Options{AllowDNS: true, MaxPortSlots: DefaultPortSlots})
			require.Equal(t, Replace, step, "nothing is left to do")
			require.Equal(t, test.desired, write)
		})
	}
}

// TestTransitionUnion compares the three specs of random transitions. The union must allow exactly the connections that
// the current or the desired spec allows.
func TestTransitionUnion(t *testing.T) {
	table := testTable(t)
	widened := 0
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		currentPolicy, desiredPolicy := policytest.RandomPolicy(random), policytest.RandomPolicy(random)
		current, problems := compile(currentPolicy, table, Options{Family: Dual})
		require.Empty(t, problems)
		desired, problems := compile(desiredPolicy, table, Options{Family: Dual})
		require.Empty(t, problems)
		step, union := Transition(current.Spec, desired.Spec, 0, Options{})
		if step != Widen {
			continue
		}
		widened++
		currentBlocks, desiredBlocks, unionBlocks := policytest.BlocksOf(current.Spec), policytest.BlocksOf(desired.Spec), policytest.BlocksOf(union)
		_, slots := SlotsOf(union).Max(union)
		for _, address := range append(policytest.ProbeAddresses(currentPolicy, table, random), policytest.ProbeAddresses(desiredPolicy, table, random)...) {
			for _, protocol := range []policy.Protocol{policy.TCP, policy.UDP, "ICMP"} {
				for _, port := range []uint16{1, 53, 80, 443, 444, 450} {
					want := policytest.Allows(currentBlocks, address, protocol, port) || policytest.Allows(desiredBlocks, address, protocol, port)
					require.Equal(t, want, policytest.Allows(unionBlocks, address, protocol, port))
					if slots+DNSSlots <= DefaultPortSlots {
						require.Equal(t, want, enforces(unionBlocks, address, protocol, port))
					}
				}
			}
		}
		step, last := Transition(union, desired.Spec, 0, Options{})
		require.Equal(t, Narrow, step)
		require.Equal(t, desired.Spec, last)
	}
	require.Greater(t, widened, 50)
}

// TestTransitionUnionWithEverything merges a rule for every port with a rule for every port and peer.
func TestTransitionUnionWithEverything(t *testing.T) {
	cidrs, everything := compiled(t, "10.0.0.0", 300), newSpec([]networkingv1.NetworkPolicyEgressRule{allowAllRule()})
	for _, change := range [][2]networkingv1.NetworkPolicySpec{{cidrs, everything}, {everything, cidrs}} {
		step, union := Transition(change[0], change[1], 200, Options{AllowDNS: true, MaxPortSlots: DefaultPortSlots})
		require.Equal(t, Widen, step)
		require.Contains(t, union.Egress, allowAllRule())
	}
}
