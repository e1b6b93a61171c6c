package awsranges

import (
	"slices"
	"time"
)

// applyHolds returns the table to use after the feed accepts d. previous is the table in use, or nil. now is the time
// when the feed read d. applyHolds returns previous itself if nothing changed.
//
// The result has all rows of d. If d lacks a row of previous, the row is held: it stays in the table for holdTime,
// which begins with the first document that lacks the row. AWS adds more than one in five removed prefixes again within
// a day. A row that previous lacks has the time of this document as its Row.Added for as long.
//
//	a row in the document  ████████████░░░░░░░░░░░░        ████
//	the row in the table   ████████████████████████        ████
//	                                   ├─holdTime─┤
func applyHolds(previous *Table, d *document, now time.Time, holdTime time.Duration) *Table {
	rows := d.publishedRows()
	if previous != nil {
		rows = withAdded(rows, previous.rows, now, holdTime)
		var held []Row
		for _, row := range subtractRows(previous.rows, rows) {
			if row.Removed == 0 || row.Removed > now.Unix() {
				row.Removed = now.Unix()
			}
			if now.Sub(time.Unix(row.Removed, 0)) < holdTime {
				held = append(held, row)
			}
		}
		rows = mergeRows(rows, held)
		if previous.syncToken == d.syncToken && previous.createDate == d.createDate && slices.Equal(rows, previous.rows) {
			return previous
		}
	}
	return newTable(&document{d.syncToken, d.createDate, rows}, previous)
}

// withAdded returns rows with their Row.Added. A row keeps its time of previousRows for holdTime. Both are sorted.
// withAdded does not modify rows.
func withAdded(rows, previousRows []Row, now time.Time, holdTime time.Duration) []Row {
	isCloned := false
	for i, row := range rows {
		for len(previousRows) > 0 && compareKeys(previousRows[0], row) < 0 {
			previousRows = previousRows[1:]
		}
		added := now.Unix()
		if len(previousRows) > 0 && compareKeys(previousRows[0], row) == 0 {
			added = previousRows[0].Added
		}
		if added > now.Unix() || now.Sub(time.Unix(added, 0)) >= holdTime {
			added = 0
		}
		if added != row.Added {
			if !isCloned {
				rows, isCloned = slices.Clone(rows), true
			}
			rows[i].Added = added
		}
	}
	return rows
}

// mergeRows returns all rows of x and y, sorted. x and y must be sorted and must have no key in common.
func mergeRows(x, y []Row) []Row {
	if len(y) == 0 {
		return x
	}
	merged := make([]Row, 0, len(x)+len(y))
	for _, row := range y {
		i, _ := slices.BinarySearchFunc(x, row, compareKeys)
		merged = append(append(merged, x[:i]...), row)
		x = x[i:]
	}
	return append(merged, x...)
}

// subtractRows returns the rows of x whose keys y lacks, in the order of x. x and y must be sorted.
func subtractRows(x, y []Row) []Row {
	var missing []Row
	for i, row := range x {
		if len(y) == 0 {
			return append(missing, x[i:]...)
		}
		if y[0] == row { // the usual case, which needs no comparison of keys
			y = y[1:]
			continue
		}
		for len(y) > 0 && compareKeys(y[0], row) < 0 {
			y = y[1:]
		}
		if len(y) == 0 || compareKeys(y[0], row) != 0 {
			missing = append(missing, row)
		}
	}
	return missing
}
