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

// gathering turns destinations into blocks. It bounds what they cost by the table rather than by their number: the
// destinations of a service in a region share one part, whose prefixes become blocks once, with the ports of all of them.
type gathering struct {
	table   *awsranges.Table
	family  Family
	builder *prefixes.Builder
	known   map[serviceRegions]addresses
	byPair  map[serviceRegions]*part
	parts   []*part // those of services, in the order they were first named
	several int     // how many of them are several regions together
}

// serviceRegions is a service, by its canonical name, in some regions: none for all, and several sorted and joined.
type serviceRegions struct{ service, regions string }

// part is what several destinations may have in common.
type part struct {
	prefixes []netip.Prefix       // of the cluster's family, disjoint and sorted
	ports    []prefixes.PortSetID // of each destination that names it
}

// addresses is what one destination stands for.
type addresses struct {
	parts    []*part      // of a service
	cidr     netip.Prefix // of the cluster's family; zero for a service
	count    int          // of prefixes of the cluster's family
	resolved bool         // false for a service that cannot be looked up
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

func newGathering(table *awsranges.Table, family Family, destinations int) *gathering {
	return &gathering{
		table: table, family: family, builder: prefixes.NewBuilder(destinations),
		known: make(map[serviceRegions]addresses), byPair: make(map[serviceRegions]*part),
	}
}

// lookup returns what a destination stands for, the same for equal ones.
func (g *gathering) lookup(d policy.Destination) addresses {
	if d.Service == "" {
		if !g.family.Includes(d.CIDR) {
			return addresses{resolved: true}
		}
		return addresses{cidr: d.CIDR, count: 1, resolved: true}
	}
	service := awsranges.Canonical(d.Service)
	if !canLookUp(service, g.table) {
		return addresses{}
	}
	key := serviceRegions{service: service}
	regions := d.Regions
	if len(regions) > 1 {
		regions = slices.Compact(slices.Sorted(slices.Values(regions)))
	}
	key.regions = strings.Join(regions, ",")
	a, known := g.known[key]
	if !known {
		a = addresses{parts: g.partsOf(key, regions), resolved: true}
		for _, part := range a.parts {
			a.count += len(part.prefixes)
		}
		g.known[key] = a
	}
	return a
}

// wholeSets bounds the sets of several regions of which each is a part of its own, aggregated over them. A policy of
// more is taken apart by region, which opens the same: all the sets there are could not be held.
const wholeSets = 16

func (g *gathering) partsOf(key serviceRegions, regions []string) []*part {
	if len(regions) > 1 && g.several >= wholeSets {
		parts := make([]*part, len(regions))
		for i, region := range regions {
			parts[i] = g.part(serviceRegions{key.service, region}, regions[i:i+1])
		}
		return parts
	}
	if len(regions) > 1 {
		g.several++
	}
	return []*part{g.part(key, regions)}
}

func (g *gathering) part(key serviceRegions, regions []string) *part {
	p := g.byPair[key]
	if p == nil {
		p = &part{prefixes: g.family.of(lookUp(key.service, regions, g.table))}
		g.byPair[key] = p
		g.parts = append(g.parts, p)
	}
	return p
}

// add opens ports to the addresses.
func (g *gathering) add(a addresses, ports prefixes.PortSetID) {
	if a.cidr.IsValid() {
		g.builder.Add(ports, a.cidr)
	}
	for _, part := range a.parts {
		if n := len(part.ports); n == 0 || part.ports[n-1] != ports {
			part.ports = append(part.ports, ports)
		}
	}
}

// blocks returns the union of all that was added; nothing may be added afterwards.
func (g *gathering) blocks() (prefixes.Blocks, policy.Problems) {
	total := 0
	for _, part := range g.parts {
		total += len(part.prefixes)
	}
	g.builder.Grow(total)
	for _, part := range g.parts {
		g.builder.Add(g.builder.Union(part.ports), part.prefixes...)
	}
	blocks, err := g.builder.Set().Blocks()
	if err != nil {
		return blocks, policy.Problems{{Path: "allowedDestinations", Message: fmt.Sprintf(
			"Too many ports: over all CIDRs there are more than %d ports and port ranges; join or drop some", prefixes.MaxPortRanges)}}
	}
	return blocks, nil
}

// portRanges returns ports as prefixes counts with them; nil is every port.
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
