// Package recommend proposes a policy from the connections that pods really made.
//
// Its objective has three parts:
//
//   - An address with published ranges becomes the narrowest service and region that has it. The package never proposes EC2
//     and AMAZON, because they have every customer's instances.
//   - A known pod or Service becomes labels and a namespace.
//   - The other addresses become prefixes. A prefix costs Options.EntryCost, and each address without a flow costs 1. An
//     exact search over the tree of prefixes finds the cover with the least cost.
//
// The package is pure: equal input gives equal output.
package recommend

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"egress-agent/pkg/analysis/flows"
	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// Options control a proposal.
type Options struct {
	Table  *awsranges.Table // may be nil
	Family netpol.Family
	// Cluster has the pods and Services; nil if they are unknown.
	Cluster *flows.Cluster
	// EntryCost is how many addresses without a flow one entry less is worth. 0 opens no address without a flow.
	EntryCost int64
	// Closed returns why the platform closes a flow, or "". It may be nil.
	Closed func(flow flows.Flow) string
}

// DefaultEntryCost is the usual Options.EntryCost. With it, two flows in one /26 become one prefix.
const DefaultEntryCost = 64

// Proposal is a policy for the pods of one namespace.
type Proposal struct {
	// Namespace is empty if the pods are unknown.
	Namespace string
	Entries   []Entry
	// Flows is the number of flows of the namespace.
	Flows int
	// EntryCost is Options.EntryCost, or a higher cost if a policy cannot have so many entries.
	EntryCost int64
	// Closed are the flows that no policy can open, because the platform closes them.
	Closed []ClosedFlows
	// Denied is the number of flows that the dataplane always denied. The policy does not open them.
	Denied int
	// DNS is the number of flows to port 53 of the cluster, which every policy allows.
	DNS int
	// Other is the number of flows to addresses outside the cluster's family.
	Other int
}

// Entry is a proposed destination, and why.
type Entry struct {
	policy.Destination
	Evidence Evidence
}

// Evidence describes the flows of a destination, and its cost.
type Evidence struct {
	Flows     int // distinct flows
	Records   int64
	Addresses int // distinct destinations
	Sources   int // distinct source addresses
	First     time.Time
	Last      time.Time
	// Opens is how many addresses the entry opens. It is 0 for pods, and for more than 2^53 addresses.
	Opens int64
	// Unpublished names the wide service that alone has the address, such as AMAZON us-east-1. It is empty for another
	// address.
	Unpublished string
}

// ClosedFlows are flows that the platform closes for one reason.
type ClosedFlows struct {
	Reason string
	Flows  int
}

// portKey is a port of a protocol.
type portKey struct {
	protocol policy.Protocol
	port     uint16
}

// Propose returns a proposal for each namespace that has flows, sorted by namespace.
func Propose(all []flows.Flow, options Options) []Proposal {
	byNamespace := make(map[string][]int32) // indexes in all, because flows are large
	for i, flow := range all {
		namespace := options.Cluster.NamespaceOf(flow.Source)
		byNamespace[namespace] = append(byNamespace[namespace], int32(i))
	}
	index := newRowIndex(options.Table)
	var proposals []Proposal
	for _, namespace := range slices.Sorted(maps.Keys(byNamespace)) {
		p := &proposer{all: all, index: index, options: options, proposal: Proposal{Namespace: namespace}, groups: make(map[target]*group)}
		proposals = append(proposals, p.propose(byNamespace[namespace]))
	}
	return proposals
}

// target identifies an entry: a service, pods or a prefix. Its ports are separate.
type target struct {
	service, region string
	namespace       string
	labels          string // as "app=web,tier=front"
	isPods          bool
	prefix          netip.Prefix
}

// proposer makes the proposal for one namespace.
type proposer struct {
	all      []flows.Flow
	index    *rowIndex
	options  Options
	proposal Proposal
	groups   map[target]*group
}

// propose returns the proposal for the flows with these indexes.
func (p *proposer) propose(own []int32) Proposal {
	p.proposal.Flows = len(own)
	closed := make(map[string]int)
	rest := make(map[portKey][]int32)
	for _, i := range own {
		flow := p.all[i]
		host := netip.PrefixFrom(flow.Destination, flow.Destination.BitLen())
		switch {
		case flow.Accepted == 0:
			p.proposal.Denied++
			continue
		case !p.options.Family.Includes(host):
			p.proposal.Other++
			continue
		case p.options.Cluster.IsDNS(flow):
			p.proposal.DNS++
			continue
		}
		if p.options.Closed != nil {
			if reason := p.options.Closed(flow); reason != "" {
				closed[reason]++
				continue
			}
		}
		if t, ok := podsOf(p.options.Cluster, p.proposal.Namespace, flow); ok {
			flow.Port = p.options.Cluster.PortOf(flow)
			p.add(t, flow)
		} else if key, ok := p.index.serviceOf(flow.Destination); ok {
			p.add(target{service: key.Service, region: key.Region}, flow)
		} else {
			port := portKey{flow.Protocol, flow.Port}
			rest[port] = append(rest[port], i)
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(closed)) {
		p.proposal.Closed = append(p.proposal.Closed, ClosedFlows{reason, closed[reason]})
	}
	p.cover(rest)
	p.proposal.Entries = p.entries()
	return p.proposal
}

// maxEntryCost makes one prefix of any IPv4 addresses.
const maxEntryCost = 1 << 32

// cover covers the destinations of the flows by prefixes, for each port. If there would be too many entries for a policy,
// it makes an entry cost more.
func (p *proposer) cover(rest map[portKey][]int32) {
	covers := make(map[portKey][]part, len(rest))
	entryCost := p.options.EntryCost
	for port, indexes := range rest {
		list := make([]netip.Addr, len(indexes))
		for k, i := range indexes {
			list[k] = p.all[i].Destination
		}
		slices.SortFunc(list, netip.Addr.Compare)
		covers[port] = cover(partsOf(slices.Compact(list)), entryCost)
	}
	for countPrefixes(covers)+len(p.groups) > policy.MaxDestinations && entryCost < maxEntryCost {
		entryCost = max(4*entryCost, 1)
		for port := range covers {
			covers[port] = cover(covers[port], entryCost)
		}
	}
	p.proposal.EntryCost = entryCost
	for port, indexes := range rest {
		chosen := covers[port]
		for _, i := range indexes {
			flow := p.all[i]
			k, isExact := slices.BinarySearchFunc(chosen, flow.Destination, func(c part, address netip.Addr) int { return c.prefix.Addr().Compare(address) })
			if !isExact {
				k--
			}
			p.add(target{prefix: chosen[k].prefix}, flow)
		}
	}
}

// countPrefixes returns the number of distinct prefixes in covers. It returns more than policy.MaxDestinations early.
func countPrefixes(covers map[portKey][]part) int {
	distinct := make(map[netip.Prefix]bool)
	for _, parts := range covers {
		for _, c := range parts {
			if distinct[c.prefix] = true; len(distinct) > policy.MaxDestinations {
				return len(distinct)
			}
		}
	}
	return len(distinct)
}

// group has the flows of one target, added up.
type group struct {
	evidence     Evidence
	ports        map[portKey]bool
	destinations map[netip.Addr]bool
	sources      map[netip.Addr]bool
}

// add adds a flow to a target.
func (p *proposer) add(t target, flow flows.Flow) {
	g := p.groups[t]
	if g == nil {
		g = &group{ports: make(map[portKey]bool), destinations: make(map[netip.Addr]bool), sources: make(map[netip.Addr]bool)}
		p.groups[t] = g
	}
	g.ports[portKey{flow.Protocol, flow.Port}], g.destinations[flow.Destination], g.sources[flow.Source] = true, true, true
	g.evidence.Flows++
	g.evidence.Records += flow.Accepted
	if at := time.Unix(flow.First, 0).UTC(); flow.First != 0 && (g.evidence.First.IsZero() || at.Before(g.evidence.First)) {
		g.evidence.First = at
	}
	if at := time.Unix(flow.Last, 0).UTC(); flow.Last != 0 && at.After(g.evidence.Last) {
		g.evidence.Last = at
	}
}

// entries returns an entry for each target: pods first, then services, then prefixes.
func (p *proposer) entries() []Entry {
	var entries []Entry
	names := make(map[string]bool)
	for _, t := range slices.SortedFunc(maps.Keys(p.groups), compareTargets) {
		g := p.groups[t]
		e := Entry{Destination: policy.Destination{Name: nameOf(t, names), Ports: portsOf(g.ports)}, Evidence: g.evidence}
		e.Evidence.Addresses, e.Evidence.Sources = len(g.destinations), len(g.sources)
		switch {
		case t.isPods:
			e.Pods = &policy.Pods{Namespace: t.namespace, Labels: parseLabels(t.labels)}
		case t.service != "":
			e.Service, e.Regions = strings.ToLower(t.service), []string{t.region}
			for _, prefix := range p.options.Table.Lookup(t.service, t.region) {
				if p.options.Family.Includes(prefix) {
					e.Evidence.Opens += addressCount(prefix)
				}
			}
		default:
			e.CIDR = t.prefix
			e.Evidence.Opens = addressCount(t.prefix)
			e.Evidence.Unpublished = p.index.ownerOf(t.prefix.Addr())
		}
		entries = append(entries, e)
	}
	return entries
}

func compareTargets(a, b target) int {
	kind := func(t target) int {
		switch {
		case t.isPods:
			return 0
		case t.service != "":
			return 1
		}
		return 2
	}
	return cmp.Or(cmp.Compare(kind(a), kind(b)), strings.Compare(a.namespace, b.namespace), strings.Compare(a.labels, b.labels),
		strings.Compare(a.service, b.service), strings.Compare(a.region, b.region), a.prefix.Addr().Compare(b.prefix.Addr()), a.prefix.Bits()-b.prefix.Bits())
}

// addressCount returns the number of addresses of a prefix; 0 if there are more than 2^53.
func addressCount(prefix netip.Prefix) int64 {
	if bits := prefix.Addr().BitLen() - prefix.Bits(); bits <= 53 {
		return 1 << bits
	}
	return 0
}

// maxPortRanges is how many ports and port ranges an entry may have: AWS VPC CNI enforces 24 for a CIDR, and DNS takes 2.
const maxPortRanges = netpol.DefaultPortSlots - netpol.DNSSlots

// portsOf returns ports in ascending order. Contiguous ports join to ranges. If there are too many ranges, the closest ones
// join.
func portsOf(seen map[portKey]bool) []policy.Port {
	keys := slices.SortedFunc(maps.Keys(seen), func(a, b portKey) int {
		return cmp.Or(strings.Compare(string(a.protocol), string(b.protocol)), cmp.Compare(a.port, b.port))
	})
	var ports []policy.Port
	for _, k := range keys {
		if n := len(ports); n > 0 && ports[n-1].Protocol == k.protocol && ports[n-1].Last+1 == k.port {
			ports[n-1].Last = k.port
			continue
		}
		ports = append(ports, policy.Port{Protocol: k.protocol, First: k.port, Last: k.port})
	}
	for len(ports) > maxPortRanges {
		closest, gap := -1, 1<<17
		for i := range ports[1:] {
			if distance := int(ports[i+1].First) - int(ports[i].Last); ports[i].Protocol == ports[i+1].Protocol && distance < gap {
				closest, gap = i, distance
			}
		}
		ports[closest].Last = ports[closest+1].Last
		ports = slices.Delete(ports, closest+1, closest+2)
	}
	return ports
}

// nameOf returns a name for an entry that no other entry has, and records it.
func nameOf(t target, names map[string]bool) string {
	const maxLength = 63 - len("-1000")
	name := ""
	switch {
	case t.isPods:
		name = strings.Trim(cmp.Or(valueOf(t.labels), "pods")+"-"+t.namespace, "-")
	case t.service != "":
		name = strings.ToLower(strings.ReplaceAll(t.service, "_", "-") + "-" + t.region)
	default:
		name = strings.NewReplacer(".", "-", ":", "-", "/", "-").Replace(t.prefix.String())
		if t.prefix.IsSingleIP() {
			name = strings.NewReplacer(".", "-", ":", "-").Replace(t.prefix.Addr().String())
		}
	}
	name = name[:min(len(name), maxLength)]
	unique := name
	for i := 2; names[unique]; i++ {
		unique = fmt.Sprintf("%s-%d", name, i)
	}
	names[unique] = true
	return unique
}

// valueOf returns the value of the first label.
func valueOf(labels string) string {
	first, _, _ := strings.Cut(labels, ",")
	_, value, _ := strings.Cut(first, "=")
	return value
}

func parseLabels(text string) map[string]string {
	labels := make(map[string]string)
	for pair := range strings.SplitSeq(text, ",") {
		if key, value, ok := strings.Cut(pair, "="); ok {
			labels[key] = value
		}
	}
	return labels
}
