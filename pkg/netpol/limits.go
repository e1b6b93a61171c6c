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
	// dnsSlots are kept back for the DNS rule: the address of the DNS Service may lie in any CIDR.
	dnsSlots = 2
	// manyPeers is what goes in one PolicyEndpoints object; more are updated in several steps.
	manyPeers = 1000
	maxPeers  = 30000
)

// slotProblems finds the blocks with more port slots than there are: their own, and those of every
// block that contains them, since the dataplane looks up the longest prefix alone and copies what
// containing ones allow. Blocks are merged and sorted. Of those with the same entries to blame it
// names the one with the most slots.
func slotProblems(blocks []block, sets *portSets, p *policy.Policy, table *awsranges.Table, options Options) policy.Problems {
	if options.MaxPortSlots == 0 {
		return nil
	}
	kept := 0
	if options.AllowDNS {
		kept = dnsSlots
	}
	worst := make(map[string]slotted)
	for s := range slotsOf(blocks, sets) {
		if s.slots+kept <= options.MaxPortSlots {
			continue
		}
		blamed := strings.Join(toBlame(s.prefix, p, table), ", ")
		if s.slots > worst[blamed].slots {
			worst[blamed] = s
		}
	}
	var problems policy.Problems
	for blamed, s := range worst {
		message := fmt.Sprintf("Too many ports: %s has %d ports and port ranges", s.prefix, s.slots)
		if kept > 0 {
			message += fmt.Sprintf(", and DNS takes %d", kept)
		}
		message += fmt.Sprintf("; the dataplane keeps %d for a CIDR: join or drop ports of %s", options.MaxPortSlots, blamed)
		problems = append(problems, policy.Problem{Message: message, Path: "allowedDestinations"})
	}
	slices.SortFunc(problems, func(a, b policy.Problem) int { return strings.Compare(a.Message, b.Message) })
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

// toBlame returns the names of the destinations that open any address of the prefix.
func toBlame(prefix netip.Prefix, p *policy.Policy, table *awsranges.Table) []string {
	var names []string
	for _, d := range p.Destinations {
		prefixes, _ := resolve(d, table)
		if slices.ContainsFunc(prefixes, prefix.Overlaps) {
			names = append(names, d.Name)
		}
	}
	return names
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
