package awsranges

import (
	"bytes"
	"fmt"
	"slices"
	"time"
)

// CustomFiles lists the files with an organisation's own services, in AWS's format. The files may contain private
// address space, and they may be empty.
type CustomFiles struct {
	Files []string
	// Trusted makes ReadFiles accept suspicious rows: rows with the name of a service in the catalogue and rows wider
	// than /8 (IPv6: /32). Otherwise such a row is an error, because a policy that names S3 means AWS's S3, and a
	// mistyped prefix length opens far too much.
	Trusted bool
	// OnSuspicious is called for each suspicious row that ReadFiles accepts. It may be nil.
	OnSuspicious func(message string)
}

// minCustomBitsIPv4 and minCustomBitsIPv6 are the shortest prefix lengths of custom rows that are not suspicious. The
// IPv4 length allows 10.0.0.0/8. The IPv6 length allows the first allocation of a regional registry
// (https://www.ripe.net/publications/docs/ripe-738, 5.1.2).
const (
	minCustomBitsIPv4 = 8
	minCustomBitsIPv6 = 32
)

// read parses each file. Its errors name the file.
func (c CustomFiles) read() ([]*Table, error) {
	tables := make([]*Table, 0, len(c.Files))
	for _, file := range c.Files {
		table, err := readFile(file, customFormat)
		if err != nil {
			return nil, err
		}
		reasons := suspiciousRows(table)
		if len(reasons) > 0 && !c.Trusted {
			moreText := ""
			if n := len(reasons) - 1; n > 0 {
				moreText = fmt.Sprintf(" (and %d more)", n)
			}
			return nil, fmt.Errorf("%s: %s%s; correct the file or start with --trust-custom-ranges", file, reasons[0], moreText)
		}
		if c.OnSuspicious != nil {
			for _, reason := range reasons {
				c.OnSuspicious(file + ": " + reason)
			}
		}
		tables = append(tables, table)
	}
	return tables, nil
}

// suspiciousRows returns a message for each suspicious row of a custom table. A row is suspicious if its service has
// the name of an AWS service. Only the first row of such a service gets a message. A prefix is suspicious if it is too
// wide. It may be a row's own prefix or the union of several rows.
func suspiciousRows(t *Table) []string {
	var reasons []string
	for _, service := range t.Services() {
		rows := t.byServiceRegion[ServiceRegion{Service: service}].rows
		if _, found := LookupService(service); found {
			reasons = append(reasons, describeRow(rows[0])+" has the name of an AWS service")
		}
		for _, prefix := range t.Lookup(service, "") {
			minBits := minCustomBitsIPv4
			if prefix.Addr().Is6() {
				minBits = minCustomBitsIPv6
			}
			if prefix.Bits() >= minBits {
				continue
			}
			i := slices.IndexFunc(rows, func(row Row) bool { return row.Prefix == prefix })
			if i >= 0 {
				reasons = append(reasons, fmt.Sprintf("%s is wider than /%d", describeRow(rows[i]), minBits))
			} else {
				reasons = append(reasons, fmt.Sprintf("%s, the union of several %s rows, is wider than /%d", prefix, escape(service), minBits))
			}
		}
	}
	return reasons
}

// HoldCustom returns the custom table to use after the custom files were read again. previous is the table in use, and
// loaded is the result of ReadFiles. A table without custom services may be nil. The result is nil if both tables are
// nil.
//
// If loaded lacks a row of previous, the row is held for holdTime from now, like a removed row of AWS's document. To
// drop the rows whose hold has ended, pass previous as loaded. HoldCustom returns previous itself if nothing changed.
func HoldCustom(previous, loaded *Table, now time.Time, holdTime time.Duration) *Table {
	switch {
	case previous == nil:
		return loaded
	case loaded == nil:
		loaded = &Table{}
	}
	return applyHolds(previous, &loaded.document, now, holdTime)
}

// EncodeCustom returns the custom rows of a table, in the encoding of Encode.
func EncodeCustom(t *Table) ([]byte, error) { return encode(t, true) }

// DecodeCustom parses the result of EncodeCustom and returns an equal table.
func DecodeCustom(data []byte) (*Table, error) {
	t, err := Read(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return Merge(nil, t), nil
}
