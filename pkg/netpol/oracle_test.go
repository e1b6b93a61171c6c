package netpol

import (
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/internal/policytest"
	"egress-agent/pkg/internal/prefixes"
	"egress-agent/pkg/policy"
)

// checkCompile compares the connections that the NetworkPolicy allows, as Kubernetes defines it, with a naive reading
// of the policy. It also checks that the NetworkPolicy has no duplicates, and nothing that could merge.
func checkCompile(t *testing.T, p *policy.Policy, table *awsranges.Table, family Family, random *rand.Rand) {
	t.Helper()
	options := Options{Family: family}
	compiled, problems := compile(p, table, options)
	require.Empty(t, problems, "without a limit, every policy compiles")
	checkShape(t, compiled.Spec)
	checkSlots(t, compiled.Spec, p, table, family)
	blocks := policytest.BlocksOf(compiled.Spec)
	_, tooMany := compile(p, table, Options{Family: family, MaxPortSlots: DefaultPortSlots})
	for _, address := range policytest.ProbeAddresses(p, table, random) {
		for _, protocol := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP} {
			for _, port := range []uint16{1, 52, 53, 54, 79, 80, 81, 442, 443, 444, 445, 450, 451, 1001, 1019, 1119, 65535} {
				want := policyAllows(p, table, family, address, protocol, port)
				// A run has a million comparisons, and require is slow.
				if got := policytest.Allows(blocks, address, protocol, port); got != want {
					require.Equal(t, want, got, "%s %s/%d under %+v", address, protocol, port, p.Destinations)
				}
				if tooMany == nil && want != enforces(blocks, address, protocol, port) {
					require.Fail(t, "the dataplane differs", "%s %s/%d under %+v", address, protocol, port, p.Destinations)
				}
			}
		}
		want, got := policyAllows(p, table, family, address, "ICMP", 0), policytest.Allows(blocks, address, "ICMP", 0)
		require.Equal(t, want, got, "%s ICMP", address)
	}
	shuffled := *p
	shuffled.Destinations = slices.Clone(p.Destinations)
	random.Shuffle(len(shuffled.Destinations), func(i, j int) {
		shuffled.Destinations[i], shuffled.Destinations[j] = shuffled.Destinations[j], shuffled.Destinations[i]
	})
	again, problems := compile(&shuffled, table, options)
	require.Empty(t, problems)
	require.Equal(t, compiled.Spec, again.Spec, "the order of destinations does not matter")
}

// checkShape checks the properties that every compiled spec must have.
func checkShape(t *testing.T, spec networkingv1.NetworkPolicySpec) {
	t.Helper()
	require.Equal(t, []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}, spec.PolicyTypes)
	seenCIDRs, seenPorts := make(map[string]string), make(map[string]bool)
	for _, rule := range spec.Egress {
		require.NotEmpty(t, rule.To, "a rule without peers opens everything")
		require.NotEqual(t, []networkingv1.NetworkPolicyPort{}, rule.Ports, "empty, but not nil")
		ports, err := json.Marshal(rule.Ports)
		require.NoError(t, err)
		require.False(t, seenPorts[string(ports)], "two rules with ports %s", ports)
		seenPorts[string(ports)] = true
		for i, port := range rule.Ports[:max(len(rule.Ports)-1, 0)] {
			next := rule.Ports[i+1]
			require.False(t, *port.Protocol == *next.Protocol && next.Port.IntVal <= policytest.LastPort(port)+1, "ports %s can merge", ports)
		}
		var previous netip.Prefix
		for _, peer := range rule.To {
			prefix := netip.MustParsePrefix(peer.IPBlock.CIDR)
			require.Empty(t, peer.IPBlock.Except)
			require.Equal(t, prefix.Masked().String(), peer.IPBlock.CIDR)
			require.True(t, !previous.IsValid() || prefixes.Compare(previous, prefix) < 0, "peers are sorted")
			require.Empty(t, seenCIDRs[peer.IPBlock.CIDR], "a CIDR twice")
			seenCIDRs[peer.IPBlock.CIDR] = string(ports)
			previous = prefix
		}
	}
	for cidr, ports := range seenCIDRs {
		if prefix := netip.MustParsePrefix(cidr); prefix.Bits() > 0 {
			parent := netip.PrefixFrom(prefix.Addr(), prefix.Bits()-1).Masked()
			sibling := prefixes.Subtract([]netip.Prefix{parent}, []netip.Prefix{prefix})[0]
			require.NotEqual(t, ports, seenCIDRs[sibling.String()], "%s and its sibling have equal ports", cidr)
		}
	}
}

// policyAllows reports whether a policy allows a connection. It reads the policy and the table row by row, without
// aggregation and merging.
func policyAllows(p *policy.Policy, table *awsranges.Table, family Family, address netip.Addr, protocol policy.Protocol, port uint16) bool {
	if family == IPv4 && !address.Is4() || family == IPv6 && !address.Is6() {
		return false
	}
	for _, d := range p.Destinations {
		opens := d.Ports == nil || slices.ContainsFunc(d.Ports, func(opened policy.Port) bool {
			return opened.Protocol == protocol && opened.First <= port && port <= opened.Last
		})
		if !opens {
			continue
		}
		if !containsAny(d.Except, address) && (d.CIDR.Contains(address) || serviceHas(d, table, address)) {
			return true
		}
	}
	return false
}

func containsAny(prefixes []netip.Prefix, address netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(prefix netip.Prefix) bool { return prefix.Contains(address) })
}

// serviceHas reports whether the most specific row of an address, among those of the service and those of the left-out
// services, is one of the service. A left-out service wins against an equal row.
func serviceHas(d policy.Destination, table *awsranges.Table, address netip.Addr) bool {
	best, isOwn := -1, false
	for _, row := range table.Rows() {
		isOther := slices.Contains(d.Without, row.Service)
		isCandidate := d.Service == row.Service && (d.Regions == nil || slices.Contains(d.Regions, row.Region))
		if !row.Prefix.Contains(address) || !isOther && !isCandidate || row.Prefix.Bits() < best {
			continue
		}
		if row.Prefix.Bits() > best {
			best, isOwn = row.Prefix.Bits(), true
		}
		isOwn = isOwn && !isOther
	}
	return isOwn && best >= 0
}

// enforces reports whether AWS VPC CNI's node agent would allow a connection. The node agent has one entry for each
// CIDR in a longest-prefix map. An entry has 24 slots for the distinct ports of its CIDR and of every CIDR that
// contains it. If there are more ports, the node agent takes 24 of them at random, and enforces takes the first 24.
func enforces(blocks []policytest.Block, address netip.Addr, protocol policy.Protocol, port uint16) bool {
	type slot struct {
		protocol    string
		first, last int32
	}
	longest := -1
	for _, b := range blocks {
		if b.Contains(address) {
			longest = max(longest, b.Prefix.Bits())
		}
	}
	var slots []slot
	for _, b := range blocks {
		if !b.Contains(address) || b.Prefix.Bits() > longest {
			continue
		}
		if len(b.Ports) == 0 {
			slots = append(slots, slot{string(protocol), 0, 65535})
		}
		for _, opened := range b.Ports {
			if s := (slot{string(*opened.Protocol), opened.Port.IntVal, policytest.LastPort(opened)}); !slices.Contains(slots, s) {
				slots = append(slots, s)
			}
		}
	}
	return slices.ContainsFunc(slots[:min(len(slots), DefaultPortSlots)], func(s slot) bool {
		return s.protocol == string(protocol) && s.first <= int32(port) && int32(port) <= s.last
	})
}

// checkSlots counts the port slots that the dataplane needs for each CIDR. compile must accept the policy if the
// limit is that number, and refuse it if the limit is lower.
func checkSlots(t *testing.T, spec networkingv1.NetworkPolicySpec, p *policy.Policy, table *awsranges.Table, family Family) {
	t.Helper()
	maxSlots := 0
	for _, inner := range policytest.BlocksOf(spec) {
		slots := 0
		for _, outer := range policytest.BlocksOf(spec) {
			if outer.Prefix.Bits() <= inner.Prefix.Bits() && outer.Contains(inner.Prefix.Addr()) {
				slots += max(len(outer.Ports), 1)
			}
		}
		maxSlots = max(maxSlots, slots)
	}
	for _, allowDNS := range []bool{false, true} {
		limit := maxSlots
		if allowDNS {
			limit += 2
		}
		if limit > 0 {
			_, problems := compile(p, table, Options{Family: family, AllowDNS: allowDNS, MaxPortSlots: limit})
			require.Empty(t, problems, "%d slots are enough", limit)
		}
		if limit > 1 && maxSlots > 0 {
			_, problems := compile(p, table, Options{Family: family, AllowDNS: allowDNS, MaxPortSlots: limit - 1})
			require.NotEmpty(t, problems, "%d slots are not enough", limit-1)
		}
	}
}
