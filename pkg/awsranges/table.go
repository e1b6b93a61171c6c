// Package awsranges parses AWS's ranges document, ip-ranges.json, into a Table of the prefixes of each service and
// region. An organisation's own documents have the same format. The package also refreshes a table (Feed), and it knows
// the names of AWS's services and regions without a table (LookupService, Table.KnowsRegion). AWS documents the format
// at https://docs.aws.amazon.com/vpc/latest/userguide/aws-ip-ranges.html.
package awsranges

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"egress-agent/pkg/internal/prefixes"
)

// Table maps each service and region to its prefixes. A Table is immutable and safe for concurrent use.
type Table struct {
	document
	byServiceRegion map[ServiceRegion]indexEntry
	regions         map[string][]string // the sorted regions of each service
	regionNames     []string            // the regions of all services, sorted
	withouts        *withouts
}

// ServiceRegion is the key of a lookup: a service, by its canonical name, and a region. An empty Region means
// all regions of the service.
type ServiceRegion struct {
	Service, Region string
	// Rows makes a key for the rows themselves, which LookupWithout compares. Change.ServiceRegions has such a key also
	// if other rows cover the same addresses.
	Rows bool
}

// indexEntry holds the rows of one service-region and the prefixes that Lookup returns for it.
type indexEntry struct {
	rows     []Row
	prefixes []netip.Prefix // aggregated and sorted by Compare
}

// Row is one prefix of a ranges document.
type Row struct {
	// Prefix has no host bits.
	Prefix netip.Prefix
	// Service is the canonical name, as Canonical returns it.
	Service string
	// Region has the document's spelling, such as us-east-1 or GLOBAL.
	Region string
	// Custom reports whether the row is from an organisation's own document.
	Custom bool
	// Removed is the time of the first read of a document without the row, in epoch seconds. It is 0 if the document
	// has the row.
	Removed int64
	// Added is the time of the first read of a document with the row, in epoch seconds. It is 0 if the hold of removed
	// rows has passed since, and in the first document. LookupWithout needs it, because a new row of a left-out service
	// takes addresses away.
	Added int64
}

// compareServiceRegions orders service-regions by service, then by region.
func compareServiceRegions(a, b ServiceRegion) int {
	if c := strings.Compare(a.Service, b.Service); c != 0 {
		return c
	}
	return strings.Compare(a.Region, b.Region)
}

// compareKeys orders rows by their keys: service, region, then prefix.
func compareKeys(a, b Row) int {
	if c := compareServiceRegions(ServiceRegion{Service: a.Service, Region: a.Region}, ServiceRegion{Service: b.Service, Region: b.Region}); c != 0 {
		return c
	}
	return prefixes.Compare(a.Prefix, b.Prefix)
}

// compareRows orders rows by key. Among rows with equal keys, the row to use comes first: AWS's row before a custom
// row, then a row of the document before a removed row.
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

// sortUnique sorts rows in place and returns them with one row for each key. Usually the rows are already sorted, and
// sortUnique does not sort them again.
func sortUnique(rows []Row) []Row {
	for i := 1; i < len(rows); i++ {
		if compareKeys(rows[i-1], rows[i]) >= 0 {
			slices.SortFunc(rows, compareRows)
			return slices.CompactFunc(rows, func(a, b Row) bool { return compareKeys(a, b) == 0 })
		}
	}
	return rows
}

// HasAWS reports whether the table contains AWS's own document, which has a sync token. If HasAWS returns false, AWS
// may have services that the table lacks. It returns false for a nil table.
func (t *Table) HasAWS() bool { return t != nil && t.syncToken != "" }

// SyncToken returns the sync token of AWS's document: its publication time in epoch seconds, as a string. It is empty
// if the table has no sync token. Only custom documents may lack a sync token.
func (t *Table) SyncToken() string { return t.syncToken }

// CreateDate returns the createDate of AWS's document: YYYY-MM-DD-hh-mm-ss in UTC.
func (t *Table) CreateDate() string { return t.createDate }

// Rows returns all rows, not aggregated, sorted by service, region and prefix, without duplicates. The caller
// must not modify the slice.
func (t *Table) Rows() []Row { return t.rows }

// Held returns the held rows, in the order of Rows. It returns nil if the table holds no removed row.
func (t *Table) Held() []Row {
	var held []Row
	for _, row := range t.rows {
		if row.Removed != 0 {
			held = append(held, row)
		}
	}
	return held
}

// Lookup returns the prefixes of a service in a region: masked, losslessly aggregated and sorted by prefixes.Compare,
// IPv4 before IPv6. service is a canonical name. An empty region means all regions. It returns nil if the table
// lacks the service or the region. The slice belongs to the table, and the caller must not modify it. Lookup
// allocates nothing.
func (t *Table) Lookup(service, region string) []netip.Prefix {
	return t.byServiceRegion[ServiceRegion{Service: service, Region: region}].prefixes
}

// ServiceRegionCount returns the number of service-regions that have prefixes. It does not count the entries
// for all regions of a service.
func (t *Table) ServiceRegionCount() int { return len(t.byServiceRegion) - len(t.regions) }

// Services returns the canonical names of the services in the table, sorted.
func (t *Table) Services() []string { return slices.Sorted(maps.Keys(t.regions)) }

// Regions returns the regions in which the table has the service, sorted. It returns nil if the table lacks the
// service. The slice belongs to the table, and the caller must not modify it.
func (t *Table) Regions(service string) []string { return t.regions[service] }

// Merge returns a table with the rows and the sync token of aws, and with the rows of every custom table. Each
// key has one row; AWS's row takes precedence. Any argument may be nil. The result is nil if all arguments are
// nil.
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

// newTable builds the index of a document. It shares the prefixes of unchanged service-regions with previous, which may
// be nil.
func newTable(d *document, previous *Table) *Table {
	t := &Table{
		document: *d, byServiceRegion: make(map[ServiceRegion]indexEntry), regions: make(map[string][]string),
		withouts: &withouts{found: make(map[withoutKey][]netip.Prefix)},
	}
	if previous == nil {
		previous = &Table{}
	}
	regionSet := make(map[string]bool)
	for rest := t.rows; len(rest) > 0; {
		serviceRows := takeWhile(rest, func(row Row) bool { return row.Service == rest[0].Service })
		serviceKey := ServiceRegion{Service: rest[0].Service}
		var servicePrefixes []netip.Prefix
		for rest := serviceRows; len(rest) > 0; {
			regionRows := takeWhile(rest, func(row Row) bool { return row.Region == rest[0].Region })
			key := ServiceRegion{Service: serviceKey.Service, Region: rest[0].Region}
			entry := previous.byServiceRegion[key]
			if !slices.Equal(regionRows, entry.rows) {
				entry.prefixes = slices.Clone(prefixes.AggregateSorted(prefixesOf(regionRows)))
			}
			t.byServiceRegion[key] = indexEntry{regionRows, entry.prefixes}
			t.regions[key.Service] = append(t.regions[key.Service], key.Region)
			regionSet[key.Region] = true
			servicePrefixes = append(servicePrefixes, entry.prefixes...)
			rest = rest[len(regionRows):]
		}
		entry := previous.byServiceRegion[serviceKey]
		if !slices.Equal(serviceRows, entry.rows) {
			slices.SortFunc(servicePrefixes, prefixes.Compare)
			entry.prefixes = slices.Clone(prefixes.AggregateSorted(servicePrefixes)) // without Clone, the longer backing array would stay alive
		}
		t.byServiceRegion[serviceKey] = indexEntry{serviceRows, entry.prefixes}
		rest = rest[len(serviceRows):]
	}
	t.regionNames = slices.Sorted(maps.Keys(regionSet))
	return t
}

// takeWhile returns the rows before the first row that does not match.
func takeWhile(rows []Row, matches func(Row) bool) []Row {
	n := 0
	for n < len(rows) && matches(rows[n]) {
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
