// Package awsranges turns AWS's published ip-ranges.json, and documents of an organisation's own in
// the same format, into a Table of the prefixes of each service and region; keeps such a table fresh; and
// knows the names of AWS's services and regions without one
// (https://docs.aws.amazon.com/vpc/latest/userguide/aws-ip-ranges.html).
package awsranges

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Table holds the prefixes of every (service, region). It is immutable, and safe for concurrent use.
type Table struct {
	document
	byServiceRegion map[ServiceRegion]indexEntry
	regions         map[string][]string // of each service, sorted
	regionNames     []string            // of all services together, sorted
}

// ServiceRegion is a service, by its canonical name, in a region, or in all of them together where Region is
// empty.
type ServiceRegion struct{ Service, Region string }

// indexEntry is what a table has of a pair.
type indexEntry struct {
	rows     []Row
	prefixes []netip.Prefix // aggregated
}

// Row is one published prefix.
type Row struct {
	Prefix  netip.Prefix // masked
	Service string       // canonical, as Canonical gives it
	Region  string       // as published, such as us-east-1 or GLOBAL
	Custom  bool         // from an organisation's own document
	Removed int64        // since when AWS, or the custom file, no longer has it, in epoch seconds; 0 while it does
}

func comparePairs(a, b ServiceRegion) int {
	if c := strings.Compare(a.Service, b.Service); c != 0 {
		return c
	}
	return strings.Compare(a.Region, b.Region)
}

// compareKeys orders rows by what they are of.
func compareKeys(a, b Row) int {
	if c := comparePairs(ServiceRegion{a.Service, a.Region}, ServiceRegion{b.Service, b.Region}); c != 0 {
		return c
	}
	return Compare(a.Prefix, b.Prefix)
}

// compareRows orders rows of one key, too: the first of them is to count.
func compareRows(a, b Row) int {
	if c := compareKeys(a, b); c != 0 {
		return c
	}
	if a.Custom != b.Custom {
		if a.Custom {
			return 1
		}
		return -1
	}
	return cmp.Compare(a.Removed, b.Removed)
}

// sortUnique sorts rows in place, which often are already, and leaves one of each key.
func sortUnique(rows []Row) []Row {
	for i := 1; i < len(rows); i++ {
		if compareKeys(rows[i-1], rows[i]) >= 0 {
			slices.SortFunc(rows, compareRows)
			return slices.CompactFunc(rows, func(a, b Row) bool { return compareKeys(a, b) == 0 })
		}
	}
	return rows
}

// HasAWS says whether AWS's own document is in the table, by its sync token. Where it is not, as in
// a nil table or one of custom documents alone, a service that the table lacks may well exist.
func (t *Table) HasAWS() bool { return t != nil && t.syncToken != "" }

// SyncToken is the publication time of AWS's document in epoch seconds, as published. Empty where the
// document has none, which only a custom one may.
func (t *Table) SyncToken() string { return t.syncToken }

// CreateDate is the publication time as published: YYYY-MM-DD-hh-mm-ss, UTC. It goes with SyncToken.
func (t *Table) CreateDate() string { return t.createDate }

// Rows returns the published rows, unaggregated, sorted by service, region and prefix, each once. Not
// to be modified.
func (t *Table) Rows() []Row { return t.rows }

// Held returns the rows that AWS, or a custom file, no longer has, in the order of Rows; nil for none.
func (t *Table) Held() []Row {
	var held []Row
	for _, row := range t.rows {
		if row.Removed != 0 {
			held = append(held, row)
		}
	}
	return held
}

// Lookup returns the prefixes of a service in a region: masked, losslessly aggregated, sorted by
// Compare, IPv4 before IPv6. An empty region means all of them together. The service is a canonical
// name. Nil where the table has none. The slice belongs to the table and must not be modified;
// nothing is allocated.
func (t *Table) Lookup(service, region string) []netip.Prefix {
	return t.byServiceRegion[ServiceRegion{service, region}].prefixes
}

// ServiceRegionCount counts the services and regions that the table has prefixes of.
func (t *Table) ServiceRegionCount() int { return len(t.byServiceRegion) - len(t.regions) }

// Services returns the canonical names of the table's services, sorted.
func (t *Table) Services() []string { return slices.Sorted(maps.Keys(t.regions)) }

// Regions returns the regions in which the table has the service, sorted; nil for none. The slice
// belongs to the table and must not be modified.
func (t *Table) Regions(service string) []string { return t.regions[service] }

// Merge adds an organisation's own tables to AWS's, whose sync token is kept; what several have in
// common counts once. AWS's may be nil, custom ones too; nil for nothing but nil tables.
func Merge(aws *Table, custom ...*Table) *Table {
	custom = slices.DeleteFunc(slices.Clone(custom), func(t *Table) bool { return t == nil })
	if len(custom) == 0 {
		return aws
	}
	merged := &document{}
	if aws != nil {
		*merged = document{aws.syncToken, aws.createDate, slices.Clone(aws.rows)}
	}
	for _, t := range custom {
		for _, row := range t.rows {
			row.Custom = true
			merged.rows = append(merged.rows, row)
		}
	}
	merged.rows = sortUnique(merged.rows)
	return newTable(merged, aws)
}

// newTable derives the lookups from a document. Those that a table before, which may be nil, has already
// are shared with it.
func newTable(d *document, before *Table) *Table {
	t := &Table{document: *d, byServiceRegion: make(map[ServiceRegion]indexEntry), regions: make(map[string][]string)}
	if before == nil {
		before = &Table{}
	}
	known := make(map[string]bool)
	for rest := t.rows; len(rest) > 0; {
		ofService := takeWhile(rest, func(row Row) bool { return row.Service == rest[0].Service })
		all := ServiceRegion{Service: rest[0].Service}
		var everywhere []netip.Prefix
		for rest := ofService; len(rest) > 0; {
			ofRegion := takeWhile(rest, func(row Row) bool { return row.Region == rest[0].Region })
			pair := ServiceRegion{all.Service, rest[0].Region}
			e := before.byServiceRegion[pair]
			if !slices.Equal(ofRegion, e.rows) {
				e.prefixes = slices.Clone(aggregateSorted(prefixesOf(ofRegion)))
			}
			t.byServiceRegion[pair] = indexEntry{ofRegion, e.prefixes}
			t.regions[pair.Service] = append(t.regions[pair.Service], pair.Region)
			known[pair.Region] = true
			everywhere = append(everywhere, e.prefixes...)
			rest = rest[len(ofRegion):]
		}
		e := before.byServiceRegion[all]
		if !slices.Equal(ofService, e.rows) {
			slices.SortFunc(everywhere, Compare)
			e.prefixes = slices.Clone(aggregateSorted(everywhere)) // not to hold on to the longer list
		}
		t.byServiceRegion[all] = indexEntry{ofService, e.prefixes}
		rest = rest[len(ofService):]
	}
	t.regionNames = slices.Sorted(maps.Keys(known))
	return t
}

// takeWhile returns the rows up to the first that is not like them.
func takeWhile(rows []Row, like func(Row) bool) []Row {
	n := 0
	for n < len(rows) && like(rows[n]) {
		n++
	}
	return rows[:n:n]
}

func prefixesOf(rows []Row) []netip.Prefix {
	prefixes := make([]netip.Prefix, len(rows))
	for i, row := range rows {
		prefixes[i] = row.Prefix
	}
	return prefixes
}
