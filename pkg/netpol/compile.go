package netpol

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/internal/prefixes"
	"egress-agent/pkg/platform"
	"egress-agent/pkg/policy"
)

// Inputs are the inputs of a compilation, except the ConfigMap.
type Inputs struct {
	// Table has the ranges; nil before any document is loaded.
	Table   *awsranges.Table
	Options Options
	// Now is the current time, which decides which destinations have expired. With the zero Time, none has.
	Now time.Time
	// APIServer are the addresses of the cluster's API server, sorted, each with its TCP port. Nil means that they are
	// unknown.
	APIServer []netip.AddrPort
	// AgentNamespace is the namespace of the agent; empty means DefaultNamespace.
	AgentNamespace string
	// PolicyDigest is the result of PolicyDigestOf for the stored ConfigMap. If it is empty, Assess computes it from its
	// argument configMap. The agent sets it, because the agent's cache has policy.json without white space.
	PolicyDigest string
	// Exceeded has a problem for each limit that the policy exceeds by its size, or together with the other policies of
	// the namespace. If Exceeded is not empty, the policy is invalid. CompileConfigMap then does not read policy.json,
	// which the caller may lack.
	Exceeded policy.Problems
	// Guardrails are the guardrails of the policy's namespace; nil if it has none. They limit the policies of tenants, and
	// not the bases of the platform.
	Guardrails *Guardrails
	// Origin is where the ConfigMap comes from. The zero value is a tenant's ConfigMap.
	Origin Origin
	// RangesIncomplete reports that the agent may use ranges that Table lacks. Assess then reports no missing ranges or
	// names.
	RangesIncomplete bool
	// TrustCurrent makes Assess accept a NetworkPolicy that the agent made from the current version of the policy. A
	// program that only reads the cluster, such as status, sets TrustCurrent: its ranges, and the version of the program,
	// may differ from the agent's.
	TrustCurrent bool
}

// Compiled is the result of CompileConfigMap: a policy with its rules, or its problems.
type Compiled struct {
	// Policy is nil if policy.json itself has problems. If the policy only exceeds a limit, both Policy and Problems are
	// set.
	Policy *policy.Policy
	// Problems make the policy invalid: problems of policy.json in document order, or limits that the policy exceeds.
	// Problems is nil if the policy is valid.
	Problems policy.Problems
	// Warnings describe what the policy opens, or does not open, although its author may not expect it. The most severe
	// warnings come first. Warnings is nil if there are Problems.
	Warnings policy.Problems
	// Counts are in the policy's order, without the destinations of Unresolved. Counts is empty if defaultAction is allow
	// or if the policy has Problems.
	Counts []Count
	// Unresolved are the names of destinations with a service that the table lacks, because AWS's document is not loaded,
	// and of those with the API server, if its addresses are unknown. They are in the policy's order. Spec lacks these
	// destinations.
	Unresolved []string
	// Expiries are the destinations that have expired or expire soon, in the policy's order. Spec lacks the expired ones.
	Expiries []Expiry
	// NextChange is the time of the next change of Expiries. The zero Time means never.
	NextChange time.Time
	// NextExpiry is the time at which the next destination expires. The zero Time means never.
	NextExpiry time.Time
	// Violations are the parts of the policy that platform documents do not permit, in the order of documents. Admission refuses
	// a policy with a Violation in mode enforce. The agent applies it, without the part that they close.
	Violations []Violation

	options Options
	now     time.Time
	origin  Origin
	blocks  prefixes.Blocks
	pods    []openedPods   // sorted
	domains []openedDomain // sorted
	// isCut reports whether the guardrails close a part of the policy.
	isCut bool
	// unresolvedGuardrails are the guardrails whose AWS ranges are not loaded. The policy then opens nothing.
	unresolvedGuardrails []string
}

// Count is the number of prefixes of a destination in the cluster's family, before they merge with the prefixes of
// other destinations.
type Count struct {
	Name  string
	CIDRs int
}

// CompileConfigMap parses, validates and compiles the policy of a ConfigMap. Admission, the agent and every command
// call it, so all accept the same policies. It does not read the ConfigMap's label.
//
// A policy that the dataplane could not enforce has Problems too, although policy.json is correct.
func CompileConfigMap(configMap *corev1.ConfigMap, in Inputs) *Compiled {
	return compileConfigMap(configMap, in, NameCheck(in.Table))
}

// compileConfigMap does the work of CompileConfigMap, but checks names of AWS with checkName. If checkName is nil, every
// name of AWS is valid.
func compileConfigMap(configMap *corev1.ConfigMap, in Inputs, checkName policy.NameCheck) *Compiled {
	c := &Compiled{Problems: in.Exceeded, options: in.Options, now: in.Now, origin: in.Origin}
	if c.Problems != nil {
		return c
	}
	data, ok := configMap.Data[policy.Key]
	if !ok {
		c.Problems = policy.Problems{missingPolicyProblem(configMap)}
		return c
	}
	if problem := reservedNameProblem(configMap.Name, in.Origin); problem != nil {
		c.Problems = policy.Problems{*problem}
		return c
	}
	document, problems := policy.Parse([]byte(data))
	if problems == nil {
		c.Policy, problems = policy.Validate(document, policy.Names{AWS: checkName, Domain: in.Options.Domains.check})
	}
	if problems != nil {
		c.Problems = problems
		return c
	}
	var warnings policy.Warnings
	warnOfConfigMap(configMap, c.Policy, in, &warnings)
	c.compile(in, &warnings)
	return c
}

// warnOfConfigMap adds the warnings that need no ranges.
func warnOfConfigMap(configMap *corev1.ConfigMap, p *policy.Policy, in Inputs, warnings *policy.Warnings) {
	if in.isExempt(configMap.Namespace) {
		warnings.AddProblem(policy.NotEnforced, policy.Problem{Path: "metadata.namespace", Message: fmt.Sprintf(
			"the agent writes nothing in %s, because the cluster or the agent itself runs there; put the policy into the namespace of the pods", configMap.Namespace)})
	}
	policy.Warn(p, warnings)
	for _, problem := range policy.ObjectWarnings(configMap.Name, configMap.Labels, configMap.Annotations) {
		warnings.AddProblem(policy.Fragile, problem)
	}
}

// compile resolves the destinations of c.Policy and merges them into c.blocks. The blocks are the union of the
// destinations' (address, protocol, port) in the cluster's family, cut by the guardrails. A destination
// without prefixes adds a warning.
func (c *Compiled) compile(in Inputs, warnings *policy.Warnings) {
	p := c.Policy
	c.setExpiries(in.Now, warnings)
	collected := newCollector(in, len(p.Destinations))
	if p.DefaultAction == policy.Allow {
		if in.Guardrails.Cuts() {
			c.cut(everything(c.options.Family), collected, in.Guardrails)
		} else {
			c.setViolations(everything(c.options.Family), collected, in.Guardrails)
		}
		if c.isCut && c.Problems == nil {
			c.Problems = c.limitProblems(collected)
		}
		c.finish(warnings)
		return
	}
	for i, d := range p.Destinations {
		if d.IsExpired(in.Now) {
			continue
		}
		if d.Pods != nil {
			collected.addPods(d)
			continue
		}
		if d.Domain != "" {
			collected.addDomain(d)
			continue
		}
		found := collected.addressesOf(d)
		warnOfDestination(i, d, found, in.Table, c.options.Family, warnings)
		if !found.isResolved {
			c.Unresolved = append(c.Unresolved, d.Name)
			continue
		}
		collected.add(found, collected.builder.Ports(portRanges(d.Ports)))
		c.Counts = append(c.Counts, Count{d.Name, found.count})
	}
	if c.Problems = collected.portCountProblems(p, c.options); c.Problems == nil {
		c.cut(collected.set(), collected, in.Guardrails)
		c.cutPods(collected, in.Guardrails)
		c.cutDomains(collected, in.Guardrails)
	}
	if c.Problems == nil {
		c.Problems = append(c.limitProblems(collected), c.domainProblems()...)
	}
	c.finish(warnings)
}

// finish completes a compilation, with or without problems.
func (c *Compiled) finish(warnings *policy.Warnings) {
	if c.Problems != nil {
		c.Counts, c.Unresolved, c.Violations, c.blocks, c.pods, c.domains = nil, nil, nil, prefixes.Blocks{}, nil, nil
		return
	}
	warnOfPeers(c.blocks.Len(), c.Counts, warnings)
	warnOfPods(c.Policy, warnings)
	warnOfDomains(c.Policy, warnings)
	for _, violation := range c.Violations {
		if violation.Mode == platform.Warn {
			warnings.AddProblem(policy.Guardrail, violation.Problem)
		}
	}
	c.Warnings = warnings.List()
}

// guardedBy returns the value of GuardedAnnotation.
func (c *Compiled) guardedBy() string {
	var names []string
	for _, violation := range c.Violations {
		if name := violation.Document + "/" + violation.Guardrail; violation.IsCut && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// Refusals returns the problems for which only admission refuses the policy: violations of guardrails, and destinations
// that have expired. old is the policy that this one replaces, or nil. Refusals ignores an expired destination that old
// has too.
func (c *Compiled) Refusals(old *policy.Policy) policy.Problems {
	refusals := c.expiredProblems(old)
	for _, violation := range c.Violations {
		if violation.Mode == platform.Enforce {
			refusals = append(refusals, violation.Problem)
		}
	}
	return refusals
}

// cut sets the blocks to what the guardrails permit of opened, everything that the policy opens.
func (c *Compiled) cut(opened prefixes.Set, collected *collector, guardrails *Guardrails) {
	closed := c.setViolations(opened, collected, guardrails)
	permitted, isCut := guardrails.cut(opened, closed)
	if c.isCut = isCut; isCut {
		c.unresolvedGuardrails = guardrails.unresolved
	}
	c.blocks, c.Problems = blocksOf(permitted)
}

// setViolations sets what the guardrails do not permit of opened, and returns it by document.
func (c *Compiled) setViolations(opened prefixes.Set, collected *collector, guardrails *Guardrails) []closedPart {
	if guardrails == nil {
		return nil
	}
	closed := guardrails.closedParts(opened)
	c.Violations = guardrails.violations(c.Policy, closed, collected, c.now)
	return closed
}

// limitProblems returns a problem for each limit of the dataplane that the blocks exceed, or nil.
func (c *Compiled) limitProblems(collected *collector) policy.Problems {
	return append(slotProblems(c.blocks, c.pods, c.Policy, collected, c.options), peerProblems(c.blocks.Len(), c.Counts)...)
}

// Spec builds the NetworkPolicy's spec: egress only, for the pods that the policy selects. Each prefix is in one rule,
// each port set has one rule for pods and one for prefixes, and rules and peers are sorted. For a policy with problems,
// Spec returns DenyAll for these pods.
func (c *Compiled) Spec() networkingv1.NetworkPolicySpec {
	var spec networkingv1.NetworkPolicySpec
	switch {
	case c.Problems != nil:
		spec = DenyAll(c.options)
	case c.Policy.DefaultAction == policy.Allow && !c.isCut:
		spec = newSpec([]networkingv1.NetworkPolicyEgressRule{allowAllRule()})
	default:
		spec = newSpec(appendPrefixRules(appendPodRules(baseRules(c.options), c.pods), c.blocks))
	}
	if c.Policy != nil && c.Policy.PodSelector != nil {
		spec.PodSelector = *c.Policy.PodSelector
	}
	return spec
}

// DenyAll returns the spec that denies all egress of every pod. If the options allow DNS, the spec allows DNS.
func DenyAll(options Options) networkingv1.NetworkPolicySpec { return newSpec(baseRules(options)) }

// Resolve returns the prefixes of a destination with a CIDR or a service, IPv4 and IPv6. It returns none for another
// destination. The caller must not modify them. ok is false if the table lacks a service and AWS's document.
func Resolve(d policy.Destination, table *awsranges.Table) (found []netip.Prefix, ok bool) {
	switch {
	case d.CIDR.IsValid():
		found = []netip.Prefix{d.CIDR}
	case d.Service == "":
		return nil, true
	default:
		service, leftOut := awsranges.Canonical(d.Service), canonicalNames(d.Without)
		if !isServiceLoaded(service, table) || slices.ContainsFunc(leftOut, func(name string) bool { return !isServiceLoaded(name, table) }) {
			return nil, false
		}
		found = servicePrefixes(service, d.Regions, leftOut, table)
	}
	if d.Except != nil {
		found = prefixes.Subtract(found, d.Except)
	}
	return found, true
}

// isServiceLoaded reports whether the table has the service, or has AWS's document. If AWS's document lacks the
// service, the service has no prefixes.
func isServiceLoaded(service string, table *awsranges.Table) bool {
	return table.HasAWS() || table != nil && table.Regions(service) != nil
}

// canonicalNames returns the canonical names of services, sorted. It returns nil for an empty list.
func canonicalNames(services []string) []string {
	var names []string
	for _, service := range services {
		names = append(names, awsranges.Canonical(service))
	}
	slices.Sort(names)
	return names
}

// splitNames splits names at commas. It returns nil for an empty text.
func splitNames(joined string) []string {
	if joined == "" {
		return nil
	}
	return strings.Split(joined, ",")
}

// servicePrefixes returns the prefixes of a service in the regions, or in every region if regions is empty, without the
// services leftOut. The prefixes are disjoint and sorted. The caller must not modify them.
func servicePrefixes(service string, regions, leftOut []string, table *awsranges.Table) []netip.Prefix {
	lookup := table.Lookup
	if leftOut != nil {
		if slices.ContainsFunc(leftOut, func(name string) bool { return !table.KnowsService(name) }) {
			return nil // the addresses of a service that is gone are unknown, so they may be among these
		}
		lookup = func(service, region string) []netip.Prefix { return table.LookupWithout(service, region, leftOut) }
	}
	switch len(regions) {
	case 0:
		return lookup(service, "")
	case 1:
		return lookup(service, regions[0])
	}
	var joined []netip.Prefix
	for _, region := range regions {
		joined = append(joined, lookup(service, region)...)
	}
	return prefixes.Aggregate(joined)
}

// baseRules returns the DNS rule, or nil if the options do not allow DNS.
func baseRules(options Options) []networkingv1.NetworkPolicyEgressRule {
	if !options.AllowDNS {
		return nil
	}
	const usualRuleCount = 3 // most policies have the DNS rule and at most two rules for prefixes
	return append(make([]networkingv1.NetworkPolicyEgressRule, 0, usualRuleCount), dnsRule(options.DNSCIDRs).toAPI())
}

// newSpec always sets the policy type Egress. Without this type, Kubernetes applies a NetworkPolicy that has no egress
// rules only to ingress, so egress would stay open.
func newSpec(egress []networkingv1.NetworkPolicyEgressRule) networkingv1.NetworkPolicySpec {
	return networkingv1.NetworkPolicySpec{
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
		Egress:      egress,
	}
}
