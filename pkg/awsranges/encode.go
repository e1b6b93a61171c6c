package awsranges

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"strconv"
)

// Encode returns the rows of a table that are not custom, in AWS's own format, compressed with gzip. A held row
// has the additional field "removed", in epoch seconds. Parse of the uncompressed result returns an equal
// table. Encode omits the network border groups, because no decision depends on them.
//
// Encode prefers speed to size because the agent calls it while it writes NetworkPolicies.
func Encode(t *Table) ([]byte, error) { return encode(t, false) }

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

// appendRows appends a JSON list of rows of one address family, which bits identifies. custom selects the
// custom rows or the others.
func (t *Table) appendRows(to []byte, custom bool, list, field string, bits int) []byte {
	to = append(to, `,"`+list+`":[`...)
	separator := "\n"
	for _, row := range t.rows {
		if row.Custom != custom || row.Prefix.Addr().BitLen() != bits {
			continue
		}
		to = append(to, separator+`{"`+field+`":"`...)
		to = row.Prefix.AppendTo(to)
		to = append(to, `","region":`...)
		to = appendString(to, row.Region)
		to = append(to, `,"service":`...)
		to = appendString(to, row.Service)
		if row.Removed != 0 {
			to = append(to, `,"removed":`...)
			to = strconv.AppendInt(to, row.Removed, 10)
		}
		to = append(to, '}')
		separator = ",\n"
	}
	return append(to, ']')
}

// appendString appends s as a JSON string.
func appendString(to []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s) // Marshal of a string never fails
			return append(to, quoted...)
		}
	}
	return append(append(append(to, '"'), s...), '"')
}
