package netpol

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/policy"
)

// everyOther returns n TCP ports that do not merge into a range.
func everyOther(first, n int) []policy.Port {
	var ports []policy.Port
	for i := range n {
		port := uint16(first + 2*i)
		ports = append(ports, policy.Port{Protocol: policy.TCP, First: port, Last: port})
	}
	return ports
}

func TestPortSlots(t *testing.T) {
	destination := func(name, cidr string, ports []policy.Port) policy.Destination {
		return policy.Destination{Name: name, CIDR: netip.MustParsePrefix(cidr), Ports: ports}
	}
	for _, test := range []struct {
		name         string
		destinations []policy.Destination
		options      Options
		want         string
	}{
		{"as many as there are", []policy.Destination{destination("a", "10.0.0.0/24", everyOther(1000, 22))}, Options{AllowDNS: true, MaxPortSlots: 24}, ""},
		{"one more", []policy.Destination{destination("a", "10.0.0.0/24", everyOther(1000, 23))}, Options{AllowDNS: true, MaxPortSlots: 24},
			"Too many ports: 10.0.0.0/24 has 23 ports and port ranges, and DNS takes 2; AWS VPC CNI enforces at most 24 for a CIDR: merge or remove ports of a (allowedDestinations)"},
		{"without DNS", []policy.Destination{destination("a", "10.0.0.0/24", everyOther(1000, 24))}, Options{MaxPortSlots: 24}, ""},
		{"without DNS, one more", []policy.Destination{destination("a", "10.0.0.0/24", everyOther(1000, 25))}, Options{MaxPortSlots: 24},
			"Too many ports: 10.0.0.0/24 has 25 ports and port ranges; AWS VPC CNI enforces at most 24 for a CIDR: merge or remove ports of a (allowedDestinations)"},
		{"no limit", []policy.Destination{destination("a", "10.0.0.0/24", everyOther(1000, 900))}, Options{AllowDNS: true}, ""},
		{"joined", []policy.Destination{destination("a", "10.0.0.0/24", append(everyOther(1000, 20), everyOther(1001, 20)...))}, Options{AllowDNS: true, MaxPortSlots: 3}, ""},
		{"inherited", []policy.Destination{
			destination("net", "10.0.0.0/8", everyOther(1000, 12)), destination("host", "10.1.2.3/32", everyOther(3000, 11)), destination("other", "10.9.0.0/16", everyOther(5000, 5)),
		}, Options{AllowDNS: true, MaxPortSlots: 24},
			"Too many ports: 10.1.2.3/32 has 23 ports and port ranges, and DNS takes 2; AWS VPC CNI enforces at most 24 for a CIDR: merge or remove ports of net, host (allowedDestinations)"},
		{"each combination of entries once", []policy.Destination{
			destination("net", "10.0.0.0/8", everyOther(1000, 12)), destination("a", "10.1.2.3/32", everyOther(3000, 11)), destination("b", "10.1.2.5/32", everyOther(3000, 12)),
		}, Options{AllowDNS: true, MaxPortSlots: 24},
			"Too many ports: 10.1.2.5/32 has 24 ports and port ranges, and DNS takes 2; AWS VPC CNI enforces at most 24 for a CIDR: merge or remove ports of net, b (allowedDestinations); " +
				"Too many ports: 10.1.2.3/32 has 23 ports and port ranges, and DNS takes 2; AWS VPC CNI enforces at most 24 for a CIDR: merge or remove ports of net, a (allowedDestinations)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			result, problems := compile(&policy.Policy{Destinations: test.destinations}, nil, test.options)
			if test.want == "" {
				require.Empty(t, problems)
				require.NotNil(t, result)
				return
			}
			require.Nil(t, result)
			require.Equal(t, "Policy validation failed: "+test.want, problems.Error())
		})
	}
}

// TestPortSlotMessageStaysShort compiles as many CIDRs with too many ports, and as many destinations that open them, as
// a ConfigMap can have.
func TestPortSlotMessageStaysShort(t *testing.T) {
	p := &policy.Policy{Destinations: []policy.Destination{{Name: "net", CIDR: netip.MustParsePrefix("10.0.0.0/8"), Ports: everyOther(1000, 22)}}}
	for i := range 15000 {
		address := netip.AddrFrom4([4]byte{10, byte(i >> 15), byte(i >> 7), byte(i << 1)})
		p.Destinations = append(p.Destinations, policy.Destination{Name: fmt.Sprint(i), CIDR: netip.PrefixFrom(address, 32), Ports: everyOther(5000, 1)})
	}
	_, problems := compile(p, nil, Options{AllowDNS: true, MaxPortSlots: DefaultPortSlots})
	require.Len(t, problems, 100)
	for i := range p.Destinations {
		p.Destinations[i].CIDR, p.Destinations[i].Ports = netip.MustParsePrefix("10.0.0.0/8"), everyOther(1000+2*i, 1)
	}
	_, problems = compile(p, nil, Options{AllowDNS: true, MaxPortSlots: DefaultPortSlots})
	require.Equal(t, "Policy validation failed: Too many ports: 10.0.0.0/8 has 15001 ports and port ranges, and DNS takes 2; AWS VPC CNI enforces at most 24 for a CIDR: "+
		"merge or remove ports of net, 0, 1, 2, 3, 4, 5, 6, 7, 8, 14991 more (allowedDestinations)", problems.Error())
}

// TestNestedCIDRsTakeLinearTime compiles as many ports as a ConfigMap can have, on a CIDR that contains as many nested
// CIDRs. If time or memory grew with the square of the size, the test would time out.
func TestNestedCIDRsTakeLinearTime(t *testing.T) {
	p := &policy.Policy{Destinations: []policy.Destination{{Name: "net", CIDR: netip.MustParsePrefix("10.0.0.0/8"), Ports: everyOther(1, 20000)}}}
	for i := range 6000 {
		address := netip.AddrFrom4([4]byte{10, byte(i >> 14), byte(i >> 6), byte(i << 2)})
		p.Destinations = append(p.Destinations,
			policy.Destination{Name: fmt.Sprint("outer", i), CIDR: netip.PrefixFrom(address, 31), Ports: everyOther(40002+2*i, 1)},
			policy.Destination{Name: fmt.Sprint("inner", i), CIDR: netip.PrefixFrom(address, 32), Ports: everyOther(52004+2*i, 1)})
	}
	result, problems := compile(p, nil, Options{})
	require.Empty(t, problems)
	require.Len(t, result.Spec.Egress, 12001)
}

func TestPeerLimits(t *testing.T) {
	for _, test := range []struct {
		n                 int
		warnings, problem string
	}{
		{1000, "", ""},
		{1001, "the policy has 1001 CIDRs; the dataplane updates more than 1000 in several steps: big has 991, b has 5, 1 more (allowedDestinations)", ""},
		{30000, "the policy has 30000 CIDRs; the dataplane updates more than 1000 in several steps: big has 29990, b has 5, 1 more (allowedDestinations)", ""},
		{30001, "", "Too many CIDRs: 30001; at most 30000 fit in the dataplane, which holds old and new CIDRs during an update: big has 29991, b has 5, 1 more (allowedDestinations)"},
	} {
		counts := []Count{{"b", 5}, {"big", test.n - 10}, {"c", 5}}
		var warnings policy.Warnings
		warnOfPeers(test.n, counts, &warnings)
		problems := peerProblems(test.n, counts)
		require.Equal(t, test.warnings, strings.TrimSpace(strings.Join(lines(warnings.List()), "")), test.n)
		require.Equal(t, test.problem, strings.TrimSpace(strings.Join(lines(problems), "")), test.n)
	}
}

// TestTooManyPeers compiles a policy with too many CIDRs that cannot merge.
func TestTooManyPeers(t *testing.T) {
	p := &policy.Policy{}
	for i := range maxPeers + 1 {
		address := netip.AddrFrom4([4]byte{10, byte(i >> 15), byte(i >> 7), byte(i << 1)})
		p.Destinations = append(p.Destinations, policy.Destination{Name: fmt.Sprint(i), CIDR: netip.PrefixFrom(address, 32)})
	}
	result, problems := compile(p, nil, Options{})
	require.Nil(t, result)
	require.Contains(t, problems.Error(), "Too many CIDRs: 30001")
	p.Destinations = p.Destinations[1:]
	result, problems = compile(p, nil, Options{})
	require.Empty(t, problems)
	require.Len(t, result.Spec.Egress[0].To, maxPeers)
}

// TestSharedLimitProblemsAddsUpSpecs checks specs that are within the limits alone, but not together.
func TestSharedLimitProblemsAddsUpSpecs(t *testing.T) {
	specOf := func(cidr string, ports []policy.Port) networkingv1.NetworkPolicySpec {
		p := &policy.Policy{Destinations: []policy.Destination{{Name: "x", CIDR: netip.MustParsePrefix(cidr), Ports: ports}}}
		result, problems := compile(p, nil, Options{AllowDNS: true})
		require.Empty(t, problems)
		return result.Spec
	}
	list := func(specs ...networkingv1.NetworkPolicySpec) []networkingv1.NetworkPolicySpec { return specs }
	wide, host := specOf("10.0.0.0/8", everyOther(1000, 12)), specOf("10.1.2.3/32", everyOther(3000, 11))
	limited := func(slots int, dns bool) Options { return Options{AllowDNS: dns, MaxPortSlots: slots} }
	const tooManyPorts = "Policy validation failed: Too many ports: 10.1.2.3/32 has 23 ports and port ranges, and DNS takes 2; AWS VPC CNI enforces at most 24 for a CIDR: " +
		"merge or remove ports of this or the namespace's other policies, which apply to the same pods (allowedDestinations)"
	for _, test := range []struct {
		name    string
		spec    networkingv1.NetworkPolicySpec
		others  []networkingv1.NetworkPolicySpec
		options Options
		want    string
	}{
		{"a CIDR inside another policy's CIDR", host, list(wide), limited(24, true), tooManyPorts},
		{"a CIDR around another policy's CIDR", wide, list(host), limited(24, true), tooManyPorts},
		{"a CIDR elsewhere", specOf("192.0.2.0/24", everyOther(1, 2)), list(wide, host), limited(24, true), ""},
		{"beside the CIDR with too many ports", specOf("10.1.2.4/32", everyOther(1, 2)), list(wide, host), limited(24, true), ""},
		{"a higher limit", host, list(wide), limited(25, true), ""},
		{"without DNS", host, list(wide), limited(24, false), ""},
		{"no limit", host, list(wide), limited(0, true), ""},
		{"equal ports take one slot", wide, list(specOf("10.1.2.3/32", everyOther(1000, 12))), limited(14, true), ""},
		{"as many CIDRs as fit", compiled(t, "10.0.0.0", 15000, tcp(1)), list(compiled(t, "11.0.0.0", 15000, tcp(1))), limited(24, true), ""},
		{"the same CIDRs", compiled(t, "10.0.0.0", 20000, tcp(1)), list(compiled(t, "10.0.0.0", 20000, tcp(2))), limited(24, true), ""},
		{"one CIDR too many", compiled(t, "10.0.0.0", 15000, tcp(1)), list(compiled(t, "11.0.0.0", 15001, tcp(1))), limited(24, true),
			"Policy validation failed: Too many CIDRs: 30001 together with the namespace's other policies, which apply to the same pods; at most 30000 fit in the dataplane, which holds old and new CIDRs during an update (allowedDestinations)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			problems := SharedLimitProblems(test.spec, test.others, test.options)
			cidrs, ports := 0, make(map[PortKey]bool)
			for _, spec := range append(test.others, test.spec) {
				usage := UsageOf(spec)
				cidrs += usage.CIDRs
				for _, port := range usage.Ports {
					ports[port] = true
				}
			}
			if test.want == "" {
				require.Empty(t, problems)
				return
			}
			require.Equal(t, test.want, problems.Error())
			require.True(t, test.options.MayExceed(cidrs, len(ports)), "MayExceed must report a policy that SharedLimitProblems refuses")
		})
	}
	require.Nil(t, SharedCIDRProblems(60000))
	require.NotNil(t, SharedCIDRProblems(60001))
}

// TestTooManyRanges checks the bound on the ports of all rules together, which needs no limit of port slots. With such
// a limit, the message names the destination with too many ports.
func TestTooManyRanges(t *testing.T) {
	p := &policy.Policy{}
	for i := range 40 {
		address := netip.AddrFrom4([4]byte{10, 0, byte(i), 0})
		p.Destinations = append(p.Destinations, policy.Destination{Name: fmt.Sprint(i), CIDR: netip.PrefixFrom(address, 24), Ports: everyOther(1+2*i, 1000)})
	}
	result, problems := compile(p, nil, Options{})
	require.Nil(t, result)
	require.Equal(t, "Policy validation failed: Too many ports: over all CIDRs there are more than 32768 ports and port ranges; merge or remove some (allowedDestinations)", problems.Error())
	_, problems = compile(p, nil, Options{MaxPortSlots: DefaultPortSlots})
	require.Len(t, problems, len(p.Destinations))
	require.Equal(t, "Too many ports: 0 has 1000 ports and port ranges; AWS VPC CNI enforces at most 24 for a CIDR: merge or remove ports of 0 (allowedDestinations)", problems[0].String())
	p.Destinations = p.Destinations[:32]
	result, problems = compile(p, nil, Options{})
	require.Empty(t, problems)
	require.Len(t, result.Spec.Egress, 32)
}
