package awsranges

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
)

// Encode returns a table in AWS's own format, gzip, without the custom rows. A row that is only held
// has the further field "removed", in epoch seconds. Parse gives an equal table of it again; the network
// border groups, which nothing here is decided by, are left out.
func Encode(t *Table) ([]byte, error) {
	d := document{SyncToken: t.syncToken, CreateDate: t.createDate}
	for _, row := range t.rows {
		switch {
		case row.Custom:
		case row.Prefix.Addr().Is4():
			d.Prefixes = append(d.Prefixes, ipv4Row{row.Prefix.String(), row.Region, row.Service, row.Removed})
		default:
			d.IPv6 = append(d.IPv6, ipv6Row{row.Prefix.String(), row.Region, row.Service, row.Removed})
		}
	}
	var encoded bytes.Buffer
	zipped := gzip.NewWriter(&encoded)
	if err := json.NewEncoder(zipped).Encode(d); err != nil {
		return nil, fmt.Errorf("encode the ranges: %w", err)
	}
	if err := zipped.Close(); err != nil {
		return nil, fmt.Errorf("compress the ranges: %w", err)
	}
	return encoded.Bytes(), nil
}
