package prefixes

import "net/netip"

// Subtract returns the fewest prefixes that cover exactly the addresses that are in a and not in b: masked, sorted by
// Compare. It returns nil if no address is left.
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

// subtractFrom appends the addresses of prefix that are in none of the holes. It halves prefix while a hole is
// inside.
func subtractFrom(rest []netip.Prefix, prefix netip.Prefix, holes []netip.Prefix) []netip.Prefix {
	for _, hole := range holes {
		if Contains(hole, prefix) {
			return rest
		}
		if Contains(prefix, hole) {
			low, high := halves(prefix)
			return subtractFrom(subtractFrom(rest, low, holes), high, holes)
		}
		if prefix.Addr().Less(hole.Addr()) {
			break // sorted: all later holes are behind prefix
		}
	}
	return append(rest, prefix)
}
