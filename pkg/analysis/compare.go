package analysis

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/internal/prefixes"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// PolicyVersion is a valid policy with the table for its services. The table may be nil. If the table lacks a service,
// the service has no addresses. A destination that has expired at Now opens nothing.
type PolicyVersion struct {
	Policy *policy.Policy
	Table  *awsranges.Table
	Now    time.Time
}

// Comparison has the differences between two versions of a policy. If two destinations of a version open the same
// address, the list has a Difference for each of the two destinations. A list without differences is empty, and not
// nil.
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
	// Ports have the form "TCP 443" or "UDP 8000-8100", or are "protocols without ports". If the list has "every port", it
	// has no other item.
	Ports []string `json:"ports"`
	// Prefixes are the addresses in the fewest CIDRs, sorted, IPv4 first. All Ports are open on every prefix. It is empty,
	// and not nil, if Difference has a Peer.
	Prefixes []netip.Prefix `json:"prefixes"`
	// Peer names the pods, the API server or the domain, whose addresses the policy does not say; empty for addresses.
	Peer string `json:"peer,omitempty"`
}

// Compare returns the differences that take effect when newVersion replaces oldVersion. It ignores addresses outside
// the cluster's family. To compare ranges, give two versions with the same policy and different tables.
func Compare(oldVersion, newVersion PolicyVersion, family netpol.Family) Comparison {
	oldEntries, newEntries := entriesOf(oldVersion, family), entriesOf(newVersion, family)
	spans := spansOf(append(slices.Clone(oldEntries), newEntries...))
	return Comparison{Opens: onlyIn(newEntries, oldEntries, spans), Closes: onlyIn(oldEntries, newEntries, spans)}
}

// entry is a destination, or defaultAction allow, with its addresses.
type entry struct {
	name, path string
	ports      []policy.Port // nil means every port
	prefixes   []netip.Prefix
	peer       string // for pods, the API server and domains
}

func entriesOf(v PolicyVersion, family netpol.Family) []entry {
	if v.Policy.DefaultAction == policy.Allow {
		everyAddress := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
		return []entry{{path: "defaultAction", prefixes: inFamily(family, everyAddress)}}
	}
	entries := make([]entry, 0, len(v.Policy.Destinations))
	for i, d := range v.Policy.Destinations {
		if d.IsExpired(v.Now) {
			continue
		}
		e := entry{name: d.Name, path: fmt.Sprintf("allowedDestinations[%d]", i), ports: d.Ports}
		switch {
		case d.Pods != nil:
			e.peer = netpol.FormatPods(*d.Pods)
		case d.Entity != "":
			e.peer = string(d.Entity)
		case d.Domain != "":
			e.peer = d.Domain
		default:
			found, _ := netpol.Resolve(d, v.Table)
			e.prefixes = inFamily(family, slices.Clone(found))
		}
		entries = append(entries, e)
	}
	return entries
}

// inFamily returns the prefixes that pods of the family can reach. It reuses the memory of its argument.
func inFamily(family netpol.Family, found []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(found, func(prefix netip.Prefix) bool { return !family.Includes(prefix) })
}

// otherProtocols are the protocols without ports, such as ICMP. An entry that opens every port opens them too.
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

// onlyIn returns the addresses and ports that the entries of one version open, and that no entry of the other version
// opens.
func onlyIn(entries, otherVersion []entry, spans []policy.Port) []Difference {
	allowed := make([][]netip.Prefix, len(spans)) // the prefixes that otherVersion opens in each span
	for i, span := range spans {
		for _, other := range otherVersion {
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
			if e.peer != "" && !opensPeer(otherVersion, e.peer, span) {
				rest = []netip.Prefix{}
			} else if len(rest) == 0 {
				continue
			}
			index := slices.IndexFunc(groups, func(g group) bool { return slices.Equal(g.prefixes, rest) })
			if index < 0 {
				index = len(groups)
				groups = append(groups, group{prefixes: rest})
			}
			groups[index].spans = append(groups[index].spans, span)
		}
		for _, g := range groups {
			differences = append(differences, Difference{e.name, e.path, portNames(g.spans, len(spans)), g.prefixes, e.peer})
		}
	}
	return differences
}

// opensPeer reports whether any of the entries opens a span of ports on a peer.
func opensPeer(entries []entry, peer string, span policy.Port) bool {
	return slices.ContainsFunc(entries, func(e entry) bool {
		isEverything := e.path == "defaultAction"
		return (e.peer == peer || isEverything) && e.opens(span)
	})
}

// portNames returns the names of the ports in spans. If spans has spanCount items, the name is "every
// port".
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
