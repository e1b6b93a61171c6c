package prefixes

import (
	"cmp"
	"math"
	"slices"
	"strings"
)

// OtherProtocols, as the Protocol of a PortRange, stands for all protocols without ports, such as ICMP. Its only range
// is the zero PortRange. A NetworkPolicy opens these protocols only together with every port.
const OtherProtocols = ""

// PortRange is a range of ports of one protocol, First and Last included.
type PortRange struct {
	Protocol    string // as Kubernetes names it: TCP, UDP or SCTP; or OtherProtocols
	First, Last uint16 // 1 ≤ First ≤ Last; both 0 for OtherProtocols
}

func comparePortRanges(a, b PortRange) int {
	return cmp.Or(strings.Compare(a.Protocol, b.Protocol), cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last))
}

// MergePorts sorts ranges by protocol and port, and joins ranges that overlap or touch. It works in place.
//
//	440-443 ├──┤
//	444-450     ├─────┤   touches: joined
//	446-448       ├─┤     contained
//	440-450 ├─────────┤   the result
func MergePorts(ranges []PortRange) []PortRange {
	if !slices.IsSortedFunc(ranges, comparePortRanges) {
		slices.SortFunc(ranges, comparePortRanges)
	}
	merged := ranges[:0]
	for _, r := range ranges {
		if n := len(merged); n > 0 && merged[n-1].Protocol == r.Protocol && int(r.First) <= int(merged[n-1].Last)+1 {
			merged[n-1].Last = max(merged[n-1].Last, r.Last)
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// PortSet is an immutable set of (protocol, port). The zero PortSet is empty.
type PortSet struct {
	ranges []PortRange // merged, so equal sets have equal slices
}

// everyPort is the set of every port of every protocol, and of the protocols without ports.
var everyPort = PortSet{[]PortRange{{Protocol: OtherProtocols}, allPorts("SCTP"), allPorts("TCP"), allPorts("UDP")}}

func allPorts(protocol string) PortRange { return PortRange{protocol, 1, math.MaxUint16} }

// IsEvery reports whether s has every port of every protocol, and the protocols without ports. A NetworkPolicy writes
// this set as no ports at all.
func (s PortSet) IsEvery() bool {
	return len(s.ranges) == len(everyPort.ranges) && slices.Equal(s.ranges, everyPort.ranges)
}

// Ranges returns the ranges of s as MergePorts orders them; the caller must not modify them.
func (s PortSet) Ranges() []PortRange { return s.ranges }

// compare orders sets by their ranges, which puts every port first.
func (s PortSet) compare(other PortSet) int {
	return slices.CompareFunc(s.ranges, other.ranges, comparePortRanges)
}

// isInexpressible reports whether s has the protocols without ports but not every port, which no NetworkPolicy can
// list.
func (s PortSet) isInexpressible() bool {
	return len(s.ranges) > 0 && s.ranges[0].Protocol == OtherProtocols && !s.IsEvery()
}

// slots returns the number of port slots of s: one for each range, and one for the set of every port.
func (s PortSet) slots() int {
	if s.IsEvery() {
		return 1
	}
	return len(s.ranges)
}

// intersect returns the ports that are in both sets.
//
//	s      ├─────┤   ├─────┤
//	other     ├────────┤
//	          ├──┤   ├─┤     the result
func (s PortSet) intersect(other PortSet) PortSet {
	var both []PortRange
	a, b := s.ranges, other.ranges
	for len(a) > 0 && len(b) > 0 {
		if c := strings.Compare(a[0].Protocol, b[0].Protocol); c < 0 {
			a = a[1:]
			continue
		} else if c > 0 {
			b = b[1:]
			continue
		}
		if first, last := max(a[0].First, b[0].First), min(a[0].Last, b[0].Last); first <= last {
			both = append(both, PortRange{a[0].Protocol, first, last})
		}
		if a[0].Last < b[0].Last {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return PortSet{both}
}

// subtract returns the ports of s that are not in other.
//
//	s      ├─────┤   ├─────┤
//	other     ├────────┤
//	       ├──┤        ├───┤ the result
func (s PortSet) subtract(other PortSet) PortSet {
	var rest []PortRange
	b := other.ranges
	for _, r := range s.ranges {
		isBefore := func(x PortRange) bool {
			return cmp.Or(strings.Compare(x.Protocol, r.Protocol), cmp.Compare(x.Last, r.First)) < 0
		}
		for len(b) > 0 && isBefore(b[0]) {
			b = b[1:]
		}
		next := int(r.First) // the first port of r that is not decided yet
		for _, hole := range b {
			if hole.Protocol != r.Protocol || hole.First > r.Last {
				break
			}
			if next < int(hole.First) {
				rest = append(rest, PortRange{r.Protocol, uint16(next), hole.First - 1})
			}
			next = int(hole.Last) + 1
		}
		if next <= int(r.Last) {
			rest = append(rest, PortRange{r.Protocol, uint16(next), r.Last})
		}
	}
	return PortSet{rest}
}

// lastContiguous returns the last port up to which s has every port of the protocol from port on. The result is less
// than port if s lacks port.
func (s PortSet) lastContiguous(protocol string, port int) int {
	behind, _ := slices.BinarySearchFunc(s.ranges, port+1, func(r PortRange, first int) int {
		return cmp.Or(strings.Compare(r.Protocol, protocol), cmp.Compare(int(r.First), first))
	})
	if behind == 0 || s.ranges[behind-1].Protocol != protocol {
		return port - 1
	}
	return int(s.ranges[behind-1].Last)
}

// isCovered reports whether the sets together have every port of r.
func isCovered(r PortRange, sets []PortSet) bool {
	for next := int(r.First); next <= int(r.Last); {
		reached := next - 1
		for _, s := range sets {
			reached = max(reached, s.lastContiguous(r.Protocol, next))
		}
		if reached < next {
			return false
		}
		next = reached + 1
	}
	return true
}
