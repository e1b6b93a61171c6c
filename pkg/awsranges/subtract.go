package awsranges

import "net/netip"

// Subtract returns the fewest prefixes that cover exactly the addresses of a that are in none of b:
// masked, sorted by Compare. Nil for none.
//
//	a ├───────────────┤
//	b     ├───┤
//	  ├───┤   ├───────┤ the result
func Subtract(a, b []netip.Prefix) []netip.Prefix {
	var rest []netip.Prefix
	b = Aggregate(b)
	for _, prefix := range Aggregate(a) {
		for len(b) > 0 && Compare(b[0], prefix) < 0 && !b[0].Overlaps(prefix) {
			b = b[1:] // it ends before this prefix begins, and so before all later ones
		}
		rest = subtractFrom(rest, prefix, b)
	}
	return Aggregate(rest)
}

// subtractFrom appends what of prefix is in none of b: halves it for as long as a part of it is.
func subtractFrom(rest []netip.Prefix, prefix netip.Prefix, b []netip.Prefix) []netip.Prefix {
	for _, hole := range b {
		if Contains(hole, prefix) {
			return rest
		}
		if Contains(prefix, hole) {
			low, high := halves(prefix)
			return subtractFrom(subtractFrom(rest, low, b), high, b)
		}
		if prefix.Addr().Less(hole.Addr()) {
			break // sorted: all others lie behind it
		}
	}
	return append(rest, prefix)
}

// halves returns the two prefixes one bit longer. A single address has none, and contains no hole.
func halves(prefix netip.Prefix) (low, high netip.Prefix) {
	bit := prefix.Bits()
	bytes := prefix.Addr().As16()
	if prefix.Addr().Is4() {
		bytes[12+bit/8] |= 0x80 >> (bit % 8)
	} else {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	address := netip.AddrFrom16(bytes)
	if prefix.Addr().Is4() {
		address = address.Unmap()
	}
	return netip.PrefixFrom(prefix.Addr(), bit+1), netip.PrefixFrom(address, bit+1)
}
