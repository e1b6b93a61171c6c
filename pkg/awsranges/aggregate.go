package awsranges

import (
	"cmp"
	"net/netip"
	"slices"
)

// Aggregate returns the fewest prefixes that cover exactly the addresses of the given ones: masked,
// sorted by Compare, disjoint, no two of them mergeable. Both families may be mixed. The argument
// is left as it is; every prefix in it must be valid. Nil for none.
//
//	10.0.0.0/24 ├────────┤                    contained in the /23: dropped
//	10.0.0.0/23 ├─────────────────┤           ┐ two halves
//	10.0.2.0/23                   ├─────────┤ ┘ of one /22: merged
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
	return aggregateSorted(sorted)
}

// aggregateSorted works in place. What is kept so far is the result for the prefixes read so far,
// so the next one can only lie in the last kept one, or complete it to a wider prefix.
func aggregateSorted(sorted []netip.Prefix) []netip.Prefix {
	kept := sorted[:0]
	for _, prefix := range sorted {
		if n := len(kept); n > 0 && Contains(kept[n-1], prefix) {
			continue
		}
		for n := len(kept); n > 0; n = len(kept) {
			parent, ok := parentOf(kept[n-1], prefix)
			if !ok {
				break
			}
			kept, prefix = kept[:n-1], parent
		}
		kept = append(kept, prefix)
	}
	return slices.Clip(kept)
}

// Contains says whether every address of inner is in outer.
func Contains(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// parentOf returns the prefix of which low and high are the two halves.
func parentOf(low, high netip.Prefix) (netip.Prefix, bool) {
	if low.Bits() != high.Bits() || low.Bits() == 0 || low == high {
		return netip.Prefix{}, false
	}
	parent := netip.PrefixFrom(low.Addr(), low.Bits()-1).Masked()
	return parent, parent.Contains(high.Addr())
}

// Compare orders prefixes: IPv4 first, then by address, then the wider one first. A prefix thereby
// comes before all that lie in it.
func Compare(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return cmp.Compare(a.Bits(), b.Bits())
}
