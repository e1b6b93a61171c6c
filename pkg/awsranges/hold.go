package awsranges

import (
	"slices"
	"time"
)

// withHeld returns the table to use once document is accepted after accepted, which may be nil. It has all
// that document publishes; and what accepted has besides, each (prefix, service, region) for hold from
// when it was first missed:
//
//	published  ████████████░░░░░░░░░░        ████
//	in use     ██████████████████████        ████
//	                       ├─ hold ─┤
//
// since more than one removed prefix in five is published again within a day. now is when the document
// was read; its lookups are not used. Where nothing changes it is accepted itself that is returned.
func withHeld(accepted, document *Table, now time.Time, hold time.Duration) *Table {
	if accepted == nil {
		accepted = &Table{}
	}
	published := make(map[Row]bool, len(document.rows))
	rows := make([]Row, 0, len(document.rows))
	for _, row := range document.rows {
		if row.Removed == 0 {
			published[row] = true
			rows = append(rows, row)
		}
	}
	for _, row := range accepted.rows {
		removed := row.Removed
		row.Removed = 0
		if published[row] {
			continue
		}
		if removed == 0 || removed > now.Unix() {
			removed = now.Unix()
		}
		if now.Sub(time.Unix(removed, 0)) < hold {
			row.Removed = removed
			rows = append(rows, row)
		}
	}
	// As in a document: IPv4 first, and each family in its order.
	slices.SortStableFunc(rows, func(a, b Row) int { return a.Prefix.Addr().BitLen() - b.Prefix.Addr().BitLen() })
	if accepted.sameAWS(document) && slices.Equal(rows, accepted.rows) {
		return accepted
	}
	t := &Table{syncToken: document.syncToken, createDate: document.createDate, rows: rows}
	t.index()
	return t
}

func (t *Table) sameAWS(other *Table) bool {
	return t.syncToken == other.syncToken && t.createDate == other.createDate
}

// Held returns the rows that AWS no longer publishes, in the order of Rows; nil for none.
func (t *Table) Held() []Row {
	var held []Row
	for _, row := range t.rows {
		if row.Removed != 0 {
			held = append(held, row)
		}
	}
	return held
}
