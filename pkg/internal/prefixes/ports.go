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

// IsEveryPort reports whether s has every port of every protocol, and the protocols without ports. A rule of a
// NetworkPolicy has this set if it lists no ports.
func (s PortSet) IsEveryPort() bool {
	return len(s.ranges) == len(everyPort.ranges) && slices.Equal(s.ranges, everyPort.ranges)
}

// Ranges returns the ranges of s in the order of MergePorts. The caller must not modify them.
func (s PortSet) Ranges() []PortRange { return s.ranges }

// compare orders sets by their ranges. So the set of every port comes first.
func (s PortSet) compare(t PortSet) int {
	return slices.CompareFunc(s.ranges, t.ranges, comparePortRanges)
}

// isInexpressible reports whether s has the protocols without ports but not every port. No NetworkPolicy can list such
// a set.
func (s PortSet) isInexpressible() bool {
	return len(s.ranges) > 0 && s.ranges[0].Protocol == OtherProtocols && !s.IsEveryPort()
}

// slots returns the number of port slots of s: one for each range, and one for the set of every port.
func (s PortSet) slots() int {
	if s.IsEveryPort() {
		return 1
	}
	return len(s.ranges)
}

// intersect returns the ports that are in both sets.
//
//	s      ├─────┤   ├─────┤
//	t         ├────────┤
//	          ├──┤   ├─┤     the result
func (s PortSet) intersect(t PortSet) PortSet {
	var common []PortRange
	a, b := s.ranges, t.ranges
	for len(a) > 0 && len(b) > 0 {
		if c := strings.Compare(a[0].Protocol, b[0].Protocol); c < 0 {
			a = a[1:]
			continue
		} else if c > 0 {
			b = b[1:]
			continue
		}
		if first, last := max(a[0].First, b[0].First), min(a[0].Last, b[0].Last); first <= last {
			common = append(common, PortRange{a[0].Protocol, first, last})
		}
		if a[0].Last < b[0].Last {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return PortSet{common}
}

// subtract returns the ports of s that are not in t.
//
//	s      ├─────┤   ├─────┤
//	t         ├────────┤
//	       ├──┤        ├───┤ the result
func (s PortSet) subtract(t PortSet) PortSet {
	var result []PortRange
	b := t.ranges
	for _, r := range s.ranges {
		isBefore := func(x PortRange) bool {
			return cmp.Or(strings.Compare(x.Protocol, r.Protocol), cmp.Compare(x.Last, r.First)) < 0
		}
		for len(b) > 0 && isBefore(b[0]) {
			b = b[1:]
		}
		next := int(r.First) // the first port of r that may still be in the result
		for _, hole := range b {
			if hole.Protocol != r.Protocol || hole.First > r.Last {
				break
			}
			if next < int(hole.First) {
				result = append(result, PortRange{r.Protocol, uint16(next), hole.First - 1})
			}
			next = int(hole.Last) + 1
		}
		if next <= int(r.Last) {
			result = append(result, PortRange{r.Protocol, uint16(next), r.Last})
		}
	}
	return PortSet{result}
}

// lastContiguous returns the last port of the contiguous ports of protocol in s that begin with port. The result is
// less than port if s lacks port.
func (s PortSet) lastContiguous(protocol string, port int) int {
	// rangeCount is the number of ranges that begin at port or before, in the order of ranges.
	rangeCount, _ := slices.BinarySearchFunc(s.ranges, port+1, func(r PortRange, first int) int {
		return cmp.Or(strings.Compare(r.Protocol, protocol), cmp.Compare(int(r.First), first))
	})
	if rangeCount == 0 || s.ranges[rangeCount-1].Protocol != protocol {
		return port - 1
	}
	return int(s.ranges[rangeCount-1].Last)
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
