// Package awsranges turns AWS's published ip-ranges.json, and documents of an organisation's own in
// the same format, into a Table of the prefixes of each service and region; and knows the names of
// AWS's services and regions without one (https://docs.aws.amazon.com/vpc/latest/userguide/aws-ip-ranges.html).
package awsranges

import (
	"maps"
	"net/netip"
	"slices"
)

// Table holds the prefixes of every (service, region). It is immutable, and safe for concurrent use.
type Table struct {
	syncToken  string
	createDate string
	rows       []Row
	prefixes   map[Pair][]netip.Prefix // aggregated
	regions    map[string][]string     // of each service, sorted

	regionNames []string // of all services together, sorted
}

// Pair is a service, by its canonical name, in a region, or in all of them together where Region is
// empty.
type Pair struct{ Service, Region string }

// Row is one published prefix.
type Row struct {
	Prefix  netip.Prefix // masked
	Service string       // canonical, as Canonical gives it
	Region  string       // as published, such as us-east-1 or GLOBAL
	Custom  bool         // from an organisation's own document
	Removed int64        // since when AWS no longer publishes it, in epoch seconds; 0 while it does
}

// HasAWS says whether AWS's own document is in the table, by its sync token. Where it is not, as in
// a nil table or one of custom documents alone, a service that the table lacks may well exist.
func (t *Table) HasAWS() bool { return t != nil && t.syncToken != "" }

// SyncToken is the publication time of AWS's document in epoch seconds, as published. Empty where the
// document has none, which only a custom one may.
func (t *Table) SyncToken() string { return t.syncToken }

// CreateDate is the publication time as published: YYYY-MM-DD-hh-mm-ss, UTC. It goes with SyncToken.
func (t *Table) CreateDate() string { return t.createDate }

// Rows returns the published rows, unaggregated, in the order of the document. Not to be modified.
func (t *Table) Rows() []Row { return t.rows }

// Lookup returns the prefixes of a service in a region: masked, losslessly aggregated, sorted by
// Compare, IPv4 before IPv6. An empty region means all of them together. The service is a canonical
// name. Nil where the table has none. The slice belongs to the table and must not be modified;
// nothing is allocated.
func (t *Table) Lookup(service, region string) []netip.Prefix {
	return t.prefixes[Pair{service, region}]
}

// Pairs counts the services and regions that the table has prefixes of.
func (t *Table) Pairs() int { return len(t.prefixes) - len(t.regions) }

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
	merged := &Table{}
	if aws != nil {
		merged.syncToken, merged.createDate = aws.syncToken, aws.createDate
		merged.rows = slices.Clone(aws.rows)
	}
	for _, t := range custom {
		for _, row := range t.rows {
			row.Custom = true
			merged.rows = append(merged.rows, row)
		}
	}
	merged.index()
	return merged
}

// index derives the lookups from the rows.
func (t *Table) index() {
	t.prefixes = make(map[Pair][]netip.Prefix)
	t.regions = make(map[string][]string)
	published := make(map[Pair][]netip.Prefix)
	for _, row := range t.rows {
		key := Pair{row.Service, row.Region}
		published[key] = append(published[key], row.Prefix)
	}
	everywhere := make(map[string][]netip.Prefix)
	for key, prefixes := range published {
		slices.SortFunc(prefixes, Compare)
		aggregated := slices.Clone(aggregateSorted(prefixes)) // not to hold on to the longer list
		t.prefixes[key] = aggregated
		t.regions[key.Service] = append(t.regions[key.Service], key.Region)
		everywhere[key.Service] = append(everywhere[key.Service], aggregated...)
	}
	for service, prefixes := range everywhere {
		t.prefixes[Pair{service, ""}] = Aggregate(prefixes)
		slices.Sort(t.regions[service])
		t.regionNames = append(t.regionNames, t.regions[service]...)
	}
	slices.Sort(t.regionNames)
	t.regionNames = slices.Compact(t.regionNames)
}
