package analysis

import (
	"fmt"
	"math"
	"net/netip"
	"slices"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/internal/prefixes"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// PolicyVersion is a valid policy with the table for its services. The table may be nil. If the table lacks a service,
// the service has no addresses.
type PolicyVersion struct {
	Policy *policy.Policy
	Table  *awsranges.Table
}

// Comparison has the differences between two versions of a policy. If two destinations of a version open the same
// address, the list has a Difference for each of the two. Both lists are empty, and not nil, without differences.
type Comparison struct {
	// Opens are the differences of the new version's destinations, in the new version's order.
	Opens []Difference `json:"opens"`
	// Closes are the differences of the old version's destinations, in the old version's order.
	Closes []Difference `json:"closes"`
}

// Difference has the addresses and ports that one destination allows and the other version does not allow.
type Difference struct {
	// Name and Path identify the destination. Name is empty for defaultAction.
	Name string `json:"name,omitempty"`
	Path string `json:"path"`
	// Ports have the form "TCP 443" or "UDP 8000-8100"; or the only item is "every port".
	Ports []string `json:"ports"`
	// Prefixes are the addresses in the fewest CIDRs, sorted, IPv4 first. All Ports are open on every prefix.
	Prefixes []netip.Prefix `json:"prefixes"`
}

// Compare returns the differences that take effect when the version after replaces the version before. It ignores
// addresses outside the cluster's family. To compare ranges, give two versions with the same policy and two tables.
func Compare(before, after PolicyVersion, family netpol.Family) Comparison {
	old, recent := entriesOf(before, family), entriesOf(after, family)
	spans := spansOf(append(slices.Clone(old), recent...))
	return Comparison{Opens: notIn(recent, old, spans), Closes: notIn(old, recent, spans)}
}

// entry is a destination, or defaultAction allow, with its addresses.
type entry struct {
	name, path string
	ports      []policy.Port // nil means every port
	prefixes   []netip.Prefix
}

func entriesOf(v PolicyVersion, family netpol.Family) []entry {
	if v.Policy.DefaultAction == policy.Allow {
		everywhere := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
		return []entry{{path: "defaultAction", prefixes: inFamily(family, everywhere)}}
	}
	entries := make([]entry, 0, len(v.Policy.Destinations))
	for i, d := range v.Policy.Destinations {
		all, _ := netpol.Resolve(d, v.Table)
		entries = append(entries, entry{d.Name, fmt.Sprintf("allowedDestinations[%d]", i), d.Ports, inFamily(family, slices.Clone(all))})
	}
	return entries
}

// inFamily returns the prefixes that pods of the family can reach. It works in place.
func inFamily(family netpol.Family, all []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(all, func(prefix netip.Prefix) bool { return !family.Includes(prefix) })
}

// otherProtocols are the protocols without ports. An entry without ports opens them with every port.
const otherProtocols policy.Protocol = prefixes.OtherProtocols

// spansOf splits the ports of each protocol at the first and last port of every range. An entry then opens a span
// completely or not at all:
//
//	443         ├┤
//	400-500  ├──────┤
//	spans  ├─┼──┼┼──┼──────┤
func spansOf(entries []entry) []policy.Port {
	spans := []policy.Port{{Protocol: otherProtocols}}
	for _, protocol := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP} {
		firsts := []int{1}
		for _, e := range entries {
			for _, p := range e.ports {
				if p.Protocol == protocol {
					firsts = append(firsts, int(p.First), int(p.Last)+1)
				}
			}
		}
		slices.Sort(firsts)
		firsts = slices.Compact(firsts)
		if firsts[len(firsts)-1] <= math.MaxUint16 {
			firsts = append(firsts, math.MaxUint16+1)
		}
		for i, first := range firsts[:len(firsts)-1] {
			spans = append(spans, policy.Port{Protocol: protocol, First: uint16(first), Last: uint16(firsts[i+1] - 1)})
		}
	}
	return spans
}

// opens reports whether an entry opens a span.
func (e entry) opens(span policy.Port) bool {
	return e.ports == nil || slices.ContainsFunc(e.ports, func(p policy.Port) bool {
		return p.Protocol == span.Protocol && p.First <= span.First && span.Last <= p.Last
	})
}

// notIn returns the differences of the entries: the addresses and ports that an entry opens and no other entry opens.
func notIn(entries, others []entry, spans []policy.Port) []Difference {
	allowed := make([][]netip.Prefix, len(spans)) // by the others
	for i, span := range spans {
		for _, other := range others {
			if other.opens(span) {
				allowed[i] = append(allowed[i], other.prefixes...)
			}
		}
		allowed[i] = prefixes.Aggregate(allowed[i])
	}
	differences := []Difference{}
	for _, e := range entries {
		type group struct {
			prefixes []netip.Prefix
			spans    []policy.Port
		}
		var groups []group
		for i, span := range spans {
			if !e.opens(span) {
				continue
			}
			rest := prefixes.Subtract(e.prefixes, allowed[i])
			if len(rest) == 0 {
				continue
			}
			same := slices.IndexFunc(groups, func(g group) bool { return slices.Equal(g.prefixes, rest) })
			if same < 0 {
				same = len(groups)
				groups = append(groups, group{prefixes: rest})
			}
			groups[same].spans = append(groups[same].spans, span)
		}
		for _, g := range groups {
			differences = append(differences, Difference{e.name, e.path, portNames(g.spans, len(spans)), g.prefixes})
		}
	}
	return differences
}

// portNames returns the names of the ports in spans. spanCount is the number of spans that every port has.
func portNames(spans []policy.Port, spanCount int) []string {
	if len(spans) == spanCount {
		return []string{"every port"}
	}
	var names []string
	if spans[0].Protocol == otherProtocols {
		names, spans = []string{"protocols without ports"}, spans[1:]
	}
	ranges := make([]prefixes.PortRange, len(spans))
	for i, span := range spans {
		ranges[i] = prefixes.PortRange{Protocol: string(span.Protocol), First: span.First, Last: span.Last}
	}
	for _, r := range prefixes.MergePorts(ranges) {
		names = append(names, policy.Port{Protocol: policy.Protocol(r.Protocol), First: r.First, Last: r.Last}.String())
	}
	return names
}
