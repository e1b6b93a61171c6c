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
)

// format says where a document comes from, and so what may be in it.
type format int

const (
	// storedFormat is Encode's: a row may have the field "removed". Fields that are not known are passed over,
	// since a later version may have written them.
	storedFormat format = iota
	// sourceFormat is AWS's own. A field that is not known is an error: what it means for the rows is not known
	// either, and "removed" would make a row look like one that AWS no longer publishes.
	sourceFormat
	// customFormat is AWS's, in a file of an organisation's own. A field that is not known is an error, so that no
	// typo empties it; but it may be empty.
	customFormat
)

// jsonRow is a row of AWS's ip-ranges.json, with either of the prefixes.
type jsonRow struct {
	IPv4    string `json:"ip_prefix,omitempty"`
	IPv6    string `json:"ipv6_prefix,omitempty"`
	Region  string `json:"region"`
	Service string `json:"service"`
	Group   string `json:"network_border_group"` // nothing here is decided by it
}

// stored is a row as Encode writes it.
type stored struct {
	jsonRow
	Removed int64 `json:"removed,omitempty"` // Row.Removed
}

// document is what a file says, before it is a Table.
type document struct {
	syncToken, createDate string
	rows                  []Row // sorted by compareRows, each key once
}

// Parse reads one document in AWS's format, or as Encode writes it, JSON and not compressed. It is taken
// whole or not at all: an error, for a row that is incomplete, unparsable or of the other family, or for a
// document without rows, names the first such row and means a nil Table. Host bits are masked off, what is
// there twice counts once, and fields that are not known are passed over.
func Parse(data []byte) (*Table, error) {
	d, err := parse(bytes.NewReader(data), storedFormat)
	if err != nil {
		return nil, err
	}
	return newTable(d, nil), nil
}

// parse reads a document row by row as it arrives: it is never held whole, and most of the work is done
// when the last byte comes.
func parse(r io.Reader, f format) (*document, error) {
	p := &parser{format: f, decoder: json.NewDecoder(r), pairs: make(map[ServiceRegion]*[]Row)}
	if f != storedFormat {
		p.decoder.DisallowUnknownFields()
	}
	if err := p.parse(); err != nil {
		return nil, err
	}
	if p.count == 0 && f != customFormat {
		return nil, errors.New(`no ip-ranges document: it has no rows in "prefixes" or "ipv6_prefixes"`)
	}
	rows := make([]Row, 0, p.count)
	for _, pair := range slices.SortedFunc(maps.Keys(p.pairs), comparePairs) {
		slices.SortFunc(*p.pairs[pair], func(a, b Row) int { return Compare(a.Prefix, b.Prefix) })
		rows = append(rows, *p.pairs[pair]...)
	}
	p.rows = sortUnique(rows)
	return &p.document, nil
}

type parser struct {
	document
	format  format
	decoder *json.Decoder
	pairs   map[ServiceRegion]*[]Row // by the service's spelling in the document
	count   int                      // of rows
}

func (p *parser) parse() error {
	if p.format == customFormat && !p.decoder.More() {
		if _, err := p.decoder.Token(); err != io.EOF {
			return malformed(err)
		}
		return nil // nothing but white space: no services
	}
	if err := p.delimiter('{'); err != nil {
		return err
	}
	for p.decoder.More() {
		field, err := p.decoder.Token()
		if err != nil {
			return malformed(err)
		}
		switch field {
		case "syncToken":
			err = p.value(&p.syncToken)
		case "createDate":
			err = p.value(&p.createDate)
		case "prefixes":
			err = p.list("prefixes", func(r *jsonRow) string { return r.IPv4 }, netip.Addr.Is4)
		case "ipv6_prefixes":
			err = p.list("ipv6_prefixes", func(r *jsonRow) string { return r.IPv6 }, netip.Addr.Is6)
		default:
			if p.format != storedFormat {
				return fmt.Errorf("no ip-ranges document: unknown field %q; it has syncToken, createDate, prefixes and ipv6_prefixes", field)
			}
			err = p.value(&json.RawMessage{})
		}
		if err != nil {
			return err
		}
	}
	if err := p.delimiter('}'); err != nil {
		return err
	}
	if _, err := p.decoder.Token(); err != io.EOF {
		return errors.New("no ip-ranges document: something follows it")
	}
	return nil
}

// list reads the rows of one family.
func (p *parser) list(field string, prefix func(*jsonRow) string, ofFamily func(netip.Addr) bool) error {
	if err := p.delimiter('['); err != nil {
		return err
	}
	var r stored // one for all: what is read into allocates
	var into any = &r
	if p.format != storedFormat {
		into = &r.jsonRow
	}
	for i := 0; p.decoder.More(); i++ {
		r = stored{}
		if err := p.value(into); err != nil {
			return unknownField(field, i, err)
		}
		parsed, err := r.parse(prefix(&r.jsonRow), ofFamily)
		if err != nil {
			return fmt.Errorf("%s[%d]: %w", field, i, err)
		}
		rows, ok := p.pairs[ServiceRegion{r.Service, r.Region}]
		if !ok {
			rows = new([]Row)
			p.pairs[ServiceRegion{r.Service, r.Region}] = rows
		}
		row := Row{Prefix: parsed, Removed: r.Removed}
		if len(*rows) > 0 {
			row.Service, row.Region = (*rows)[0].Service, (*rows)[0].Region
		} else {
			row.Service, row.Region = Canonical(r.Service), r.Region
		}
		*rows = append(*rows, row)
		p.count++
	}
	return p.delimiter(']')
}

// unknownField says of the decoder's error about a field that is not known where that is.
func unknownField(list string, i int, err error) error {
	_, name, found := strings.Cut(err.Error(), "json: unknown field ") // the decoder's error has no type
	if !found {
		return err
	}
	return fmt.Errorf("%s[%d]: unknown field %s; a row has ip_prefix or ipv6_prefix, region, service and network_border_group", list, i, name)
}

func (r *stored) parse(prefix string, ofFamily func(netip.Addr) bool) (netip.Prefix, error) {
	switch {
	case r.Service == "":
		return netip.Prefix{}, errors.New("service is missing")
	case r.Region == "":
		return netip.Prefix{}, errors.New("region is missing")
	case r.Removed < 0:
		return netip.Prefix{}, errors.New("removed is no time in epoch seconds")
	}
	parsed, err := netip.ParsePrefix(prefix)
	if err != nil {
		return netip.Prefix{}, err
	}
	if !ofFamily(parsed.Addr()) || parsed.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%s is of the wrong address family", prefix)
	}
	return parsed.Masked(), nil
}

// delimiter reads one of { } [ ].
func (p *parser) delimiter(want json.Delim) error {
	token, err := p.decoder.Token()
	if err != nil {
		return malformed(err)
	}
	if token == nil {
		token = "null"
	}
	if token != want {
		return fmt.Errorf("no ip-ranges document: %v where %v is to be", token, want)
	}
	return nil
}

func (p *parser) value(into any) error {
	if err := p.decoder.Decode(into); err != nil {
		return malformed(err)
	}
	return nil
}

func malformed(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("no ip-ranges document: %w", err)
}
