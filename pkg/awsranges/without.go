package awsranges

import (
	"net/netip"
	"slices"
	"strings"
	"sync"

	"egress-agent/pkg/internal/prefixes"
)

// LookupWithout returns the prefixes of a service in a region, without the addresses of the services leftOut. For each
// address, the most specific row decides; of two equal rows, the row of the left-out service decides. Subtraction of
// addresses would take too much: AWS lists a block of EC2, and inside it a part that only AMAZON has, such as the
// addresses of STS.
//
//	AMAZON 13.40.0.0/14  ├─────────────────────────┤
//	EC2    13.40.0.0/14  ├─────────────────────────┤
//	AMAZON 13.43.48.0/23            ├────┤
//	AMAZON without EC2              ├────┤
//
// An address that LookupWithout would have returned during the hold of removed rows stays in the result. So a new row of
// a left-out service takes its addresses away only after the hold.
//
// All names are canonical. An empty region means all regions. The rows of leftOut count in every region. The caller
// must not modify the result, which has the form of Lookup's. It is nil if no address is left.
func (t *Table) LookupWithout(service, region string, leftOut []string) []netip.Prefix {
	if t == nil {
		return nil
	}
	names := slices.Clone(leftOut)
	slices.Sort(names)
	key := withoutKey{service, region, strings.Join(slices.Compact(names), ",")}
	if found, ok := t.withouts.get(key); ok {
		return found
	}
	found := t.lookupWithout(service, region, names)
	t.withouts.put(key, found)
	return found
}

func (t *Table) lookupWithout(service, region string, leftOut []string) []netip.Prefix {
	own := t.byServiceRegion[ServiceRegion{Service: service, Region: region}].rows
	var others []Row
	for _, name := range leftOut {
		others = append(others, t.byServiceRegion[ServiceRegion{Service: name}].rows...)
	}
	own, others = sortedByPrefix(own), sortedByPrefix(others)
	found := prefixes.MostSpecific(publishedAt(own, latest), publishedAt(others, latest))
	for _, moment := range changesOf(own, others) {
		earlier := prefixes.MostSpecific(publishedAt(own, moment-1), publishedAt(others, moment-1))
		found = prefixes.Aggregate(append(earlier, found...))
	}
	return found
}

func sortedByPrefix(rows []Row) []Row {
	sorted := slices.Clone(rows)
	slices.SortFunc(sorted, func(a, b Row) int { return prefixes.Compare(a.Prefix, b.Prefix) })
	return sorted
}

// latest is the time of the latest document.
const latest = -1

// publishedAt returns the prefixes of the rows that the document of a time, in epoch seconds, had.
func publishedAt(rows []Row, moment int64) []netip.Prefix {
	found := make([]netip.Prefix, 0, len(rows))
	for _, row := range rows {
		isPublished := row.Removed == 0
		if moment != latest {
			isPublished = row.Added <= moment && (row.Removed == 0 || row.Removed > moment)
		}
		if isPublished {
			found = append(found, row.Prefix)
		}
	}
	return found
}

// changesOf returns the times at which a row was added or removed, sorted.
func changesOf(lists ...[]Row) []int64 {
	var moments []int64
	for _, rows := range lists {
		for _, row := range rows {
			for _, moment := range []int64{row.Added, row.Removed} {
				if moment != 0 {
					moments = append(moments, moment)
				}
			}
		}
	}
	slices.Sort(moments)
	return slices.Compact(moments)
}

// IsLeftOut reports whether the most specific row with the address belongs to a left-out service, and returns that row.
// It reads the rows one by one. own are the regions of service; nil means every region.
func (t *Table) IsLeftOut(address netip.Addr, service string, regions, leftOut []string) (Row, bool) {
	var best Row
	isLeftOut := false
	for _, row := range t.Rows() {
		if row.Removed != 0 || !row.Prefix.Contains(address) {
			continue
		}
		isOwn := row.Service == service && (regions == nil || slices.Contains(regions, row.Region))
		isOther := slices.Contains(leftOut, row.Service)
		switch {
		case !isOwn && !isOther, best.Prefix.IsValid() && row.Prefix.Bits() < best.Prefix.Bits():
		case !best.Prefix.IsValid() || row.Prefix.Bits() > best.Prefix.Bits() || isOther:
			best, isLeftOut = row, isOther
		}
	}
	return best, isLeftOut
}

// withouts has results of LookupWithout. Policies of a cluster ask for few different ones, and each costs milliseconds.
type withouts struct {
	mu    sync.Mutex
	found map[withoutKey][]netip.Prefix
	count int // the number of prefixes in found
}

// withoutKey has the names of the left-out services sorted and joined by commas.
type withoutKey struct{ service, region, leftOut string }

// maxWithoutPrefixes limits the prefixes in withouts, and so its memory to about 4 MB: tenants choose the keys.
const maxWithoutPrefixes = 128 << 10

func (w *withouts) get(key withoutKey) ([]netip.Prefix, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	found, ok := w.found[key]
	return found, ok
}

// put adds a result. If there are too many prefixes, it first drops all other results.
func (w *withouts) put(key withoutKey, found []netip.Prefix) {
	const entryCost = 8 // a result without prefixes also takes memory
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.count += len(found) + entryCost; w.count > maxWithoutPrefixes {
		clear(w.found)
		w.count = len(found) + entryCost
	}
	w.found[key] = found
}
