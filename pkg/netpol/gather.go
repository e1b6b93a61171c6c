package netpol

import (
	"net/netip"
	"slices"
	"strings"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/policy"
)

// gathering turns destinations into blocks. It bounds what they cost by the table rather than by their number: the
// destinations of a service in a region share one part, whose prefixes become blocks once, with the ports of all of them.
type gathering struct {
	table   *awsranges.Table
	family  Family
	sets    *portSets
	known   map[serviceRegions]addresses
	byPair  map[serviceRegions]*part
	parts   []*part       // those of services, in the order they were first named
	several int           // how many of them are several regions together
	blocks  []prefixPorts // of CIDRs
}

// serviceRegions is a service, by its canonical name, in some regions: none for all, and several sorted and joined.
type serviceRegions struct{ service, regions string }

// part is what several destinations may have in common.
type part struct {
	prefixes []netip.Prefix // of the cluster's family, disjoint and sorted
	ports    []setID        // of each destination that names it
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

func newGathering(table *awsranges.Table, family Family, sets *portSets, destinations int) *gathering {
	return &gathering{
		table: table, family: family, sets: sets, blocks: make([]prefixPorts, 0, destinations),
		known: make(map[serviceRegions]addresses), byPair: make(map[serviceRegions]*part),
	}
}

// lookup returns what a destination stands for, the same for equal ones.
func (g *gathering) lookup(d policy.Destination) addresses {
	if d.Service == "" {
		if !g.family.includes(d.CIDR) {
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
func (g *gathering) add(a addresses, ports setID) {
	if a.cidr.IsValid() {
		g.blocks = append(g.blocks, prefixPorts{a.cidr, ports})
	}
	for _, part := range a.parts {
		if n := len(part.ports); n == 0 || part.ports[n-1] != ports {
			part.ports = append(part.ports, ports)
		}
	}
}

// gather returns the blocks of all that was added, in no order.
func (g *gathering) gather() []prefixPorts {
	total := len(g.blocks)
	for _, part := range g.parts {
		total += len(part.prefixes)
	}
	blocks := slices.Grow(g.blocks, total-len(g.blocks))
	unions := make(map[string]setID) // many parts have the same destinations
	for _, part := range g.parts {
		ports := g.union(part.ports, unions)
		for _, prefix := range part.prefixes {
			blocks = append(blocks, prefixPorts{prefix, ports})
		}
	}
	return blocks
}

func (g *gathering) union(ids []setID, unions map[string]setID) setID {
	if len(ids) == 1 {
		return ids[0]
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	key := make([]byte, 0, 4*len(ids))
	for _, id := range ids {
		key = append(key, byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
	}
	union, known := unions[string(key)]
	if !known {
		union = g.sets.union(ids...)
		unions[string(key)] = union
	}
	return union
}
