package awsranges

import (
	"fmt"
	"math/big"
	"net/netip"
	"slices"

	"egress-agent/pkg/internal/prefixes"
)

// A document may add maxGrowthPercent percent to the accepted addresses of a family, and growthPercentPerDay
// percent more for each day between the two documents. In a month of 2026, AWS added at most 1.5 % in one
// document. In seven months it added 7 % of IPv4 and 12 % of IPv6.
const (
	maxGrowthPercent    = 15
	growthPercentPerDay = 1
	secondsPerDay       = 24 * 60 * 60
)

// coveredPrefixes returns the aggregated prefixes of t, or nil if t is nil. It includes held rows: their
// addresses are still open, and AWS may add them again without limit.
func coveredPrefixes(t *Table) []netip.Prefix {
	if t == nil {
		return nil
	}
	return prefixes.Aggregate(prefixesOf(t.rows))
}

// checkGrowth returns an error if added opens too many addresses of a family outside covered. covered is
// aggregated. seconds is the time between the two documents. The count is exact. It ignores addresses that the
// new document removes, because removals would hide as many additions.
func checkGrowth(covered []netip.Prefix, added []Row, seconds int64) error {
	if len(added) == 0 {
		return nil
	}
	maxPercent := big.NewRat(maxGrowthPercent*secondsPerDay+growthPercentPerDay*max(seconds, 0), secondsPerDay) // percent
	all := prefixes.Aggregate(slices.Concat(covered, prefixesOf(added)))
	for _, family := range []struct {
		name string
		bits int
	}{{"IPv4", 32}, {"IPv6", 128}} {
		before := countAddresses(covered, family.bits)
		opened := countAddresses(all, family.bits)
		opened.Sub(opened, before)
		switch {
		case opened.Sign() == 0:
			continue
		case before.Sign() == 0:
			return fmt.Errorf("the document opens %s addresses; the accepted document has none", family.name)
		}
		percent := new(big.Rat).SetFrac(opened.Mul(opened, big.NewInt(100)), before)
		if percent.Cmp(maxPercent) > 0 {
			return fmt.Errorf("the document opens %s %% more %s addresses; the maximum is %s %%", percent.FloatString(2), family.name, maxPercent.FloatString(2))
		}
	}
	return nil
}

// countAddresses returns the number of addresses of one family in disjoint prefixes. bits identifies the
// family: 32 or 128.
func countAddresses(disjoint []netip.Prefix, bits int) *big.Int {
	var countByLength [129]int64
	for _, prefix := range disjoint {
		if prefix.Addr().BitLen() == bits {
			countByLength[prefix.Bits()]++
		}
	}
	sum := new(big.Int)
	for length, count := range countByLength[:bits+1] {
		sum.Add(sum, new(big.Int).Lsh(big.NewInt(count), uint(bits-length)))
	}
	return sum
}
