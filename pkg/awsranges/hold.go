package awsranges

import (
	"slices"
	"time"
)

// applyHolds returns the table to use after the feed accepts d. It returns accepted itself if nothing changed.
// accepted is the table in use, or nil, and now is the time when the feed read d.
//
// The result has all rows of d. A row that accepted has and d lacks is held: it stays for hold, counted from
// the first document that lacked it. AWS adds more than one in five removed prefixes again within a day.
//
//	in the document  ████████████░░░░░░░░░░        ████
//	in the table     ██████████████████████        ████
//	                             ├─ hold ─┤
func applyHolds(accepted *Table, d *document, now time.Time, hold time.Duration) *Table {
	rows := d.publishedRows()
	if accepted != nil {
		var held []Row
		for _, row := range subtractRows(accepted.rows, rows) {
			if row.Removed == 0 || row.Removed > now.Unix() {
				row.Removed = now.Unix()
			}
			if now.Sub(time.Unix(row.Removed, 0)) < hold {
				held = append(held, row)
			}
		}
		rows = mergeRows(rows, held)
		if accepted.syncToken == d.syncToken && accepted.createDate == d.createDate && slices.Equal(rows, accepted.rows) {
			return accepted
		}
	}
	return newTable(&document{d.syncToken, d.createDate, rows}, accepted)
}

// mergeRows returns all rows of a and b, sorted. Both are sorted and have no key in common.
func mergeRows(a, b []Row) []Row {
	if len(b) == 0 {
		return a
	}
	merged := make([]Row, 0, len(a)+len(b))
	for _, row := range b {
		i, _ := slices.BinarySearchFunc(a, row, compareKeys)
		merged = append(append(merged, a[:i]...), row)
		a = a[i:]
	}
	return append(merged, a...)
}

// subtractRows returns the rows of a whose keys b lacks, in the order of a. Both are sorted.
func subtractRows(a, b []Row) []Row {
	var missing []Row
	for i, row := range a {
		if len(b) == 0 {
			return append(missing, a[i:]...)
		}
		if b[0] == row { // the usual case: compare no strings
			b = b[1:]
			continue
		}
		for len(b) > 0 && compareKeys(b[0], row) < 0 {
			b = b[1:]
		}
		if len(b) == 0 || compareKeys(b[0], row) != 0 {
			missing = append(missing, row)
		}
	}
	return missing
}
