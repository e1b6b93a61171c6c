package page

import (
	"cmp"
	"math/big"
	"net/netip"
	"slices"
	"strconv"

	networkingv1 "k8s.io/api/networking/v1"
)

// extent is a set of addresses: disjoint prefixes, sorted, IPv4 before IPv6. Nil is the empty set.
type extent []netip.Prefix

// everyAddress has all addresses of both families.
var everyAddress = extent{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

// newExtent returns the union of prefixes, which have no host bits. It sorts the argument. Two prefixes are either
// disjoint, or one contains the other; sorted, the outer prefix comes first:
//
//	|---- outer ----|
//	   |-inner-|        |- next -|
func newExtent(prefixes []netip.Prefix) extent {
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	var e extent
	for _, prefix := range prefixes {
		if len(e) == 0 || !e[len(e)-1].Overlaps(prefix) {
			e = append(e, prefix)
		}
	}
	return e
}

// union returns the addresses of all extents.
func union(extents ...extent) extent {
	if len(extents) == 1 {
		return extents[0]
	}
	return newExtent(slices.Concat(extents...))
}

// extentOf returns the addresses that the rules of a NetworkPolicy open, on any port. It does not know the addresses of
// selected pods. A rule without peers opens every address.
func extentOf(rules ...networkingv1.NetworkPolicyEgressRule) extent {
	var prefixes []netip.Prefix
	for _, rule := range rules {
		if len(rule.To) == 0 {
			return everyAddress
		}
		for _, peer := range rule.To {
			if peer.IPBlock != nil {
				prefixes = append(prefixes, blockPrefixes(peer.IPBlock)...)
			}
		}
	}
	return newExtent(prefixes)
}

// blockPrefixes returns the prefixes of a block without its exceptions. It returns nil if the block is not a CIDR, and
// ignores an exception that is not a CIDR: an API server accepts neither.
func blockPrefixes(block *networkingv1.IPBlock) []netip.Prefix {
	prefix, err := netip.ParsePrefix(block.CIDR)
	if err != nil {
		return nil
	}
	var exceptions []netip.Prefix
	for _, text := range block.Except {
		if exception, err := netip.ParsePrefix(text); err == nil {
			exceptions = append(exceptions, exception.Masked())
		}
	}
	return without(prefix.Masked(), exceptions)
}

// without returns the parts of prefix outside the holes, in order. It halves prefix until each part is either outside
// all holes or inside a hole.
func without(prefix netip.Prefix, holes []netip.Prefix) []netip.Prefix {
	var inside []netip.Prefix
	for _, hole := range holes {
		switch {
		case !hole.Overlaps(prefix):
		case hole.Bits() <= prefix.Bits():
			return nil
		default:
			inside = append(inside, hole)
		}
	}
	if len(inside) == 0 {
		return []netip.Prefix{prefix}
	}
	low := netip.PrefixFrom(prefix.Addr(), prefix.Bits()+1)
	middle := prefix.Addr().AsSlice()
	middle[prefix.Bits()/8] |= 0x80 >> (prefix.Bits() % 8)
	address, _ := netip.AddrFromSlice(middle)
	high := netip.PrefixFrom(address, low.Bits())
	return append(without(low, inside), without(high, inside)...)
}

// addressCount is the number of addresses of an extent, as text and for comparing.
type addressCount struct {
	ipv4, ipv6 string // "0" if there are none, "every" for all addresses of the family
	// share and lesserShare are the shares of all IPv4 addresses and of all IPv6 addresses; share is the larger of both.
	share, lesserShare float64
}

// isEvery reports whether the count is all addresses of a family.
func (c addressCount) isEvery() bool { return c.ipv4 == every || c.ipv6 == every }

// compareWidest orders counts by share, the widest first.
func compareWidest(a, b addressCount) int {
	return cmp.Or(cmp.Compare(b.share, a.share), cmp.Compare(b.lesserShare, a.lesserShare))
}

// count counts the addresses of the extent.
func (e extent) count() addressCount {
	ipv4, ipv6 := new(big.Int), new(big.Int)
	for _, prefix := range e {
		total := ipv6
		if prefix.Addr().Is4() {
			total = ipv4
		}
		total.Add(total, powerOfTwo(prefix.Addr().BitLen()-prefix.Bits()))
	}
	shareOfIPv4, shareOfIPv6 := shareOf(ipv4, ipv4Bits), shareOf(ipv6, ipv6Bits)
	return addressCount{
		ipv4: formatAddresses(ipv4, ipv4Bits), ipv6: formatAddresses(ipv6, ipv6Bits),
		share: max(shareOfIPv4, shareOfIPv6), lesserShare: min(shareOfIPv4, shareOfIPv6),
	}
}

// every is the text for all addresses of a family.
const every = "every"

// The length of an address, in bits.
const (
	ipv4Bits = 32
	ipv6Bits = 128
)

func powerOfTwo(exponent int) *big.Int { return new(big.Int).Lsh(big.NewInt(1), uint(exponent)) }

// shareOf returns the share of count in all addresses of a family.
func shareOf(count *big.Int, bits int) float64 {
	share, _ := new(big.Rat).SetFrac(count, powerOfTwo(bits)).Float64()
	return share
}

// formatAddresses returns a number up to 2^32 with all digits, such as "16,777,216". It rounds a larger number down to
// a power of two, such as "over 2^80".
func formatAddresses(count *big.Int, bits int) string {
	power := count.BitLen() - 1
	switch {
	case power == bits:
		return every
	case power < ipv4Bits:
		return groupDigits(count.String())
	case count.Cmp(powerOfTwo(power)) == 0:
		return "2^" + strconv.Itoa(power)
	}
	return "over 2^" + strconv.Itoa(power)
}

// groupDigits separates each three digits by a comma.
func groupDigits(digits string) string {
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
