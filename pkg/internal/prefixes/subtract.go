package prefixes

import (
	"net/netip"
	"slices"
)

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
		if len(y) > 0 && Contains(y[0], prefix) {
			continue
		}
		inside := 0
		for inside < len(y) && Contains(prefix, y[inside]) {
			inside++
		}
		result = appendWithout(result, prefix, y[:inside])
	}
	return Aggregate(result)
}

// appendWithout appends the addresses of prefix that are in no hole. holes are sorted, disjoint and inside prefix.
func appendWithout(result []netip.Prefix, prefix netip.Prefix, holes []netip.Prefix) []netip.Prefix {
	switch {
	case len(holes) == 0:
		return append(result, prefix)
	case holes[0] == prefix:
		return result
	}
	low, high := halves(prefix)
	highIndex, _ := slices.BinarySearchFunc(holes, high, Compare)
	result = appendWithout(result, low, holes[:highIndex])
	return appendWithout(result, high, holes[highIndex:])
}

// MostSpecific returns the addresses whose most specific prefix is in x and not in y: masked, sorted by Compare, in the
// fewest prefixes. It returns nil if there are none. x and y are sorted by Compare, and their prefixes may nest.
//
//	x ├───────────────┤
//	y     ├───────┤     ├──┤
//	x       ├──┤        ├──┤
//	  ├───┤ ├──┤  ├───┤ the result
func MostSpecific(x, y []netip.Prefix) []netip.Prefix {
	claims := make([]claim, 0, len(x)+len(y))
	for len(x) > 0 || len(y) > 0 {
		if len(y) == 0 || len(x) > 0 && Compare(x[0], y[0]) < 0 {
			claims = append(claims, claim{x[0], true})
			x = x[1:]
			continue
		}
		claims = append(claims, claim{y[0], false})
		for len(x) > 0 && x[0] == y[0] {
			x = x[1:]
		}
		y = y[1:]
	}
	result := appendOwn(nil, claims)
	slices.SortFunc(result, Compare)
	return AggregateSorted(result)
}

// claim is a prefix of the first or of the second argument of MostSpecific.
type claim struct {
	prefix netip.Prefix
	isOwn  bool
}

// appendOwn appends the addresses whose most specific claim is own. No own claim contains all claims.
func appendOwn(result []netip.Prefix, claims []claim) []netip.Prefix {
	for len(claims) > 0 {
		first := claims[0]
		inside := countInside(first.prefix, claims)
		if first.isOwn {
			result = appendClaim(result, first.prefix, claims[1:inside])
			claims = claims[inside:]
		} else {
			claims = claims[1:] // only own claims inside it have addresses for the result
		}
	}
	return result
}

// appendClaim appends the addresses of prefix, an own claim, whose most specific claim is own. inner are the other
// claims inside prefix.
func appendClaim(result []netip.Prefix, prefix netip.Prefix, inner []claim) []netip.Prefix {
	var holes []netip.Prefix
	for len(inner) > 0 {
		first := inner[0]
		if first.isOwn {
			inner = inner[1:] // prefix already has its addresses
			continue
		}
		inside := countInside(first.prefix, inner)
		holes = append(holes, first.prefix)
		result = appendOwn(result, inner[1:inside])
		inner = inner[inside:]
	}
	return appendWithout(result, prefix, holes)
}

// countInside returns how many claims are inside prefix, from the first claim on.
func countInside(prefix netip.Prefix, claims []claim) int {
	n := 0
	for n < len(claims) && Contains(prefix, claims[n].prefix) {
		n++
	}
	return n
}
