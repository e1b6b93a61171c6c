package awsranges

import (
	"slices"
)

// Change is the difference between two tables.
type Change struct {
	// ServiceRegions lists the service-regions for which Lookup returns other prefixes, in no particular order. It
	// includes keys with an empty region. If the rows of a service-region changed, it has a further key with Rows.
	ServiceRegions []ServiceRegion
	// NamesChanged reports whether a service or region appeared or disappeared. If so, any policy may have
	// become valid or invalid.
	NamesChanged bool
	// Added and Removed count rows. They do not count held rows.
	Added, Removed int
}

// Diff returns the difference between a previous table, which may be nil, and t.
func (t *Table) Diff(previous *Table) Change {
	if previous == nil {
		previous = &Table{}
	}
	var c Change
	for key, entry := range t.byServiceRegion {
		previousEntry := previous.byServiceRegion[key]
		if !slices.Equal(entry.prefixes, previousEntry.prefixes) {
			c.ServiceRegions = append(c.ServiceRegions, key)
		}
		if !slices.Equal(entry.rows, previousEntry.rows) {
			c.ServiceRegions = append(c.ServiceRegions, rowsKey(key))
		}
	}
	for key := range previous.byServiceRegion {
		if _, ok := t.byServiceRegion[key]; !ok {
			c.ServiceRegions = append(c.ServiceRegions, key, rowsKey(key))
		}
	}
	c.NamesChanged = !slices.Equal(t.regionNames, previous.regionNames) || !slices.Equal(t.Services(), previous.Services())
	rows, previousRows := t.publishedRows(), previous.publishedRows()
	c.Added, c.Removed = len(subtractRows(rows, previousRows)), len(subtractRows(previousRows, rows))
	return c
}

func rowsKey(key ServiceRegion) ServiceRegion {
	key.Rows = true
	return key
}

// publishedRows returns the rows that are not held. The slice may be d.rows itself.
func (d *document) publishedRows() []Row {
	isHeld := func(row Row) bool { return row.Removed != 0 }
	if !slices.ContainsFunc(d.rows, isHeld) {
		return d.rows
	}
	return slices.DeleteFunc(slices.Clone(d.rows), isHeld)
}
