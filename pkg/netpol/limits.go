package netpol

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"egress-agent/pkg/internal/prefixes"
	"egress-agent/pkg/policy"
)

// The limits of AWS VPC CNI's dataplane. A CIDR has 24 port slots. If a policy needs more slots, AWS VPC CNI enforces
// 24 random ports after each update (aws/containers-roadmap#2481, MAX_PORT_PROTOCOL in aws/aws-network-policy-agent). A
// pod's map has 65,536 entries. During an update it holds the new entries and the entries that they replace.
const (
	// DefaultPortSlots is the number of port slots of a CIDR.
	DefaultPortSlots = 24
	// DNSSlots is the number of slots that the DNS rule may take of any CIDR, because the address of the DNS Service may
	// be in any CIDR.
	DNSSlots = 2
	// maxPeersInOneStep is the highest number of peers in one PolicyEndpoints object. The dataplane updates more peers in
	// several steps.
	maxPeersInOneStep = 1000
	// maxPeers is the highest number of peers that the agent writes for a pod. Twice as many fit into the pod's map, and
	// leave room.
	maxPeers = 30000
)

// prefixSlots is a CIDR with its port slots, without the slots of DNS.
type prefixSlots struct {
	prefix netip.Prefix
	slots  int
}

// slotProblems returns a problem for each block that takes too many port slots. A block takes slots for its ports and
// for the ports of every block that contains it. The blocks with the most slots come first. If the same destinations
// open several blocks, slotProblems reports only the first block.
//
// A pod that the policy opens may have an address in any block, so the ports of pods count for each block.
func slotProblems(blocks prefixes.Blocks, pods []openedPods, p *policy.Policy, c *collector, options Options) policy.Problems {
	const maxReported = 100 // a policy can have thousands of problems, and the first show what to do
	if options.MaxPortSlots == 0 {
		return nil
	}
	ofPods := podSlots(pods)
	if options.exceedsSlots(ofPods) {
		return policy.Problems{slotProblem("a pod", ofPods, podDestinations(p), options)}
	}
	var tooMany []prefixSlots
	for prefix, slots := range blocks.Slots() {
		if options.exceedsSlots(slots + ofPods) {
			tooMany = append(tooMany, prefixSlots{prefix, slots + ofPods})
		}
	}
	slices.SortStableFunc(tooMany, func(a, b prefixSlots) int { return b.slots - a.slots })
	var problems policy.Problems
	reported := make(map[string]bool)
	for _, s := range tooMany[:min(len(tooMany), maxReported)] {
		names := destinationsOpening(s.prefix, p, c)
		if reported[names] {
			continue
		}
		reported[names] = true
		problems = append(problems, slotProblem(s.prefix.String(), s.slots, names, options))
	}
	return problems
}

// slotProblem returns the problem of subject, a CIDR or a destination that takes too many port slots. The message
// names portOwners, the destinations whose ports the user must change, such as "db, web".
func slotProblem(subject string, slots int, portOwners string, options Options) policy.Problem {
	note := ""
	if options.AllowDNS {
		note = fmt.Sprintf(", and DNS takes %d", DNSSlots)
	}
	return policy.Problem{Path: "allowedDestinations", Message: fmt.Sprintf(
		"Too many ports: %s has %d ports and port ranges%s; AWS VPC CNI enforces at most %d for a CIDR: merge or remove ports of %s",
		subject, slots, note, options.MaxPortSlots, portOwners)}
}

// podDestinations returns the names of the destinations that open pods, such as "db, web".
func podDestinations(p *policy.Policy) string {
	var names []string
	for _, d := range p.Destinations {
		if d.Pods != nil {
			names = append(names, d.Name)
		}
	}
	return joinNames(names)
}

// joinNames joins names. After 10 names it gives the number of the remaining names.
func joinNames(names []string) string {
	const maxShown = 10
	if more := len(names) - maxShown; more > 0 {
		names = append(slices.Clip(names[:maxShown]), fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

// exceedsSlots reports whether the slots of a CIDR exceed MaxPortSlots. It adds the slots of DNS if o allows DNS.
func (o Options) exceedsSlots(slots int) bool {
	if o.AllowDNS {
		slots += DNSSlots
	}
	return o.MaxPortSlots != 0 && slots > o.MaxPortSlots
}

// portCountProblems returns a problem for each destination with too many ports, if the policy has so many ports that
// merging them costs too much. Otherwise it returns nil, and slotProblems finds the problems and names the CIDRs.
func (c *collector) portCountProblems(p *policy.Policy, options Options) policy.Problems {
	const manyRanges = prefixes.MaxPortRanges / 8
	var problems policy.Problems
	for _, d := range p.Destinations {
		if c.builder.PortRanges() <= manyRanges || len(problems) == policy.MaxProblems {
			break
		}
		if ranges := len(prefixes.MergePorts(portRanges(d.Ports))); options.exceedsSlots(ranges) {
			problems = append(problems, slotProblem(d.Name, ranges, d.Name, options))
		}
	}
	return problems
}

// destinationsOpening returns the names of the destinations that open pods or any address in prefix, such as "db, web".
func destinationsOpening(prefix netip.Prefix, p *policy.Policy, c *collector) string {
	overlapping := make(map[*part]bool)
	for _, part := range c.parts {
		if overlapsAny(part.prefixes, prefix) {
			overlapping[part] = true
		}
	}
	var names []string
	for _, d := range p.Destinations {
		found := c.addressesOf(d)
		isOpening := d.Pods != nil || found.cidr.IsValid() && prefix.Overlaps(found.cidr) || overlapsAny(found.rest, prefix) ||
			slices.ContainsFunc(found.parts, func(part *part) bool { return overlapping[part] }) ||
			slices.ContainsFunc(found.apiServer, func(address netip.AddrPort) bool { return prefix.Contains(address.Addr()) })
		if isOpening {
			names = append(names, d.Name)
		}
	}
	return joinNames(names)
}

// overlapsAny reports whether any of the sorted, disjoint prefixes shares an address with prefix.
func overlapsAny(sorted []netip.Prefix, prefix netip.Prefix) bool {
	i, _ := slices.BinarySearchFunc(sorted, prefix, prefixes.Compare)
	return i < len(sorted) && sorted[i].Overlaps(prefix) || i > 0 && sorted[i-1].Overlaps(prefix)
}

// warnOfPeers adds a warning if a policy has more CIDRs than fit into one PolicyEndpoints object.
func warnOfPeers(peerCount int, counts []Count, warnings *policy.Warnings) {
	if peerCount > maxPeersInOneStep && peerCount <= maxPeers {
		warnings.AddProblem(policy.ManyCIDRs, policy.Problem{Path: "allowedDestinations", Message: fmt.Sprintf(
			"the policy has %d CIDRs; the dataplane updates more than %d in several steps: %s", peerCount, maxPeersInOneStep, formatLargest(counts))})
	}
}

// peerProblems returns a problem if a policy has more CIDRs than fit into a pod's map, or nil.
func peerProblems(peerCount int, counts []Count) policy.Problems {
	if peerCount <= maxPeers {
		return nil
	}
	return policy.Problems{{Path: "allowedDestinations", Message: fmt.Sprintf(
		"Too many CIDRs: %d; at most %d fit in the dataplane, which holds old and new CIDRs during an update: %s", peerCount, maxPeers, formatLargest(counts))}}
}

// formatLargest returns the two destinations with the most CIDRs, as "a has 15, b has 2, 3 more".
func formatLargest(counts []Count) string {
	const maxShown = 2 // two names fit into a warning
	sorted := slices.Clone(counts)
	slices.SortStableFunc(sorted, func(a, b Count) int { return b.CIDRs - a.CIDRs })
	var parts []string
	for i, c := range sorted {
		if i == maxShown {
			parts = append(parts, fmt.Sprintf("%d more", len(sorted)-i))
			break
		}
		parts = append(parts, fmt.Sprintf("%s has %d", c.Name, c.CIDRs))
	}
	return strings.Join(parts, ", ")
}
