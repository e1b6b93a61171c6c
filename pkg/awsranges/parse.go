package awsranges

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
)

// document is ip-ranges.json as published, and as Encode writes it. Fields that AWS may add are passed
// over.
type document struct {
	SyncToken  string    `json:"syncToken"`
	CreateDate string    `json:"createDate"`
	Prefixes   []ipv4Row `json:"prefixes"`
	IPv6       []ipv6Row `json:"ipv6_prefixes"`
}

type ipv4Row struct {
	Prefix  string `json:"ip_prefix"`
	Region  string `json:"region"`
	Service string `json:"service"`
	Removed int64  `json:"removed,omitempty"` // Row.Removed; never in AWS's own
}

type ipv6Row struct {
	Prefix  string `json:"ipv6_prefix"`
	Region  string `json:"region"`
	Service string `json:"service"`
	Removed int64  `json:"removed,omitempty"` // Row.Removed; never in AWS's own
}

// Parse reads one document in AWS's format, JSON and not compressed. It is taken whole or not at
// all: an error, for a row that is incomplete, unparsable or of the other family, or for a document
// without rows, names the first such row and means a nil Table. Host bits are masked off.
func Parse(data []byte) (*Table, error) {
	t, err := parseRows(data)
	if err != nil {
		return nil, err
	}
	t.index()
	return t, nil
}

// parseRows is Parse without the lookups, for a table that is not itself put in use.
func parseRows(data []byte) (*Table, error) {
	var d document
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, fmt.Errorf("no ip-ranges document: %w", err)
	}
	if len(d.Prefixes)+len(d.IPv6) == 0 {
		return nil, errors.New(`no ip-ranges document: it has no rows in "prefixes" or "ipv6_prefixes"`)
	}
	t := &Table{syncToken: d.SyncToken, createDate: d.CreateDate, rows: make([]Row, 0, len(d.Prefixes)+len(d.IPv6))}
	names := names{services: make(map[string]string), regions: make(map[string]string)}
	for i, r := range d.Prefixes {
		row, err := names.row(r.Prefix, r.Service, r.Region, r.Removed, netip.Addr.Is4)
		if err != nil {
			return nil, fmt.Errorf("prefixes[%d]: %w", i, err)
		}
		t.rows = append(t.rows, row)
	}
	for i, r := range d.IPv6 {
		row, err := names.row(r.Prefix, r.Service, r.Region, r.Removed, netip.Addr.Is6)
		if err != nil {
			return nil, fmt.Errorf("ipv6_prefixes[%d]: %w", i, err)
		}
		t.rows = append(t.rows, row)
	}
	return t, nil
}

// names holds each service, canonical, and each region once, by its spelling in the document.
type names struct{ services, regions map[string]string }

func (n names) row(prefix, service, region string, removed int64, ofFamily func(netip.Addr) bool) (Row, error) {
	switch {
	case service == "":
		return Row{}, errors.New("service is missing")
	case region == "":
		return Row{}, errors.New("region is missing")
	}
	p, err := netip.ParsePrefix(prefix)
	if err != nil {
		return Row{}, err
	}
	if !ofFamily(p.Addr()) || p.Addr().Is4In6() {
		return Row{}, fmt.Errorf("%s is of the wrong address family", prefix)
	}
	if _, ok := n.services[service]; !ok {
		n.services[service] = Canonical(service)
	}
	if _, ok := n.regions[region]; !ok {
		n.regions[region] = region
	}
	return Row{Prefix: p.Masked(), Service: n.services[service], Region: n.regions[region], Removed: removed}, nil
}
