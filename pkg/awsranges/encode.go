package awsranges

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"strconv"
)

// Encode returns a table in AWS's own format, gzip, without the custom rows. A row that is only held
// has the further field "removed", in epoch seconds. Parse gives an equal table of it again; the network
// border groups, which nothing here is decided by, are left out.
//
// It is quick rather than small, since it is made while NetworkPolicies are written.
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

// appendRows appends the custom rows, or the others, whose addresses have so many bits.
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

// appendString appends a string as JSON writes it.
func appendString(to []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s) // a string always can be
			return append(to, quoted...)
		}
	}
	return append(append(append(to, '"'), s...), '"')
}
