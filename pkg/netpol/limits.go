package netpol

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"egress-agent/pkg/awsranges"
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

// slotProblems finds the blocks with more port slots than there are: their own, and those of every
// block that contains them, since the dataplane looks up the longest prefix alone and copies what
// containing ones allow. Blocks are merged and sorted; prefixes are those of each destination. The
// blocks with the most slots come first, and of those with the same entries to blame only one.
func slotProblems(blocks []block, sets *portSets, p *policy.Policy, prefixes [][]netip.Prefix, options Options) policy.Problems {
	const examined = 100 // a policy can have thousands, and one shows what to do
	if options.MaxPortSlots == 0 {
		return nil
	}
	kept, note := 0, ""
	if options.AllowDNS {
		kept, note = DNSSlots, fmt.Sprintf(", and DNS takes %d", DNSSlots)
	}
	var tooMany []slotted
	for s := range slotsOf(blocks, sets) {
		if s.slots+kept > options.MaxPortSlots {
			tooMany = append(tooMany, s)
		}
	}
	slices.SortStableFunc(tooMany, func(a, b slotted) int { return b.slots - a.slots })
	var problems policy.Problems
	told := make(map[string]bool)
	for _, s := range tooMany[:min(len(tooMany), examined)] {
		blamed := toBlame(s.prefix, p, prefixes)
		if told[blamed] {
			continue
		}
		told[blamed] = true
		problems = append(problems, policy.Problem{Path: "allowedDestinations", Message: fmt.Sprintf(
			"Too many ports: %s has %d ports and port ranges%s; the dataplane keeps %d for a CIDR: join or drop ports of %s",
			s.prefix, s.slots, note, options.MaxPortSlots, blamed)})
	}
	return problems
}

type slotted struct {
	prefix netip.Prefix
	slots  int
}

// slotsOf yields each block's prefix with its slots, own and inherited. Blocks are sorted.
func slotsOf(blocks []block, sets *portSets) func(yield func(slotted) bool) {
	return func(yield func(slotted) bool) {
		var containers []slotted // of the current block, the outermost first
		for _, b := range blocks {
			for n := len(containers); n > 0 && !awsranges.Contains(containers[n-1].prefix, b.prefix); n = len(containers) {
				containers = containers[:n-1]
			}
			s := slotted{b.prefix, sets.sets[b.ports].slots()}
			if n := len(containers); n > 0 {
				s.slots += containers[n-1].slots
			}
			containers = append(containers, s)
			if !yield(s) {
				return
			}
		}
	}
}

// slots is how many of a CIDR's the set takes: one for each range, and one for every port.
func (s portSet) slots() int {
	if s.every {
		return 1
	}
	return len(s.ranges)
}

// toBlame names the destinations that open any address of the prefix.
func toBlame(prefix netip.Prefix, p *policy.Policy, prefixes [][]netip.Prefix) string {
	const shown = 10
	var names []string
	for i, d := range p.Destinations {
		if slices.ContainsFunc(prefixes[i], prefix.Overlaps) {
			names = append(names, d.Name)
		}
	}
	if more := len(names) - shown; more > 0 {
		names = append(names[:shown], fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

// peerLimits warns of many peers, and refuses too many.
func peerLimits(peers int, counts []Count) (warnings, problems policy.Problems) {
	switch {
	case peers > maxPeers:
		problems = policy.Problems{{Message: fmt.Sprintf("Too many CIDRs: %d; at most %d fit in the dataplane beside those they replace: %s", peers, maxPeers, largest(counts)), Path: "allowedDestinations"}}
	case peers > manyPeers:
		warnings = policy.Problems{{Message: fmt.Sprintf("the policy has %d CIDRs; the dataplane updates more than %d in several steps: %s", peers, manyPeers, largest(counts)), Path: "allowedDestinations"}}
	}
	return warnings, problems
}

// largest names the destinations with the most CIDRs, and how many each has.
func largest(counts []Count) string {
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
