package awsranges

import (
	"fmt"
	"math/big"
	"net/netip"
	"slices"

	"egress-agent/pkg/internal/prefixes"
)

// A document may add at most maxGrowthPercent percent to the accepted addresses of a family. The limit grows by
// growthPercentPerDay percent for each day between the publications of the two documents. In a month of 2026, AWS added
// at most 1.5 % in one document. In seven months it added 7 % of IPv4 and 12 % of IPv6.
const (
	maxGrowthPercent    = 15
	growthPercentPerDay = 1
	secondsPerDay       = 24 * 60 * 60
)

// coveredPrefixes returns the aggregated prefixes of t, or nil if t is nil. It includes held rows, because their
// addresses are still open. So AWS may add held rows again without limit.
func coveredPrefixes(t *Table) []netip.Prefix {
	if t == nil {
		return nil
	}
	return prefixes.Aggregate(prefixesOf(t.rows))
}

// checkGrowth returns an error if addedRows open too many addresses of a family outside covered, which is aggregated.
// seconds is the time between the two documents. The counts are exact. They ignore addresses that the new document
// removes. Otherwise each removal would hide an addition of the same size.
func checkGrowth(covered []netip.Prefix, addedRows []Row, seconds int64) error {
	if len(addedRows) == 0 {
		return nil
	}
	maxPercent := big.NewRat(maxGrowthPercent*secondsPerDay+growthPercentPerDay*max(seconds, 0), secondsPerDay)
	union := prefixes.Aggregate(slices.Concat(covered, prefixesOf(addedRows)))
	for _, family := range []struct {
		name string
		bits int
	}{{"IPv4", 32}, {"IPv6", 128}} {
		acceptedCount := countAddresses(covered, family.bits)
		openedCount := countAddresses(union, family.bits)
		openedCount.Sub(openedCount, acceptedCount)
		switch {
		case openedCount.Sign() == 0:
			continue
		case acceptedCount.Sign() == 0:
			return fmt.Errorf("the document opens %s addresses; the accepted document has no %s addresses", family.name, family.name)
		}
		percent := new(big.Rat).SetFrac(openedCount.Mul(openedCount, big.NewInt(100)), acceptedCount)
		if percent.Cmp(maxPercent) > 0 {
			return fmt.Errorf("the document opens %s %% more %s addresses; the maximum is %s %%", percent.FloatString(2), family.name, maxPercent.FloatString(2))
		}
	}
	return nil
}

// countAddresses returns the number of addresses of one family in disjointPrefixes. bits identifies the family: 32 or
// 128.
func countAddresses(disjointPrefixes []netip.Prefix, bits int) *big.Int {
	var countByLength [129]int64
	for _, prefix := range disjointPrefixes {
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
