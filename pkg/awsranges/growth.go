package awsranges

import (
	"fmt"
	"math/big"
	"net/netip"
	"slices"
)

// What a document newly opens of a family may be mostGrowth percent of what was accepted last, and
// growthADay percent more for each day between the two. In a month of 2026 AWS's own opened at most
// 1.5 % more at once, and in seven months 7 % of IPv4 and 12 % of IPv6.
const (
	mostGrowth  = 15
	growthADay  = 1
	secondsADay = 24 * 60 * 60
)

// covered returns what a table covers, aggregated; nil for a nil table. What is held is open still: AWS may
// publish it again, however much that is.
func covered(t *Table) []netip.Prefix {
	if t == nil {
		return nil
	}
	return Aggregate(prefixesOf(t.rows))
}

// grows returns an error where rows open too many addresses of a family that are not covered already, counted
// exactly, seconds after those were published. What is closed at the same time does not count: it would hide
// as much that is opened. covered is aggregated.
func grows(covered []netip.Prefix, added []Row, seconds int64) error {
	if len(added) == 0 {
		return nil
	}
	most := big.NewRat(mostGrowth*secondsADay+growthADay*max(seconds, 0), secondsADay) // percent
	all := Aggregate(slices.Concat(covered, prefixesOf(added)))
	for _, family := range []struct {
		name string
		bits int
	}{{"IPv4", 32}, {"IPv6", 128}} {
		then := countAddresses(covered, family.bits)
		opened := countAddresses(all, family.bits)
		opened.Sub(opened, then)
		switch {
		case opened.Sign() == 0:
			continue
		case then.Sign() == 0:
			return fmt.Errorf("it opens %s addresses, of which there were none", family.name)
		}
		percent := new(big.Rat).SetFrac(opened.Mul(opened, big.NewInt(100)), then)
		if percent.Cmp(most) > 0 {
			return fmt.Errorf("it opens %s %% more %s addresses, over %s %%", percent.FloatString(2), family.name, most.FloatString(2))
		}
	}
	return nil
}

// countAddresses counts those of disjoint prefixes whose addresses have so many bits.
func countAddresses(prefixes []netip.Prefix, bits int) *big.Int {
	var ofLength [129]int64
	for _, prefix := range prefixes {
		if prefix.Addr().BitLen() == bits {
			ofLength[prefix.Bits()]++
		}
	}
	sum := new(big.Int)
	for length, count := range ofLength[:bits+1] {
		sum.Add(sum, new(big.Int).Lsh(big.NewInt(count), uint(bits-length)))
	}
	return sum
}
