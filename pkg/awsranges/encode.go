package awsranges

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"strconv"
)

// Encode returns the rows of a table that are not custom, in AWS's own format, compressed with gzip. A held row
// has the additional field "removed", in epoch seconds, and a new row the field "added". Parse of the uncompressed
// result returns an equal table. Encode omits the network border groups, because no decision depends on them.
//
// Encode prefers speed to size because the agent calls it while it writes NetworkPolicies.
func Encode(t *Table) ([]byte, error) { return encode(t, false) }

// encode encodes the custom rows of t or, if custom is false, all other rows.
func encode(t *Table, custom bool) ([]byte, error) {
	plain := make([]byte, 0, 96*len(t.rows))
	plain = append(plain, `{"syncToken":`...)
	plain = appendString(plain, t.syncToken)
	plain = append(plain, `,"createDate":`...)
	plain = appendString(plain, t.createDate)
	plain = t.appendRows(plain, custom, "prefixes", "ip_prefix", 32)
	plain = t.appendRows(plain, custom, "ipv6_prefixes", "ipv6_prefix", 128)
	plain = append(plain, "}\n"...)

	var encoded bytes.Buffer
	zipped, err := gzip.NewWriterLevel(&encoded, gzip.BestSpeed)
	if err == nil {
		_, err = zipped.Write(plain)
	}
	if err == nil {
		err = zipped.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("compress the ranges: %w", err)
	}
	return encoded.Bytes(), nil
}

// appendRows appends the JSON field listField with the rows of one address family to buffer. bits identifies the
// family: 32 or 128. If custom is true, appendRows selects the custom rows, otherwise all other rows. Each row has its
// prefix in the JSON field prefixField.
func (t *Table) appendRows(buffer []byte, custom bool, listField, prefixField string, bits int) []byte {
	buffer = append(buffer, `,"`+listField+`":[`...)
	separator := "\n"
	for _, row := range t.rows {
		if row.Custom != custom || row.Prefix.Addr().BitLen() != bits {
			continue
		}
		buffer = append(buffer, separator+`{"`+prefixField+`":"`...)
		buffer = row.Prefix.AppendTo(buffer)
		buffer = append(buffer, `","region":`...)
		buffer = appendString(buffer, row.Region)
		buffer = append(buffer, `,"service":`...)
		buffer = appendString(buffer, row.Service)
		if row.Removed != 0 {
			buffer = append(buffer, `,"removed":`...)
			buffer = strconv.AppendInt(buffer, row.Removed, 10)
		}
		if row.Added != 0 {
			buffer = append(buffer, `,"added":`...)
			buffer = strconv.AppendInt(buffer, row.Added, 10)
		}
		buffer = append(buffer, '}')
		separator = ",\n"
	}
	return append(buffer, ']')
}

// appendString appends s to buffer as a JSON string.
func appendString(buffer []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s) // Marshal of a string never fails
			return append(buffer, quoted...)
		}
	}
	return append(append(append(buffer, '"'), s...), '"')
}
