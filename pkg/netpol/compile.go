package netpol

import (
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
	result, blocks, sets, problems := check(p, table, options)
	switch {
	case problems != nil:
		return nil, problems
	case p.DefaultAction == policy.Allow:
		result.Spec = spec([]networkingv1.NetworkPolicyEgressRule{everything()})
	default:
		result.Spec = spec(appendPrefixRules(baseRules(options), blocks, sets))
	}
	return result, nil
}

// check is all of Compile but the spec: it gives what the spec is made of.
func check(p *policy.Policy, table *awsranges.Table, options Options) (result *Result, blocks []block, sets *portSets, problems policy.Problems) {
	result, sets = &Result{}, newPortSets()
	if p.DefaultAction == policy.Allow {
		return result, nil, sets, nil
	}
	all := make([][]netip.Prefix, len(p.Destinations))
	for i, d := range p.Destinations {
		prefixes, resolved := resolve(d, table)
		all[i] = prefixes
		result.Warnings = append(result.Warnings, warnings(i, d, prefixes, resolved, table, options.Family)...)
		if !resolved {
			result.Unresolved = append(result.Unresolved, d.Name)
			continue
		}
		ports, count := sets.of(d.Ports), 0
		for _, prefix := range prefixes {
			if options.Family.has(prefix) {
				count++
			}
		}
		if count > 1 {
			blocks = slices.Grow(blocks, count+len(p.Destinations)-i)
		}
		for _, prefix := range prefixes {
			if options.Family.has(prefix) {
				blocks = append(blocks, block{prefix, ports})
			}
		}
		result.Counts = append(result.Counts, Count{d.Name, count})
	}
	blocks = merge(blocks, sets)
	many, tooMany := peerLimits(len(blocks), result.Counts)
	result.Warnings = append(result.Warnings, many...)
	return result, blocks, sets, append(slotProblems(blocks, sets, p, all, options), tooMany...)
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
	if !table.HasAWS() && (table == nil || table.Regions(service) == nil) {
		return nil, false
	}
	if d.Regions == nil {
		return table.Lookup(service, ""), true
	}
	if len(d.Regions) == 1 {
		return table.Lookup(service, d.Regions[0]), true
	}
	for _, region := range d.Regions {
		prefixes = append(prefixes, table.Lookup(service, region)...)
	}
	return awsranges.Aggregate(prefixes), true
}

func baseRules(options Options) []networkingv1.NetworkPolicyEgressRule {
	if !options.AllowDNS {
		return nil
	}
	const usual = 3 // with those of the prefixes
	return append(make([]networkingv1.NetworkPolicyEgressRule, 0, usual), dnsRule(options.DNSCIDRs).api())
}

// appendPrefixRules adds one rule for each set of ports among the blocks, sorted by it. Blocks are sorted, and are
// left sorted by their ports first.
func appendPrefixRules(rules []networkingv1.NetworkPolicyEgressRule, blocks []block, sets *portSets) []networkingv1.NetworkPolicyEgressRule {
	slices.SortStableFunc(blocks, func(a, b block) int {
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
		rules = append(rules, rule{first: peers[first], rest: peers[first+1 : end], ports: sets.sets[ports].api()}.api())
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
