package netpol

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"egress-agent/pkg/internal/prefixes"
	"egress-agent/pkg/policy"
)

// What AWS VPC CNI's dataplane takes. A CIDR has 24 port slots, and beyond them a random 24 ports
// survive each update (aws/containers-roadmap#2481, MAX_PORT_PROTOCOL in aws/aws-network-policy-agent);
// a pod's map has 65,536 entries, in which an update has to fit beside what it replaces.
const (
	// DefaultPortSlots is what a CIDR has.
	DefaultPortSlots = 24
	// DNSSlots are kept back for the DNS rule: the address of the DNS Service may lie in any CIDR.
	DNSSlots = 2
	// manyPeers is what goes in one PolicyEndpoints object; more are updated in several steps.
	manyPeers = 1000
	maxPeers  = 30000
)

// prefixSlots is a CIDR with its port slots, DNS's not counted.
type prefixSlots struct {
	prefix netip.Prefix
	slots  int
}

// slotProblems finds the blocks with more port slots than there are: their own, and those of every
// block that contains them, since the dataplane looks up the longest prefix alone and copies what
// containing ones allow. Blocks are merged and sorted. The blocks with the most slots come first, and of those with the
// same entries to blame only one.
func slotProblems(blocks prefixes.Blocks, p *policy.Policy, g *gathering, options Options) policy.Problems {
	const examined = 100 // a policy can have thousands, and one shows what to do
	if options.MaxPortSlots == 0 {
		return nil
	}
	var tooMany []prefixSlots
	for prefix, slots := range blocks.Slots() {
		if options.exceedsSlots(slots) {
			tooMany = append(tooMany, prefixSlots{prefix, slots})
		}
	}
	slices.SortStableFunc(tooMany, func(a, b prefixSlots) int { return b.slots - a.slots })
	var problems policy.Problems
	told := make(map[string]bool)
	for _, s := range tooMany[:min(len(tooMany), examined)] {
		blamed := destinationsOpening(s.prefix, p, g)
		if told[blamed] {
			continue
		}
		told[blamed] = true
		problems = append(problems, slotProblem(s.prefix.String(), s.slots, blamed, options))
	}
	return problems
}

func slotProblem(of string, slots int, blamed string, options Options) policy.Problem {
	note := ""
	if options.AllowDNS {
		note = fmt.Sprintf(", and DNS takes %d", DNSSlots)
	}
	return policy.Problem{Path: "allowedDestinations", Message: fmt.Sprintf(
		"Too many ports: %s has %d ports and port ranges%s; the dataplane keeps %d for a CIDR: join or drop ports of %s",
		of, slots, note, options.MaxPortSlots, blamed)}
}

// exceedsSlots reports whether a CIDR's slots, with those that DNS takes, are more than there are.
func (o Options) exceedsSlots(slots int) bool {
	if o.AllowDNS {
		slots += DNSSlots
	}
	return o.MaxPortSlots != 0 && slots > o.MaxPortSlots
}

// tooLarge refuses a policy whose lists of ports are too long to be merged, which the slots of a CIDR allow none of.
// Shorter ones slotProblems judges, which knows more to say.
func (g *gathering) tooLarge(p *policy.Policy, options Options) policy.Problems {
	const long = prefixes.MaxPortRanges / 8
	var problems policy.Problems
	for _, d := range p.Destinations {
		if g.builder.PortRanges() <= long || len(problems) == policy.MaxProblems {
			break
		}
		if ranges := len(prefixes.MergePorts(portRanges(d.Ports))); options.exceedsSlots(ranges) {
			problems = append(problems, slotProblem(d.Name, ranges, d.Name, options))
		}
	}
	return problems
}

// destinationsOpening names the destinations that open any address of the prefix.
func destinationsOpening(prefix netip.Prefix, p *policy.Policy, g *gathering) string {
	const shown = 10
	overlapping := make(map[*part]bool)
	for _, part := range g.parts {
		if overlapsAny(part.prefixes, prefix) {
			overlapping[part] = true
		}
	}
	var names []string
	for _, d := range p.Destinations {
		if d.Service == "" && prefix.Overlaps(d.CIDR) ||
			d.Service != "" && slices.ContainsFunc(g.lookup(d).parts, func(part *part) bool { return overlapping[part] }) {
			names = append(names, d.Name)
		}
	}
	if more := len(names) - shown; more > 0 {
		names = append(names[:shown], fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

// overlapsAny reports whether any of sorted, disjoint prefixes has an address in common with a prefix.
func overlapsAny(sorted []netip.Prefix, prefix netip.Prefix) bool {
	i, _ := slices.BinarySearchFunc(sorted, prefix, prefixes.Compare)
	return i < len(sorted) && sorted[i].Overlaps(prefix) || i > 0 && sorted[i-1].Overlaps(prefix)
}

// warnOfPeers warns of more CIDRs than go in one PolicyEndpoints object.
func warnOfPeers(peers int, counts []Count, warnings *policy.Warnings) {
	if peers > manyPeers && peers <= maxPeers {
		warnings.AddProblem(policy.ManyCIDRs, policy.Problem{Path: "allowedDestinations", Message: fmt.Sprintf(
			"the policy has %d CIDRs; the dataplane updates more than %d in several steps: %s", peers, manyPeers, formatLargest(counts))})
	}
}

// peerProblems refuses more CIDRs than fit in a pod's map.
func peerProblems(peers int, counts []Count) policy.Problems {
	if peers <= maxPeers {
		return nil
	}
	return policy.Problems{{Path: "allowedDestinations", Message: fmt.Sprintf(
		"Too many CIDRs: %d; at most %d fit in the dataplane beside those they replace: %s", peers, maxPeers, formatLargest(counts))}}
}

// formatLargest names the destinations with the most CIDRs, and how many each has.
func formatLargest(counts []Count) string {
	const shown = 2 // their names fit in a warning
	sorted := slices.Clone(counts)
	slices.SortStableFunc(sorted, func(a, b Count) int { return b.CIDRs - a.CIDRs })
	var parts []string
	for i, c := range sorted {
		if i == shown {
			parts = append(parts, fmt.Sprintf("%d more", len(sorted)-i))
			break
		}
		parts = append(parts, fmt.Sprintf("%s has %d", c.Name, c.CIDRs))
	}
	return strings.Join(parts, ", ")
}
