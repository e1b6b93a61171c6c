package page

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"egress-agent/pkg/awsranges"
)

// specialBlocks has the address space with a special use that readers ask for
// (https://www.iana.org/assignments/iana-ipv4-special-registry and
// https://www.iana.org/assignments/iana-ipv6-special-registry).
var specialBlocks = []struct {
	prefix netip.Prefix
	use    string
}{
	{netip.MustParsePrefix("10.0.0.0/8"), "private"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private"},
	{netip.MustParsePrefix("fc00::/7"), "private"},
	{netip.MustParsePrefix("100.64.0.0/10"), "shared by providers"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
}

// amazon is the service whose ranges contain the ranges of the other services. It says less than their names.
const amazon = "AMAZON"

// owners finds the services and regions of a CIDR.
type owners struct {
	hasAWS   bool
	byPrefix map[netip.Prefix][]awsranges.ServiceRegion
	sorted   []netip.Prefix // the keys of byPrefix
}

// newOwners returns the owners of a table, which may be nil.
func newOwners(table *awsranges.Table) *owners {
	o := &owners{hasAWS: table.HasAWS(), byPrefix: make(map[netip.Prefix][]awsranges.ServiceRegion)}
	if table == nil {
		return o
	}
	for _, service := range table.Services() {
		for _, region := range table.Regions(service) {
			for _, prefix := range table.Lookup(service, region) {
				if o.byPrefix[prefix] == nil {
					o.sorted = append(o.sorted, prefix)
				}
				o.byPrefix[prefix] = append(o.byPrefix[prefix], awsranges.ServiceRegion{Service: service, Region: region})
			}
		}
	}
	slices.SortFunc(o.sorted, netip.Prefix.Compare)
	return o
}

// describe says where a CIDR belongs: to address space with a special use, to the services and regions whose ranges
// contain all of it, or else to services with ranges inside. It returns "" if neither the table nor the special uses
// say anything about the CIDR.
func (o *owners) describe(cidr netip.Prefix) string {
	var parts []string
	for _, block := range specialBlocks {
		if contains(block.prefix, cidr) {
			parts = append(parts, block.use)
		}
	}
	covering, inside := o.covering(cidr), o.inside(cidr)
	switch {
	case len(covering) > 0:
		parts = append(parts, listFirst(covering, 3))
	case len(inside) > 0:
		parts = append(parts, "contains addresses of "+listFirst(inside, 3))
	case o.hasAWS && len(parts) == 0:
		parts = append(parts, "not in AWS's list")
	}
	return strings.Join(parts, "; ")
}

func contains(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// covering returns "SERVICE REGION" for each range that contains all of the CIDR, sorted.
func (o *owners) covering(cidr netip.Prefix) []string {
	var found []awsranges.ServiceRegion
	for bits := cidr.Bits(); bits >= 0; bits-- {
		outer, _ := cidr.Addr().Prefix(bits) // no error: bits is at most the length of the address
		found = append(found, o.byPrefix[outer]...)
	}
	return names(found, func(s awsranges.ServiceRegion) string { return s.Service + " " + s.Region })
}

// inside returns the services with ranges inside the CIDR, sorted.
func (o *owners) inside(cidr netip.Prefix) []string {
	start, _ := slices.BinarySearchFunc(o.sorted, cidr, netip.Prefix.Compare)
	var found []awsranges.ServiceRegion
	for _, prefix := range o.sorted[start:] {
		if !contains(cidr, prefix) {
			break
		}
		found = append(found, o.byPrefix[prefix]...)
	}
	return names(found, func(s awsranges.ServiceRegion) string { return s.Service })
}

// names returns the distinct names, sorted. It leaves out AMAZON, unless there is no other service.
func names(found []awsranges.ServiceRegion, name func(awsranges.ServiceRegion) string) []string {
	var specific, general []string
	for _, serviceRegion := range found {
		if serviceRegion.Service == amazon {
			general = append(general, name(serviceRegion))
		} else {
			specific = append(specific, name(serviceRegion))
		}
	}
	if specific == nil {
		specific = general
	}
	slices.Sort(specific)
	return slices.Compact(specific)
}

// listFirst joins the first count items, and counts the others.
func listFirst(items []string, count int) string {
	text := strings.Join(items[:min(count, len(items))], ", ")
	if more := len(items) - count; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return cmp.Or(text, "nothing")
}
