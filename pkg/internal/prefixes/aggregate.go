package prefixes

import (
	"net/netip"
	"slices"
)

// Aggregate returns the fewest prefixes that cover exactly the addresses of the given prefixes. The result is masked,
// disjoint and sorted by Compare, and no two of its prefixes can merge. It is nil if prefixes is empty. The given
// prefixes may have host bits, and Aggregate does not modify them.
//
//	10.0.0.0/24 ├────────┤                    inside the /23: dropped
//	10.0.0.0/23 ├─────────────────┤           ┐ siblings:
//	10.0.2.0/23                   ├─────────┤ ┘ merged
//	10.0.0.0/22 ├───────────────────────────┤ the result
func Aggregate(prefixes []netip.Prefix) []netip.Prefix {
	if len(prefixes) == 0 {
		return nil
	}
	sorted := make([]netip.Prefix, len(prefixes))
	for i, prefix := range prefixes {
		sorted[i] = prefix.Masked()
	}
	slices.SortFunc(sorted, Compare)
	return AggregateSorted(sorted)
}

// AggregateSorted is Aggregate for prefixes that are masked and sorted by Compare. It works in place: the result
// shares the argument's array.
func AggregateSorted(sorted []netip.Prefix) []netip.Prefix {
	// merged is the result for the prefixes so far. The next prefix can be inside the last prefix of merged, or be its
	// sibling. It has no such relation to an earlier prefix of merged.
	merged := sorted[:0]
	for _, prefix := range sorted {
		if n := len(merged); n > 0 && Contains(merged[n-1], prefix) {
			continue
		}
		for n := len(merged); n > 0; n = len(merged) {
			parent, ok := parentOf(merged[n-1], prefix)
			if !ok {
				break
			}
			merged, prefix = merged[:n-1], parent
		}
		merged = append(merged, prefix)
	}
	return slices.Clip(merged)
}

// parentOf returns the prefix that consists of low and high; ok is false if they are not siblings.
func parentOf(low, high netip.Prefix) (parent netip.Prefix, ok bool) {
	if low.Bits() != high.Bits() || low.Bits() == 0 || low == high {
		return netip.Prefix{}, false
	}
	parent = netip.PrefixFrom(low.Addr(), low.Bits()-1).Masked()
	return parent, parent.Contains(high.Addr())
}
