package recommend

import (
	"math"
	"math/bits"
	"net/netip"
	"slices"
)

// part is a prefix. count is the number of addresses in prefix with a flow.
type part struct {
	prefix netip.Prefix
	count  int
}

// partsOf returns a part for each address. addresses are sorted and distinct.
func partsOf(addresses []netip.Addr) []part {
	parts := make([]part, len(addresses))
	for i, address := range addresses {
		parts[i] = part{netip.PrefixFrom(address, address.BitLen()), 1}
	}
	return parts
}

// cover returns the cover of parts with the least cost: disjoint, sorted prefixes. A prefix costs entryCost, and each
// address without a flow costs 1. parts are disjoint and sorted. They are single addresses, or a cover for a lower
// entryCost. A higher entryCost never splits a prefix, so the result is exact for such a cover too.
//
// The best cover of a prefix is either the prefix itself or the best covers of both halves. So a search from the parts
// upward is exact. Of two covers with equal cost it returns the one with fewer prefixes. It reuses the memory of
// parts.
func cover(parts []part, entryCost int64) []part {
	ipv6 := slices.IndexFunc(parts, func(p part) bool { return p.prefix.Addr().Is6() })
	if ipv6 < 0 {
		ipv6 = len(parts)
	}
	chosen := parts[:0] // it never has more parts than have been read
	for _, family := range [][]part{parts[:ipv6], parts[ipv6:]} {
		if len(family) > 0 {
			chosen, _, _ = appendBest(chosen, family, entryCost)
		}
	}
	return chosen
}

// appendBest appends the best cover of parts, and returns the cost of the cover and the sum of the counts. parts have one
// family.
func appendBest(chosen, parts []part, entryCost int64) (result []part, cost int64, count int) {
	if len(parts) == 1 {
		return append(chosen, parts[0]), wholeCost(parts[0], entryCost), parts[0].count
	}
	whole := part{prefix: smallestWith(parts[0].prefix.Addr(), parts[len(parts)-1].prefix.Addr())}
	middle, _ := slices.BinarySearchFunc(parts, highHalf(whole.prefix), func(p part, address netip.Addr) int { return p.prefix.Addr().Compare(address) })
	halves, lowCost, lowCount := appendBest(chosen, parts[:middle], entryCost)
	halves, highCost, highCount := appendBest(halves, parts[middle:], entryCost)
	whole.count = lowCount + highCount
	if cost := wholeCost(whole, entryCost); cost <= lowCost+highCost {
		return append(halves[:len(chosen)], whole), cost, whole.count
	}
	return halves, lowCost + highCost, whole.count
}

// wholeCost returns the cost of one prefix.
func wholeCost(p part, entryCost int64) int64 {
	if size := addressCount(p.prefix); size > 0 {
		return entryCost + size - int64(p.count)
	}
	return math.MaxInt64 // more than 2^53 addresses
}

// smallestWith returns the smallest prefix with both addresses, which differ.
func smallestWith(a, b netip.Addr) netip.Prefix {
	x, y := a.As16(), b.As16()
	i := 0
	for x[i] == y[i] {
		i++
	}
	common := 8*i + bits.LeadingZeros8(x[i]^y[i])
	if a.Is4() {
		common -= 96
	}
	return netip.PrefixFrom(a, common).Masked()
}

// highHalf returns the first address of the high half of a prefix with more than one address.
func highHalf(prefix netip.Prefix) netip.Addr {
	bytes, bit := prefix.Addr().As16(), prefix.Bits()
	if prefix.Addr().Is4() {
		bit += 96
	}
	bytes[bit/8] |= 0x80 >> (bit % 8)
	if prefix.Addr().Is4() {
		return netip.AddrFrom16(bytes).Unmap()
	}
	return netip.AddrFrom16(bytes)
}
