package prefixes

import "net/netip"

// Subtract returns the fewest prefixes that cover exactly the addresses that are in x and not in y: masked, sorted by
// Compare. It returns nil if no address is left.
//
//	x ├───────────────┤
//	y     ├───┤
//	  ├───┤   ├───────┤ the result
func Subtract(x, y []netip.Prefix) []netip.Prefix {
	var result []netip.Prefix
	y = Aggregate(y)
	for _, prefix := range Aggregate(x) {
		for len(y) > 0 && Compare(y[0], prefix) < 0 && !y[0].Overlaps(prefix) {
			y = y[1:] // it ends before this prefix begins, and so before all later ones
		}
		result = subtractFrom(result, prefix, y)
	}
	return Aggregate(result)
}

// subtractFrom appends the addresses of prefix that are in no hole. It halves prefix as long as a hole is inside
// prefix.
func subtractFrom(result []netip.Prefix, prefix netip.Prefix, holes []netip.Prefix) []netip.Prefix {
	for _, hole := range holes {
		if Contains(hole, prefix) {
			return result
		}
		if Contains(prefix, hole) {
			low, high := halves(prefix)
			return subtractFrom(subtractFrom(result, low, holes), high, holes)
		}
		if prefix.Addr().Less(hole.Addr()) {
			break // the holes are sorted, so all later holes are behind prefix
		}
	}
	return append(result, prefix)
}
