package replay

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// span is a range of IPv4 addresses, with its first and last address.
type span struct{ first, last uint32 }

func (s span) String() string { return addressOf(s.first).String() + "-" + addressOf(s.last).String() }

func addressOf(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

// spans are addresses: sorted spans that neither overlap nor touch.
type spans []span

// everything is every IPv4 address.
var everything = spans{{0, ^uint32(0)}}

func spanOf(prefix netip.Prefix) span {
	address := prefix.Addr().As4()
	first := binary.BigEndian.Uint32(address[:])
	return span{first, first | uint32(uint64(1)<<(32-prefix.Bits())-1)}
}

// join returns the addresses of a list in any order, which it sorts.
func join(list []span) spans {
	slices.SortFunc(list, func(a, b span) int {
		if a.first < b.first {
			return -1
		}
		return 1
	})
	var joined spans
	for _, s := range list {
		if n := len(joined) - 1; n >= 0 && uint64(s.first) <= uint64(joined[n].last)+1 {
			joined[n].last = max(joined[n].last, s.last)
			continue
		}
		joined = append(joined, s)
	}
	return joined
}

func (s spans) union(other spans) spans { return join(slices.Concat(s, other)) }

func (s spans) intersect(other spans) spans {
	var both spans
	for i, j := 0, 0; i < len(s) && j < len(other); {
		first, last := max(s[i].first, other[j].first), min(s[i].last, other[j].last)
		if first <= last {
			both = append(both, span{first, last})
		}
		if s[i].last < other[j].last {
			i++
		} else {
			j++
		}
	}
	return both
}

// subtract returns the addresses of s that other lacks.
func (s spans) subtract(other spans) spans {
	var gaps spans // all that other lacks
	next := uint64(0)
	for _, o := range other {
		if uint64(o.first) > next {
			gaps = append(gaps, span{uint32(next), o.first - 1})
		}
		next = uint64(o.last) + 1
	}
	if next <= uint64(^uint32(0)) {
		gaps = append(gaps, span{uint32(next), ^uint32(0)})
	}
	return s.intersect(gaps)
}

// points are TCP ports: one of each range of ports that policies and guardrails of a replay treat alike, and the ports
// beside their bounds.
var points = []int32{24, 25, 26, 79, 80, 81, 442, 443, 444, 5432, 8999, 9000, 9050, 9100, 9101, 65535}

// opening is the addresses that are open on each of points.
type opening []spans

func (o opening) equal(other opening) bool {
	return slices.EqualFunc(o, other, func(a, b spans) bool { return slices.Equal(a, b) })
}

// difference returns the first point where one of lower is missing from o, or one of o is missing from upper.
func (o opening) difference(lower, upper func(i int) spans) (port int32, closed, open spans) {
	for i := range points {
		closed, open := lower(i).subtract(o[i]), o[i].subtract(upper(i))
		if len(closed)+len(open) > 0 {
			return points[i], closed, open
		}
	}
	return 0, nil, nil
}
