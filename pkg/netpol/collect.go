package netpol

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/internal/prefixes"
	"egress-agent/pkg/policy"
)

// collector turns destinations into a set of prefixes and ports. It bounds its cost by the table and not by the number
// of destinations. All destinations of a service in a region share one part. The prefixes of a part enter the set once,
// with the ports of all its destinations.
type collector struct {
	table      *awsranges.Table
	family     Family
	builder    *prefixes.Builder
	resolved   map[serviceRegions]addresses
	partOf     map[serviceRegions]*part
	parts      []*part // the values of partOf, in the order of the first destination
	regionSets int     // the number of parts of two or more regions
}

// serviceRegions is a service, by its canonical name, in regions: sorted and joined by commas, or empty for all
// regions.
type serviceRegions struct{ service, regions string }

// part is the prefixes that several destinations may share.
type part struct {
	prefixes []netip.Prefix       // of the cluster's family, disjoint and sorted
	ports    []prefixes.PortSetID // of each destination
}

// addresses are the addresses of one destination.
type addresses struct {
	parts    []*part      // of a service; nil for a CIDR
	cidr     netip.Prefix // zero for a service, and outside the cluster's family
	count    int          // the number of prefixes in the cluster's family
	resolved bool         // false if the table lacks both the service and AWS's document
}

func (a addresses) prefixes() []netip.Prefix {
	if len(a.parts) == 1 {
		return a.parts[0].prefixes
	}
	var all []netip.Prefix
	for _, part := range a.parts {
		all = append(all, part.prefixes...)
	}
	return all
}

func newCollector(table *awsranges.Table, family Family, destinations int) *collector {
	return &collector{
		table: table, family: family, builder: prefixes.NewBuilder(destinations),
		resolved: make(map[serviceRegions]addresses), partOf: make(map[serviceRegions]*part),
	}
}

// lookup returns the addresses of a destination. Destinations of a service in the same regions share them.
func (c *collector) lookup(d policy.Destination) addresses {
	if d.Service == "" {
		if !c.family.Includes(d.CIDR) {
			return addresses{resolved: true}
		}
		return addresses{cidr: d.CIDR, count: 1, resolved: true}
	}
	service := awsranges.Canonical(d.Service)
	if !canLookUp(service, c.table) {
		return addresses{}
	}
	key := serviceRegions{service: service}
	regions := d.Regions
	if len(regions) > 1 {
		regions = slices.Compact(slices.Sorted(slices.Values(regions)))
	}
	key.regions = strings.Join(regions, ",")
	a, known := c.resolved[key]
	if !known {
		a = addresses{parts: c.partsOf(key, regions), resolved: true}
		for _, part := range a.parts {
			a.count += len(part.prefixes)
		}
		c.resolved[key] = a
	}
	return a
}

// maxRegionSets is the number of sets of two or more regions that each get a part of their own, aggregated over the
// regions. Each further set uses one part for each region, which opens the same addresses. Without the bound, a policy
// could need a copy of a service's prefixes for each of its destinations.
const maxRegionSets = 16

func (c *collector) partsOf(key serviceRegions, regions []string) []*part {
	if len(regions) > 1 && c.regionSets >= maxRegionSets {
		parts := make([]*part, len(regions))
		for i, region := range regions {
			parts[i] = c.part(serviceRegions{key.service, region}, regions[i:i+1])
		}
		return parts
	}
	if len(regions) > 1 {
		c.regionSets++
	}
	return []*part{c.part(key, regions)}
}

func (c *collector) part(key serviceRegions, regions []string) *part {
	p := c.partOf[key]
	if p == nil {
		p = &part{prefixes: c.family.of(lookUp(key.service, regions, c.table))}
		c.partOf[key] = p
		c.parts = append(c.parts, p)
	}
	return p
}

// add opens ports to the addresses.
func (c *collector) add(a addresses, ports prefixes.PortSetID) {
	if a.cidr.IsValid() {
		c.builder.Add(ports, a.cidr)
	}
	for _, part := range a.parts {
		if n := len(part.ports); n == 0 || part.ports[n-1] != ports {
			part.ports = append(part.ports, ports)
		}
	}
}

// blocks returns the union of what add added. The caller must not add more afterwards.
func (c *collector) blocks() (prefixes.Blocks, policy.Problems) {
	total := 0
	for _, part := range c.parts {
		total += len(part.prefixes)
	}
	c.builder.Grow(total)
	for _, part := range c.parts {
		c.builder.Add(c.builder.Union(part.ports), part.prefixes...)
	}
	blocks, err := c.builder.Set().Blocks()
	if err != nil {
		return blocks, policy.Problems{{Path: "allowedDestinations", Message: fmt.Sprintf(
			"Too many ports: over all CIDRs there are more than %d ports and port ranges; join or drop some", prefixes.MaxPortRanges)}}
	}
	return blocks, nil
}

// portRanges converts ports to the type of package prefixes; nil, which is every port, stays nil.
func portRanges(ports []policy.Port) []prefixes.PortRange {
	if ports == nil {
		return nil
	}
	ranges := make([]prefixes.PortRange, len(ports))
	for i, port := range ports {
		ranges[i] = prefixes.PortRange{Protocol: string(port.Protocol), First: port.First, Last: port.Last}
	}
	return ranges
}
