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

// PolicyVersion is a valid policy with the table that its services are looked up in. The table may be nil: a
// service that it does not know stands for no address.
type PolicyVersion struct {
	Policy *policy.Policy
	Table  *awsranges.Table
}

// Comparison is what a version opens and closes that takes the place of another.
type Comparison struct {
	// Opens are the new version's entries to blame, in its order; Closes are those of the old one. Two
	// entries that open the same are both there. Empty, and not nil, for none.
	Opens  []Difference `json:"opens"`
	Closes []Difference `json:"closes"`
}

// Difference is what one entry allows that the other version does not, with all its entries together.
type Difference struct {
	// Name and Path are the entry's; Name is empty for defaultAction.
	Name string `json:"name,omitempty"`
	Path string `json:"path"`
	// Ports are as "TCP 443", "UDP 8000-8100", or "every port", which stands alone.
	Ports []string `json:"ports"`
	// Prefixes are the addresses, in the fewest CIDRs, sorted, IPv4 first; each is open to all of Ports.
	Prefixes []netip.Prefix `json:"prefixes"`
}

// Compare says which addresses and ports a version opens and closes that takes the place of another, in the
// cluster's family. Of one policy by two tables, it is what other ranges open and close.
func Compare(before, after PolicyVersion, family netpol.Family) Comparison {
	old, recent := entriesOf(before, family), entriesOf(after, family)
	spans := spansOf(append(slices.Clone(old), recent...))
	return Comparison{Opens: notIn(recent, old, spans), Closes: notIn(old, recent, spans)}
}

// entry is a destination, or defaultAction, with the addresses it stands for.
type entry struct {
	name, path string
	ports      []policy.Port // nil is every port
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

// inFamily returns the prefixes that pods of the family can reach. It writes over the slice.
func inFamily(family netpol.Family, all []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(all, func(prefix netip.Prefix) bool { return !family.Includes(prefix) })
}

// otherProtocols stands for the protocols without ports, which an entry without ports opens too.
const otherProtocols policy.Protocol = ""

// spansOf cuts all ports, of each protocol, where an entry's begin or end, so that an entry opens all of a
// span or nothing of it:
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

// opens says whether an entry opens a span.
func (e entry) opens(span policy.Port) bool {
	return e.ports == nil || slices.ContainsFunc(e.ports, func(p policy.Port) bool {
		return p.Protocol == span.Protocol && p.First <= span.First && span.Last <= p.Last
	})
}

// notIn returns what each entry opens that none of the others does.
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
	openings := []Difference{}
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
			openings = append(openings, Difference{e.name, e.path, portNames(g.spans, len(spans)), g.prefixes})
		}
	}
	return openings
}

// portNames names spans, of as many as there are.
func portNames(spans []policy.Port, all int) []string {
	if len(spans) == all {
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
