package awsranges

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"egress-agent/pkg/internal/prefixes"
)

// format is the origin of a document. It decides which fields the document may have.
type format int

const (
	// storedFormat is the format of Encode: a row may have the fields "removed" and "added". Unknown fields are ignored,
	// because a later version may have written them.
	storedFormat format = iota
	// sourceFormat is AWS's own format. An unknown field is an error, because it may change the meaning of a row. In
	// particular, "removed" would mark a row as removed by AWS.
	sourceFormat
	// customFormat is AWS's format in an organisation's own file. An unknown field is an error, so that a typo
	// cannot empty the document. The document itself may be empty.
	customFormat
)

// jsonRow is a row of AWS's ip-ranges.json. It has either an IPv4 or an IPv6 prefix.
type jsonRow struct {
	IPv4    string `json:"ip_prefix,omitempty"`
	IPv6    string `json:"ipv6_prefix,omitempty"`
	Region  string `json:"region"`
	Service string `json:"service"`
	Group   string `json:"network_border_group"` // no decision depends on it
}

// storedRow is a row in the format of Encode.
type storedRow struct {
	jsonRow
	Removed int64 `json:"removed,omitempty"` // Row.Removed
	Added   int64 `json:"added,omitempty"`   // Row.Added
}

// document is the content of a file before it becomes a Table.
type document struct {
	syncToken, createDate string
	rows                  []Row // sorted by compareRows, without duplicate keys
}

// Parse parses one document in AWS's format or in the format of Encode, as uncompressed JSON. It masks host
// bits, drops duplicate rows and ignores unknown fields.
//
// Parse returns an error and a nil Table if the document has no rows or an invalid row. A row is invalid if it
// is incomplete, does not parse or has the wrong address family. The error names the first such row.
func Parse(data []byte) (*Table, error) {
	d, err := parse(bytes.NewReader(data), storedFormat)
	if err != nil {
		return nil, err
	}
	return newTable(d, nil), nil
}

// parse parses a document row by row, while the bytes arrive. It never holds the whole document in memory, and
// little work remains after the last byte.
func parse(r io.Reader, f format) (*document, error) {
	p := &parser{format: f, decoder: json.NewDecoder(r), rowsBySpelling: make(map[ServiceRegion]*[]Row)}
	if f != storedFormat {
		p.decoder.DisallowUnknownFields()
	}
	if err := p.parse(); err != nil {
		return nil, err
	}
	if p.rowCount == 0 && f != customFormat {
		return nil, errors.New(`not an ip-ranges document: no rows in "prefixes" or "ipv6_prefixes"`)
	}
	rows := make([]Row, 0, p.rowCount)
	for _, key := range slices.SortedFunc(maps.Keys(p.rowsBySpelling), compareServiceRegions) {
		slices.SortFunc(*p.rowsBySpelling[key], func(a, b Row) int { return prefixes.Compare(a.Prefix, b.Prefix) })
		rows = append(rows, *p.rowsBySpelling[key]...)
	}
	p.rows = sortUnique(rows)
	return &p.document, nil
}

type parser struct {
	document
	format         format
	decoder        *json.Decoder
	rowsBySpelling map[ServiceRegion]*[]Row // keys have the document's spelling, so Canonical runs once for each key
	rowCount       int                      // the number of rows in all lists
}

func (p *parser) parse() error {
	if p.format == customFormat && !p.decoder.More() {
		if _, err := p.decoder.Token(); err != io.EOF {
			return malformedError(err)
		}
		return nil // only white space: no services
	}
	if err := p.readDelimiter('{'); err != nil {
		return err
	}
	for p.decoder.More() {
		field, err := p.decoder.Token()
		if err != nil {
			return malformedError(err)
		}
		switch field {
		case "syncToken":
			err = p.decode(&p.syncToken)
		case "createDate":
			err = p.decode(&p.createDate)
		case "prefixes":
			err = p.parseRows("prefixes", func(r *jsonRow) string { return r.IPv4 }, netip.Addr.Is4)
		case "ipv6_prefixes":
			err = p.parseRows("ipv6_prefixes", func(r *jsonRow) string { return r.IPv6 }, netip.Addr.Is6)
		default:
			if p.format != storedFormat {
				return fmt.Errorf("not an ip-ranges document: unknown field %q; the fields are syncToken, createDate, prefixes and ipv6_prefixes", field)
			}
			err = p.decode(&json.RawMessage{})
		}
		if err != nil {
			return err
		}
	}
	if err := p.readDelimiter('}'); err != nil {
		return err
	}
	if _, err := p.decoder.Token(); err != io.EOF {
		return errors.New("not an ip-ranges document: extra data after the document")
	}
	return nil
}

// parseRows parses the rows of one address family. listField is the name of their list, for errors. prefixOf returns
// the prefix of a row. isFamily reports whether an address belongs to the family.
func (p *parser) parseRows(listField string, prefixOf func(*jsonRow) string, isFamily func(netip.Addr) bool) error {
	if err := p.readDelimiter('['); err != nil {
		return err
	}
	var r storedRow // one variable for all rows, because each new target of Decode allocates memory
	var target any = &r
	if p.format != storedFormat {
		target = &r.jsonRow
	}
	for i := 0; p.decoder.More(); i++ {
		r = storedRow{}
		if err := p.decode(target); err != nil {
			return locateUnknownField(listField, i, err)
		}
		parsed, err := r.parse(prefixOf(&r.jsonRow), isFamily)
		if err != nil {
			return fmt.Errorf("%s[%d]: %w", listField, i, err)
		}
		rows, ok := p.rowsBySpelling[ServiceRegion{Service: r.Service, Region: r.Region}]
		if !ok {
			rows = new([]Row)
			p.rowsBySpelling[ServiceRegion{Service: r.Service, Region: r.Region}] = rows
		}
		row := Row{Prefix: parsed, Removed: r.Removed, Added: r.Added}
		if len(*rows) > 0 {
			row.Service, row.Region = (*rows)[0].Service, (*rows)[0].Region
		} else {
			row.Service, row.Region = Canonical(r.Service), r.Region
		}
		*rows = append(*rows, row)
		p.rowCount++
	}
	return p.readDelimiter(']')
}

// locateUnknownField adds the position to the decoder's error about an unknown field. It returns other errors
// unchanged.
func locateUnknownField(listField string, i int, err error) error {
	_, name, found := strings.Cut(err.Error(), "json: unknown field ") // the decoder's error has no type
	if !found {
		return err
	}
	return fmt.Errorf("%s[%d]: unknown field %s; a row has ip_prefix or ipv6_prefix, region, service and network_border_group", listField, i, name)
}

func (r *storedRow) parse(prefix string, isFamily func(netip.Addr) bool) (netip.Prefix, error) {
	switch {
	case r.Service == "":
		return netip.Prefix{}, errors.New("service is missing")
	case r.Region == "":
		return netip.Prefix{}, errors.New("region is missing")
	case r.Removed < 0:
		return netip.Prefix{}, errors.New("removed is not a time in epoch seconds")
	case r.Added < 0:
		return netip.Prefix{}, errors.New("added is not a time in epoch seconds")
	}
	parsed, err := netip.ParsePrefix(prefix)
	if err != nil {
		return netip.Prefix{}, err
	}
	if !isFamily(parsed.Addr()) || parsed.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%s has the wrong address family", prefix)
	}
	return parsed.Masked(), nil
}

// readDelimiter reads the next token. It returns an error if the token is not the wanted delimiter: { } [ or ].
func (p *parser) readDelimiter(wanted json.Delim) error {
	token, err := p.decoder.Token()
	if err != nil {
		return malformedError(err)
	}
	if token == nil {
		token = "null"
	}
	if token != wanted {
		return fmt.Errorf("not an ip-ranges document: found %v, expected %v", token, wanted)
	}
	return nil
}

func (p *parser) decode(target any) error {
	if err := p.decoder.Decode(target); err != nil {
		return malformedError(err)
	}
	return nil
}

func malformedError(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("not an ip-ranges document: %w", err)
}
