package awsranges

import (
	"slices"
	"time"
)

// applyHolds returns the table to use once a document is accepted after what was accepted before, which may
// be nil. It has all that the document publishes; and what accepted has besides, each (prefix, service,
// region) for hold from when it was first missed:
//
//	published  ████████████░░░░░░░░░░        ████
//	in use     ██████████████████████        ████
//	                       ├─ hold ─┤
//
// since more than one removed prefix in five is published again within a day. now is when the document
// was read. Where nothing changes it is accepted itself that is returned.
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

// mergeRows returns the rows of both, sorted as they are.
func mergeRows(a, b []Row) []Row {
	if len(b) == 0 {
		return a
	}
	both := make([]Row, 0, len(a)+len(b))
	for _, row := range b {
		i, _ := slices.BinarySearchFunc(a, row, compareKeys)
		both = append(append(both, a[:i]...), row)
		a = a[i:]
	}
	return append(both, a...)
}

// subtractRows returns the rows of a, in its order, whose keys b lacks. Both are sorted.
func subtractRows(a, b []Row) []Row {
	var found []Row
	for i, row := range a {
		if len(b) == 0 {
			return append(found, a[i:]...)
		}
		if b[0] == row { // as most are
			b = b[1:]
			continue
		}
		for len(b) > 0 && compareKeys(b[0], row) < 0 {
			b = b[1:]
		}
		if len(b) == 0 || compareKeys(b[0], row) != 0 {
			found = append(found, row)
		}
	}
	return found
}
