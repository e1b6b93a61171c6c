package recommend

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"egress-agent/pkg/awsranges"
)

// rowIndex finds the rows of an address.
type rowIndex struct {
	table *awsranges.Table
	rows  map[netip.Prefix][]awsranges.ServiceRegion
	bits  [2][]int // the lengths of IPv4 and IPv6 prefixes in rows, the longest first
	sizes map[awsranges.ServiceRegion]int64

	// The last result of serviceOf, because callers ask for equal addresses one after the other.
	lastAddress netip.Addr
	lastKey     awsranges.ServiceRegion
	lastOK      bool
}

func newRowIndex(table *awsranges.Table) *rowIndex {
	index := &rowIndex{table: table, rows: make(map[netip.Prefix][]awsranges.ServiceRegion), sizes: make(map[awsranges.ServiceRegion]int64)}
	if table == nil {
		return index
	}
	for _, row := range table.Rows() {
		index.rows[row.Prefix] = append(index.rows[row.Prefix], awsranges.ServiceRegion{Service: row.Service, Region: row.Region})
		family := familyOf(row.Prefix.Addr())
		if !slices.Contains(index.bits[family], row.Prefix.Bits()) {
			index.bits[family] = append(index.bits[family], row.Prefix.Bits())
		}
	}
	for _, bits := range index.bits {
		slices.SortFunc(bits, func(a, b int) int { return b - a })
	}
	return index
}

func familyOf(address netip.Addr) int {
	if address.Is4() {
		return 0
	}
	return 1
}

// of returns the service-regions of an address. The longest prefix comes first.
func (x *rowIndex) of(address netip.Addr) []awsranges.ServiceRegion {
	var found []awsranges.ServiceRegion
	for _, bits := range x.bits[familyOf(address)] {
		found = append(found, x.rows[netip.PrefixFrom(address, bits).Masked()]...)
	}
	return found
}

// wide are the services that a proposal never names: they have every customer's instances.
var wide = []string{"AMAZON", "EC2"}

// serviceOf returns the service and region with the fewest addresses that has an address. It skips services that pods do
// not connect to. ok is false if it finds no service.
func (x *rowIndex) serviceOf(address netip.Addr) (key awsranges.ServiceRegion, ok bool) {
	if address == x.lastAddress {
		return x.lastKey, x.lastOK
	}
	defer func() { x.lastAddress, x.lastKey, x.lastOK = address, key, ok }()
	for _, candidate := range x.of(address) {
		service, _ := awsranges.LookupService(candidate.Service)
		if service.InboundOnly || slices.Contains(wide, candidate.Service) {
			continue
		}
		if !ok || x.compare(candidate, key) < 0 {
			key, ok = candidate, true
		}
	}
	return key, ok
}

// compare orders service-regions by their number of addresses, and then by name.
func (x *rowIndex) compare(a, b awsranges.ServiceRegion) int {
	return cmp.Or(cmp.Compare(x.size(a), x.size(b)), strings.Compare(a.Service, b.Service), strings.Compare(a.Region, b.Region))
}

func (x *rowIndex) size(key awsranges.ServiceRegion) int64 {
	size, isKnown := x.sizes[key]
	if !isKnown {
		for _, prefix := range x.table.Lookup(key.Service, key.Region) {
			size += addressCount(prefix)
		}
		x.sizes[key] = size
	}
	return size
}

// ownerOf returns the wide service that has an address, as "AMAZON us-east-1"; empty if none has.
func (x *rowIndex) ownerOf(address netip.Addr) string {
	for _, found := range x.of(address) {
		if slices.Contains(wide, found.Service) {
			return found.Service + " " + found.Region
		}
	}
	return ""
}
