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

// collector turns destinations into a set of prefixes and ports. Its cost depends on the table and not on the number of
// destinations: all destinations with the same service and regions share one part. A part adds its prefixes to the set
// once, with the union of the destinations' ports.
type collector struct {
	table      *awsranges.Table
	apiServer  []netip.AddrPort
	family     Family
	builder    *prefixes.Builder
	addresses  map[serviceRegions]addresses
	partOf     map[serviceRegions]*part
	parts      []*part // the values of partOf, in the order of the first destination that needs each part
	regionSets int     // the number of parts of two or more regions
	pods       map[podsKey]*openedPods
	domains    map[string]prefixes.Set // the ports of each domain, on somePod
}

// serviceRegions is the canonical name of a service and the names of regions, sorted and joined by commas. regions is
// empty for all regions. without has the left-out services in the same form.
type serviceRegions struct{ service, regions, without string }

// part is the prefixes that several destinations may share.
type part struct {
	prefixes []netip.Prefix       // in the cluster's family, disjoint and sorted
	ports    []prefixes.PortSetID // the port set of each destination
}

// addresses are the addresses of one destination.
type addresses struct {
	// parts are the parts of a service; nil for another destination, and for a service with an except.
	parts []*part
	// cidr is the prefix of a CIDR in the cluster's family. It is zero for another destination and for a CIDR with an
	// except.
	cidr netip.Prefix
	// rest are the prefixes that an except leaves, in the cluster's family.
	rest []netip.Prefix
	// apiServer are the addresses of the API server, with their ports; nil for another destination.
	apiServer []netip.AddrPort
	// count is the number of prefixes in the cluster's family.
	count int
	// isResolved is false if the addresses are unknown: the table lacks a service and AWS's document, or Inputs lack the
	// API server.
	isResolved bool
}

// prefixes returns the prefixes of a service.
func (a addresses) prefixes() []netip.Prefix {
	if len(a.parts) == 1 {
		return a.parts[0].prefixes
	}
	joined := slices.Clone(a.rest)
	for _, part := range a.parts {
		joined = append(joined, part.prefixes...)
	}
	return joined
}

func newCollector(in Inputs, destinationCount int) *collector {
	return &collector{
		table: in.Table, apiServer: in.APIServer, family: in.Options.Family, builder: prefixes.NewBuilder(destinationCount),
		addresses: make(map[serviceRegions]addresses), partOf: make(map[serviceRegions]*part),
	}
}

// addressesOf returns the addresses of a destination. Destinations with the same service and regions share them. A
// destination with Pods or a Domain has none.
func (c *collector) addressesOf(d policy.Destination) addresses {
	switch {
	case d.Pods != nil, d.Domain != "":
		return addresses{isResolved: true}
	case d.Entity != "":
		return c.apiServerAddresses()
	case d.Service != "":
		return c.serviceAddresses(d)
	case !c.family.Includes(d.CIDR):
		return addresses{isResolved: true}
	case d.Except != nil:
		rest := prefixes.Subtract([]netip.Prefix{d.CIDR}, d.Except)
		return addresses{rest: rest, count: len(rest), isResolved: true}
	}
	return addresses{cidr: d.CIDR, count: 1, isResolved: true}
}

func (c *collector) apiServerAddresses() addresses {
	a := addresses{isResolved: c.apiServer != nil}
	for _, address := range c.apiServer {
		if c.family.Includes(hostPrefix(address.Addr())) {
			a.apiServer = append(a.apiServer, address)
		}
	}
	a.count = len(a.apiServer)
	return a
}

// hostPrefix returns the prefix of one address.
func hostPrefix(address netip.Addr) netip.Prefix { return netip.PrefixFrom(address, address.BitLen()) }

func (c *collector) serviceAddresses(d policy.Destination) addresses {
	service, leftOut := awsranges.Canonical(d.Service), canonicalNames(d.Without)
	if !isServiceLoaded(service, c.table) || slices.ContainsFunc(leftOut, func(name string) bool { return !isServiceLoaded(name, c.table) }) {
		return addresses{}
	}
	key := serviceRegions{service: service, without: strings.Join(leftOut, ",")}
	regions := d.Regions
	if len(regions) > 1 {
		regions = slices.Compact(slices.Sorted(slices.Values(regions)))
	}
	key.regions = strings.Join(regions, ",")
	found := c.sharedAddresses(key, regions)
	if d.Except == nil {
		return found
	}
	rest := prefixes.Subtract(found.prefixes(), d.Except)
	return addresses{rest: rest, count: len(rest), isResolved: true}
}

// sharedAddresses returns the addresses for a key, which several destinations may have.
func (c *collector) sharedAddresses(key serviceRegions, regions []string) addresses {
	found, ok := c.addresses[key]
	if !ok {
		found = addresses{parts: c.getOrCreateParts(key, regions), isResolved: true}
		for _, part := range found.parts {
			found.count += len(part.prefixes)
		}
		c.addresses[key] = found
	}
	return found
}

// maxRegionSets is the number of sets of two or more regions that get a separate part, with prefixes aggregated over
// the regions. Each further set uses one part for each region, which opens the same addresses. Without this limit, a
// policy could need a copy of a service's prefixes for each destination.
const maxRegionSets = 16

// getOrCreateParts returns the parts whose prefixes together are the prefixes of the service in the regions.
func (c *collector) getOrCreateParts(key serviceRegions, regions []string) []*part {
	if len(regions) > 1 && c.regionSets >= maxRegionSets {
		parts := make([]*part, len(regions))
		for i, region := range regions {
			parts[i] = c.getOrCreatePart(serviceRegions{key.service, region, key.without}, regions[i:i+1])
		}
		return parts
	}
	if len(regions) > 1 {
		c.regionSets++
	}
	return []*part{c.getOrCreatePart(key, regions)}
}

func (c *collector) getOrCreatePart(key serviceRegions, regions []string) *part {
	p := c.partOf[key]
	if p == nil {
		p = &part{prefixes: c.family.filter(servicePrefixes(key.service, regions, splitNames(key.without), c.table))}
		c.partOf[key] = p
		c.parts = append(c.parts, p)
	}
	return p
}

// add opens a port set on the addresses of a destination.
func (c *collector) add(opened addresses, ports prefixes.PortSetID) {
	addOwn(c.builder, opened, ports)
	for _, part := range opened.parts {
		if n := len(part.ports); n == 0 || part.ports[n-1] != ports {
			part.ports = append(part.ports, ports)
		}
	}
}

// addOwn opens ports on the addresses that a destination does not share with others.
func addOwn(builder *prefixes.Builder, opened addresses, ports prefixes.PortSetID) {
	if opened.cidr.IsValid() {
		builder.Add(ports, opened.cidr)
	}
	builder.Add(ports, opened.rest...)
	for _, address := range opened.apiServer {
		port := prefixes.PortRange{Protocol: string(policy.TCP), First: address.Port(), Last: address.Port()}
		builder.Add(builder.Ports([]prefixes.PortRange{port}), hostPrefix(address.Addr()))
	}
}

// setOf returns the addresses and ports of one destination.
func (c *collector) setOf(d policy.Destination) prefixes.Set {
	found := c.addressesOf(d)
	builder := prefixes.NewBuilder(found.count)
	ports := builder.Ports(portRanges(d.Ports))
	addOwn(builder, found, ports)
	for _, part := range found.parts {
		builder.Add(ports, part.prefixes...)
	}
	return builder.Set()
}

// set returns the union of the addresses and ports that add opened. The caller must not call add after set.
func (c *collector) set() prefixes.Set {
	prefixCount := 0
	for _, part := range c.parts {
		prefixCount += len(part.prefixes)
	}
	c.builder.Grow(prefixCount)
	for _, part := range c.parts {
		c.builder.Add(c.builder.Union(part.ports), part.prefixes...)
	}
	return c.builder.Set()
}

// blocksOf returns the blocks of a set, or a problem if there are too many.
func blocksOf(set prefixes.Set) (prefixes.Blocks, policy.Problems) {
	blocks, err := set.Blocks()
	if err != nil {
		return blocks, policy.Problems{{Path: "allowedDestinations", Message: fmt.Sprintf(
			"Too many ports: over all CIDRs there are more than %d ports and port ranges; merge or remove some", prefixes.MaxPortRanges)}}
	}
	return blocks, nil
}

// portRanges converts ports to the type of package prefixes. It returns nil if ports is nil; both mean every port.
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
