package awsranges

import (
	"bytes"
	"fmt"
	"slices"
	"time"
)

// Custom names the files with an organisation's own services, in AWS's format. They may hold private
// space, and be empty.
type Custom struct {
	Files []string
	// Trusted takes rows that bear the name of a service in the catalogue, or are wider than /8 (IPv6: /32).
	// Otherwise they are errors: policies that name S3 mean AWS's, and a mistyped length opens everything.
	Trusted bool
	// Note is called for each such row that is taken; nil for nobody who listens.
	Note func(message string)
}

// The widest custom rows: the whole of 10.0.0.0/8, and what a regional registry first allocates of IPv6
// (https://www.ripe.net/publications/docs/ripe-738, 5.1.2).
const (
	widestCustomIPv4 = 8
	widestCustomIPv6 = 32
)

// read reads each file. Errors name it.
func (c Custom) read() ([]*Table, error) {
	tables := make([]*Table, 0, len(c.Files))
	for _, file := range c.Files {
		table, err := readFile(file, customFormat)
		if err != nil {
			return nil, err
		}
		doubts := customDoubts(table)
		if len(doubts) > 0 && !c.Trusted {
			more := ""
			if n := len(doubts) - 1; n > 0 {
				more = fmt.Sprintf(" (%d more like this)", n)
			}
			return nil, fmt.Errorf("%s: %s%s; correct it, or start with --trust-custom-ranges", file, doubts[0], more)
		}
		if c.Note != nil {
			for _, doubt := range doubts {
				c.Note(file + ": " + doubt)
			}
		}
		tables = append(tables, table)
	}
	return tables, nil
}

// customDoubts says what of a custom table was hardly meant: the first row of each service of AWS's name, and
// all that is too wide, also where only several rows together are.
func customDoubts(t *Table) []string {
	var doubts []string
	for _, service := range t.Services() {
		rows := t.byServiceRegion[ServiceRegion{Service: service}].rows
		if _, found := LookupService(service); found {
			doubts = append(doubts, describe(rows[0])+" has the name of a service of AWS's")
		}
		for _, prefix := range t.Lookup(service, "") {
			widest := widestCustomIPv4
			if prefix.Addr().Is6() {
				widest = widestCustomIPv6
			}
			if prefix.Bits() >= widest {
				continue
			}
			i := slices.IndexFunc(rows, func(row Row) bool { return row.Prefix == prefix })
			if i >= 0 {
				doubts = append(doubts, fmt.Sprintf("%s is wider than /%d", describe(rows[i]), widest))
			} else {
				doubts = append(doubts, fmt.Sprintf("%s, which rows of %s make together, is wider than /%d", prefix, escaped(service), widest))
			}
		}
	}
	return doubts
}

// HoldCustom returns the custom table to use once files, as ReadFiles gives them, are read after those that
// before was made from. Either may be nil for no services, and of both so is the result. Like AWS's, a row that
// is in before alone is held for a time from now on; before once more ends what was held for long enough.
// Where nothing changes it is before itself that is returned.
func HoldCustom(before, files *Table, now time.Time, hold time.Duration) *Table {
	switch {
	case before == nil:
		return files
	case files == nil:
		files = &Table{}
	}
	return applyHolds(before, &files.document, now, hold)
}

// EncodeCustom returns the custom rows of a table as Encode does the others.
func EncodeCustom(t *Table) ([]byte, error) { return encode(t, true) }

// DecodeCustom returns the table that EncodeCustom was given.
func DecodeCustom(data []byte) (*Table, error) {
	t, err := Read(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return Merge(nil, t), nil
}
