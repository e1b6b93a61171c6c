package awsranges

import (
	"maps"
	"slices"
)

// Change is what one table has and another has not.
type Change struct {
	// Pairs are those whose Lookup differs, those of all regions together among them, in no order.
	Pairs []Pair
	// Names says that a service or a region came or went. Then a policy may have become valid or
	// invalid, whatever it names.
	Names bool
	// Added and Removed count published rows, held ones not: those of the one document alone.
	Added, Removed int
}

// Since tells what a table changes of the one in use before, which may be nil.
func (t *Table) Since(before *Table) Change {
	if before == nil {
		before = &Table{}
	}
	var c Change
	for p, prefixes := range t.prefixes {
		if !slices.Equal(prefixes, before.prefixes[p]) {
			c.Pairs = append(c.Pairs, p)
		}
	}
	for p := range before.prefixes {
		if _, ok := t.prefixes[p]; !ok {
			c.Pairs = append(c.Pairs, p)
		}
	}
	c.Names = !slices.Equal(t.regionNames, before.regionNames) ||
		!maps.EqualFunc(t.regions, before.regions, func(_, _ []string) bool { return true })
	c.Added, c.Removed = missing(t, before), missing(before, t)
	return c
}

// missing counts the rows that t publishes and other does not.
func missing(t, other *Table) int {
	published := make(map[Row]bool, len(other.rows))
	for _, row := range other.rows {
		published[row] = true
	}
	count := 0
	for _, row := range t.rows {
		if row.Removed == 0 && !published[row] {
			count++
		}
	}
	return count
}
