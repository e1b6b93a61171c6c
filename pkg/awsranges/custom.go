package awsranges

import (
	"bytes"
	"fmt"
	"slices"
	"time"
)

// Custom names the files with an organisation's own services, in AWS's format. The files may contain private
// address space, and they may be empty.
type Custom struct {
	Files []string
	// Trusted accepts suspicious rows: rows with the name of a service in the catalogue and rows wider than /8
	// (IPv6: /32). Without Trusted such a row is an error, because policies that name S3 mean AWS's S3, and a
	// mistyped prefix length opens far too much.
	Trusted bool
	// Note is called for each suspicious row that Trusted accepts. It may be nil.
	Note func(message string)
}

// The shortest prefix lengths of custom rows that need no trust. For IPv4 it is the length of 10.0.0.0/8. For
// IPv6 it is the first allocation of a regional registry (https://www.ripe.net/publications/docs/ripe-738,
// 5.1.2).
const (
	minCustomBitsIPv4 = 8
	minCustomBitsIPv6 = 32
)

// read parses each file. Its errors name the file.
func (c Custom) read() ([]*Table, error) {
	tables := make([]*Table, 0, len(c.Files))
	for _, file := range c.Files {
		table, err := readFile(file, customFormat)
		if err != nil {
			return nil, err
		}
		reasons := suspiciousRows(table)
		if len(reasons) > 0 && !c.Trusted {
			more := ""
			if n := len(reasons) - 1; n > 0 {
				more = fmt.Sprintf(" (and %d more)", n)
			}
			return nil, fmt.Errorf("%s: %s%s; correct the file or start with --trust-custom-ranges", file, reasons[0], more)
		}
		if c.Note != nil {
			for _, reason := range reasons {
				c.Note(file + ": " + reason)
			}
		}
		tables = append(tables, table)
	}
	return tables, nil
}

// suspiciousRows returns a message for each suspicious row of a custom table. A row is suspicious if its
// service has the name of an AWS service; only the first such row of a service gets a message. A prefix is
// suspicious if it is too wide, alone or as the union of rows.
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

// HoldCustom returns the custom table to use after files was read. before is the table in use, and files is the
// result of ReadFiles. Either is nil without custom services; the result is nil if both are.
//
// A row that only before has is held from now until hold ends, like a row of AWS's. HoldCustom(before, before,
// …) drops the rows whose hold has ended. HoldCustom returns before itself if nothing changed.
func HoldCustom(before, files *Table, now time.Time, hold time.Duration) *Table {
	switch {
	case before == nil:
		return files
	case files == nil:
		files = &Table{}
	}
	return applyHolds(before, &files.document, now, hold)
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
