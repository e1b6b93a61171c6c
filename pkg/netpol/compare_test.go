package netpol

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"egress-agent/pkg/policy"
)

// TestCompareProperty asks random pairs of policies, address for address and port for port: what is opened is
// what Explain allows afterwards and not before, and each entry to blame allows it by itself.
func TestCompareProperty(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	number := func(n int) uint16 { return uint16(1 + random.IntN(n)) }
	some := func() *policy.Policy {
		p := &policy.Policy{DefaultAction: policy.Deny}
		if random.IntN(10) == 0 {
			p.DefaultAction = policy.Allow
		}
		for i := range random.IntN(4) {
			d := policy.Destination{Name: fmt.Sprint(i), CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(random.IntN(16))}), 28+random.IntN(5)).Masked()}
			for range random.IntN(3) {
				first := number(6)
				d.Ports = append(d.Ports, policy.Port{Protocol: []policy.Protocol{policy.TCP, policy.UDP}[random.IntN(2)], First: first, Last: first + number(3) - 1})
			}
			p.Destinations = append(p.Destinations, d)
		}
		return p
	}
	allows := func(p *policy.Policy, target Target) bool {
		return Explain(p, nil, Options{Family: IPv4}, target).Allowed
	}
	for range 200 {
		before, after := some(), some()
		comparison := Compare(before, after, nil, IPv4)
		for address := range byte(17) {
			for port := range uint16(9) {
				for _, protocol := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP} {
					target := Target{netip.AddrFrom4([4]byte{10, 0, 0, address}), port + 1, protocol}
					was, is := allows(before, target), allows(after, target)
					require.Equal(t, is && !was, inOpenings(comparison.Opens, target), "%s: %+v to %+v: %+v", target, before, after, comparison)
					require.Equal(t, was && !is, inOpenings(comparison.Closes, target), "%s: %+v to %+v: %+v", target, before, after, comparison)
				}
			}
		}
	}
}

// inOpenings reads openings as a person does.
func inOpenings(openings []Opening, target Target) bool {
	return slices.ContainsFunc(openings, func(o Opening) bool {
		return slices.ContainsFunc(o.Prefixes, func(p netip.Prefix) bool { return p.Contains(target.Address) }) &&
			slices.ContainsFunc(o.Ports, func(ports string) bool {
				var protocol string
				var first, last uint16
				if ports == "every port" {
					return true
				}
				if n, _ := fmt.Sscanf(ports, "%s %d-%d", &protocol, &first, &last); n == 2 {
					last = first
				}
				return protocol == string(target.Protocol) && first <= target.Port && target.Port <= last
			})
	})
}

func TestCompareEveryPort(t *testing.T) {
	cidr := netip.MustParsePrefix("10.0.0.0/24")
	https := &policy.Policy{Destinations: []policy.Destination{{Name: "web", CIDR: cidr, Ports: []policy.Port{{Protocol: policy.TCP, First: 443, Last: 443}}}}}
	every := &policy.Policy{Destinations: []policy.Destination{{Name: "all", CIDR: cidr}}}
	require.Equal(t, Comparison{
		Opens: []Opening{{"all", "allowedDestinations[0]",
			[]string{"protocols without ports", "SCTP 1-65535", "TCP 1-442", "TCP 444-65535", "UDP 1-65535"}, []netip.Prefix{cidr}}},
		Closes: []Opening{},
	}, Compare(https, every, nil, IPv4))
	require.Equal(t, Comparison{
		Opens: []Opening{}, Closes: []Opening{{"all", "allowedDestinations[0]", []string{"every port"}, []netip.Prefix{cidr}}},
	}, Compare(every, &policy.Policy{}, nil, IPv4))
}
