package netpol

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/internal/prefixes"
	"egress-agent/pkg/policy"
)

// Inputs are what a policy is compiled with, beside its ConfigMap.
type Inputs struct {
	// Table are the ranges; nil before any document is loaded.
	Table   *awsranges.Table
	Options Options
	// AgentNamespace is the agent's own; empty means DefaultNamespace.
	AgentNamespace string
	// PolicyDigest is PolicyDigestOf the ConfigMap as it is stored; empty means that the ConfigMap is as it is stored.
	// The agent's cache holds policy.json without its white space.
	PolicyDigest string
	// Exceeded are the bounds that the policy exceeds by its size or beside the other policies of its namespace. If there
	// are any, the policy is invalid, and policy.json is not read: the caller may not even have it.
	Exceeded policy.Problems
	// Incomplete reports that the agent may use ranges that Table lacks. Assess then reports no missing ranges or names.
	Incomplete bool
	// TrustCurrent makes Assess accept a NetworkPolicy that was made from the policy as it is: a reader of the cluster may
	// differ from the agent in version and ranges.
	TrustCurrent bool
}

// Compiled is a policy ConfigMap's policy with its rules, or with what makes it invalid.
type Compiled struct {
	// Policy is the policy as it was read; nil if policy.json has mistakes. One that only exceeds a limit has Problems, too.
	Policy *policy.Policy
	// Problems make the policy invalid, in document order: mistakes, and limits of the dataplane. nil for none.
	Problems policy.Problems
	// Warnings say what the policy opens, or fails to open, beyond what it seems to, the most severe first; nil if it has
	// Problems.
	Warnings policy.Problems
	// Counts are in the policy's order, without the destinations of Unresolved; empty if defaultAction is allow or if the
	// policy has Problems.
	Counts []Count
	// Unresolved are the names of the destinations, in the policy's order, whose service no table holds because AWS's
	// document is not loaded. Spec lacks them.
	Unresolved []string

	options Options
	blocks  prefixes.Blocks
}

// Count is how many prefixes of the cluster's family a destination stands for, before any merging
// with other destinations.
type Count struct {
	Name  string
	CIDRs int
}

// CompileConfigMap parses, validates and compiles the policy of a ConfigMap. Admission, the agent and every command take
// their verdict from it, so what one accepts, all accept. It does not read the ConfigMap's label.
//
// A policy that the dataplane could not enforce has problems, as one with a mistake in it does.
func CompileConfigMap(configMap *corev1.ConfigMap, in Inputs) *Compiled {
	return compileConfigMap(configMap, in, NameCheck(in.Table))
}

// compileConfigMap is CompileConfigMap with a check of names, which accepts every name if it is nil.
func compileConfigMap(configMap *corev1.ConfigMap, in Inputs, names policy.NameCheck) *Compiled {
	c := &Compiled{Problems: in.Exceeded, options: in.Options}
	if c.Problems != nil {
		return c
	}
	data, ok := configMap.Data[policy.Key]
	if !ok {
		c.Problems = policy.Problems{missing(configMap)}
		return c
	}
	document, problems := policy.Parse([]byte(data))
	if problems == nil {
		c.Policy, problems = policy.Validate(document, names)
	}
	if problems != nil {
		c.Problems = problems
		return c
	}
	var warnings policy.Warnings
	warnOfConfigMap(configMap, c.Policy, in, &warnings)
	c.compile(in.Table, &warnings)
	return c
}

// warnOfConfigMap adds the warnings that need no ranges.
func warnOfConfigMap(configMap *corev1.ConfigMap, p *policy.Policy, in Inputs, warnings *policy.Warnings) {
	if in.isExempt(configMap.Namespace) {
		warnings.AddProblem(policy.NotEnforced, policy.Problem{Path: "metadata.namespace", Message: fmt.Sprintf(
			"the agent writes nothing in %s, which the cluster itself rests on: put the policy into the namespace of the pods", configMap.Namespace)})
	}
	policy.Warn(p, warnings)
	for _, problem := range policy.ObjectWarnings(configMap.Name, configMap.Labels, configMap.Annotations) {
		warnings.AddProblem(policy.Fragile, problem)
	}
}

// compile resolves and merges the destinations of c.Policy into c.blocks: the union of their (address, protocol, port),
// limited to the cluster's family. A destination that stands for no prefix adds a warning instead.
func (c *Compiled) compile(table *awsranges.Table, warnings *policy.Warnings) {
	p := c.Policy
	if p.DefaultAction == policy.Allow {
		c.Warnings = warnings.List()
		return
	}
	collected := newCollector(table, c.options.Family, len(p.Destinations))
	for i, d := range p.Destinations {
		a := collected.lookup(d)
		warn(i, d, a, table, c.options.Family, warnings)
		if !a.resolved {
			c.Unresolved = append(c.Unresolved, d.Name)
			continue
		}
		collected.add(a, collected.builder.Ports(portRanges(d.Ports)))
		c.Counts = append(c.Counts, Count{d.Name, a.count})
	}
	if c.Problems = collected.tooLarge(p, c.options); c.Problems == nil {
		c.blocks, c.Problems = collected.blocks()
	}
	if c.Problems == nil {
		c.Problems = c.limitProblems(collected)
	}
	if c.Problems != nil {
		c.Counts, c.Unresolved, c.blocks = nil, nil, prefixes.Blocks{}
		return
	}
	warnOfPeers(c.blocks.Len(), c.Counts, warnings)
	c.Warnings = warnings.List()
}

// limitProblems returns the limits of the dataplane that the blocks exceed; nil for none.
func (c *Compiled) limitProblems(collected *collector) policy.Problems {
	return append(slotProblems(c.blocks, c.Policy, collected, c.options), peerProblems(c.blocks.Len(), c.Counts)...)
}

// Spec builds the NetworkPolicy's spec: egress only, for every pod of the namespace. Each prefix stands in one rule, each
// set of ports in one rule, and rules and peers are sorted. For a policy with problems it is DenyAll.
func (c *Compiled) Spec() networkingv1.NetworkPolicySpec {
	switch {
	case c.Problems != nil:
		return DenyAll(c.options)
	case c.Policy.DefaultAction == policy.Allow:
		return spec([]networkingv1.NetworkPolicyEgressRule{allowAllRule()})
	}
	return spec(appendPrefixRules(baseRules(c.options), c.blocks))
}

// DenyAll returns the spec that allows only what the options allow every policy: DNS.
func DenyAll(options Options) networkingv1.NetworkPolicySpec { return spec(baseRules(options)) }

// Resolve returns a destination's prefixes of both families, which the caller must not modify. ok is false if the table
// lacks both the service and AWS's document.
func Resolve(d policy.Destination, table *awsranges.Table) (all []netip.Prefix, ok bool) {
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
	var all []netip.Prefix
	for _, region := range regions {
		all = append(all, table.Lookup(service, region)...)
	}
	return prefixes.Aggregate(all)
}

func baseRules(options Options) []networkingv1.NetworkPolicyEgressRule {
	if !options.AllowDNS {
		return nil
	}
	const usual = 3 // with those of the prefixes
	return append(make([]networkingv1.NetworkPolicyEgressRule, 0, usual), dnsRule(options.DNSCIDRs).toAPI())
}

// spec always says Egress: left out, a policy without rules would be one for ingress, and egress
// would stay open.
func spec(egress []networkingv1.NetworkPolicyEgressRule) networkingv1.NetworkPolicySpec {
	return networkingv1.NetworkPolicySpec{
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
		Egress:      egress,
	}
}
