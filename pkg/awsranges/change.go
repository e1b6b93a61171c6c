package awsranges

import (
	"slices"
)

// Change is what one table has and another has not.
type Change struct {
	// Pairs are those whose Lookup differs, those of all regions together among them, in no order.
	Pairs []ServiceRegion
	// NamesChanged says that a service or a region came or went. Then a policy may have become valid or
	// invalid, whatever it names.
	NamesChanged bool
	// Added and Removed count what is published, held prefixes not among them.
	Added, Removed int
}

// Diff tells what a table changes of the one in use before, which may be nil.
func (t *Table) Diff(before *Table) Change {
	if before == nil {
		before = &Table{}
	}
	var c Change
	for p, e := range t.byServiceRegion {
		if !slices.Equal(e.prefixes, before.byServiceRegion[p].prefixes) {
			c.Pairs = append(c.Pairs, p)
		}
	}
	for p := range before.byServiceRegion {
		if _, ok := t.byServiceRegion[p]; !ok {
			c.Pairs = append(c.Pairs, p)
		}
	}
	c.NamesChanged = !slices.Equal(t.regionNames, before.regionNames) || !slices.Equal(t.Services(), before.Services())
	now, then := t.publishedRows(), before.publishedRows()
	c.Added, c.Removed = len(subtractRows(now, then)), len(subtractRows(then, now))
	return c
}

// publishedRows returns the rows that are not only held. They may be the document's own.
func (d *document) publishedRows() []Row {
	isHeld := func(row Row) bool { return row.Removed != 0 }
	if !slices.ContainsFunc(d.rows, isHeld) {
		return d.rows
	}
	return slices.DeleteFunc(slices.Clone(d.rows), isHeld)
}
