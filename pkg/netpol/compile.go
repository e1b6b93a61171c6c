package netpol

import (
	"fmt"
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/policy"
)

// Result is what a valid policy compiles to.
type Result struct {
	// Spec is the NetworkPolicy's: egress only, for every pod of the namespace.
	Spec networkingv1.NetworkPolicySpec
	// Counts are in the policy's order, without those of Unresolved; empty where defaultAction is allow.
	Counts []Count
	// Unresolved are the names of the destinations, in the policy's order, whose service no table
	// holds because AWS's document is not there. Spec lacks them, and is complete without them only
	// when there are none.
	Unresolved []string
	// Warnings say what the policy opens, or fails to open, beyond what it seems to.
	Warnings policy.Problems
}

// Count is how many prefixes of the cluster's family a destination stands for, before any merging
// with other destinations.
type Count struct {
	Name  string
	CIDRs int
}

// Compile turns a valid policy into the rules that allow exactly what it says: the union of its
// destinations' (address, protocol, port), limited to the cluster's family. The table may be nil.
// Exactly one of Result and Problems is nil: a policy that the dataplane could not enforce is a
// problem, as a mistake in it is.
//
// A destination that stands for no prefix yields no rule, and a warning. Each prefix stands in one
// rule, each set of ports in one rule, and rules and peers are sorted.
func Compile(p *policy.Policy, table *awsranges.Table, options Options) (*Result, policy.Problems) {
	return compile(p, table, options, &policy.Warnings{})
}

func compile(p *policy.Policy, table *awsranges.Table, options Options, warnings *policy.Warnings) (*Result, policy.Problems) {
	result, blocks, sets, problems := check(p, table, options, warnings)
	switch {
	case problems != nil:
		return nil, problems
	case p.DefaultAction == policy.Allow:
		result.Spec = spec([]networkingv1.NetworkPolicyEgressRule{allowAllRule()})
	default:
		result.Spec = spec(appendPrefixRules(baseRules(options), blocks, sets))
	}
	result.Warnings = warnings.List()
	return result, nil
}

// check is all of Compile but the spec: it gives what the spec is made of. Warnings may be nil for none.
func check(p *policy.Policy, table *awsranges.Table, options Options, warnings *policy.Warnings) (result *Result, blocks []prefixPorts, sets *portSets, problems policy.Problems) {
	result, sets = &Result{}, newPortSets()
	if p.DefaultAction == policy.Allow {
		return result, nil, sets, nil
	}
	g := newGathering(table, options.Family, sets, len(p.Destinations))
	for i, d := range p.Destinations {
		a := g.lookup(d)
		warn(i, d, a, table, options.Family, warnings)
		if !a.resolved {
			result.Unresolved = append(result.Unresolved, d.Name)
			continue
		}
		g.add(a, sets.setFor(d.Ports))
		result.Counts = append(result.Counts, Count{d.Name, a.count})
	}
	if problem := sets.tooLarge(p, options); problem != nil {
		return result, nil, sets, problem
	}
	blocks = normalize(g.gather(), sets)
	if sets.overflow {
		return result, nil, sets, policy.Problems{{Path: "allowedDestinations", Message: fmt.Sprintf(
			"Too many ports: over all CIDRs there are more than %d ports and port ranges; join or drop some", maxRanges)}}
	}
	warnOfPeers(len(blocks), result.Counts, warnings)
	return result, blocks, sets, append(slotProblems(blocks, sets, p, g, options), peerProblems(len(blocks), result.Counts)...)
}

// DenyAll is the spec that allows nothing but what the options allow every policy: DNS.
func DenyAll(options Options) networkingv1.NetworkPolicySpec { return spec(baseRules(options)) }

// resolve returns a destination's prefixes of both families. It is false for a service that cannot
// be looked up, since AWS's document is not in the table.
func resolve(d policy.Destination, table *awsranges.Table) (prefixes []netip.Prefix, ok bool) {
	if d.Service == "" {
		return []netip.Prefix{d.CIDR}, true
	}
	service := awsranges.Canonical(d.Service)
	if !canLookUp(service, table) {
		return nil, false
	}
	return lookUp(service, d.Regions, table), true
}

// canLookUp reports whether the table says all there is of a service, be it nothing.
func canLookUp(service string, table *awsranges.Table) bool {
	return table.HasAWS() || table != nil && table.Regions(service) != nil
}

// lookUp returns the prefixes of a service in the regions, all of them if none is named: disjoint and sorted, and not to
// be modified.
func lookUp(service string, regions []string, table *awsranges.Table) []netip.Prefix {
	switch len(regions) {
	case 0:
		return table.Lookup(service, "")
	case 1:
		return table.Lookup(service, regions[0])
	}
	var prefixes []netip.Prefix
	for _, region := range regions {
		prefixes = append(prefixes, table.Lookup(service, region)...)
	}
	return awsranges.Aggregate(prefixes)
}

func baseRules(options Options) []networkingv1.NetworkPolicyEgressRule {
	if !options.AllowDNS {
		return nil
	}
	const usual = 3 // with those of the prefixes
	return append(make([]networkingv1.NetworkPolicyEgressRule, 0, usual), dnsRule(options.DNSCIDRs).toAPI())
}

// appendPrefixRules adds one rule for each set of ports among the blocks, sorted by it. Blocks are sorted, and are
// left sorted by their ports first.
func appendPrefixRules(rules []networkingv1.NetworkPolicyEgressRule, blocks []prefixPorts, sets *portSets) []networkingv1.NetworkPolicyEgressRule {
	slices.SortStableFunc(blocks, func(a, b prefixPorts) int {
		if a.ports == b.ports {
			return 0
		}
		return sets.sets[a.ports].compare(sets.sets[b.ports])
	})
	peers := prefixPeers(len(blocks), func(i int) netip.Prefix { return blocks[i].prefix })
	for first, end := 0, 0; first < len(blocks); first = end {
		ports := blocks[first].ports
		for end = first + 1; end < len(blocks) && blocks[end].ports == ports; end++ {
		}
		rules = append(rules, rule{first: peers[first], rest: peers[first+1 : end], ports: sets.sets[ports].toAPI()}.toAPI())
	}
	return rules
}

// spec always says Egress: left out, a policy without rules would be one for ingress, and egress
// would stay open.
func spec(egress []networkingv1.NetworkPolicyEgressRule) networkingv1.NetworkPolicySpec {
	return networkingv1.NetworkPolicySpec{
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
		Egress:      egress,
	}
}
