package netpol

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/internal/prefixes"
	"egress-agent/pkg/policy"
)

// Domains is the kind of object with which a cluster opens names. A NetworkPolicy has no names.
type Domains string

// The kinds, as values of --domains.
const (
	// DomainsOff means that the cluster opens no names. A policy with a domain is then invalid. The empty Domains means
	// the same.
	DomainsOff Domains = "off"
	// ApplicationNetworkPolicy is the kind of EKS (networking.k8s.aws/v1alpha1). Only nodes of EKS Auto Mode enforce it.
	ApplicationNetworkPolicy Domains = "applicationnetworkpolicy"
	// Cilium is CiliumNetworkPolicy (cilium.io/v2).
	Cilium Domains = "cilium"
)

// ParseDomains reads a value of --domains.
func ParseDomains(value string) (Domains, error) {
	switch domains := Domains(value); domains {
	case DomainsOff, ApplicationNetworkPolicy, Cilium:
		return domains, nil
	}
	return DomainsOff, fmt.Errorf("unknown kind of domains %q: must be off, applicationnetworkpolicy or cilium", value)
}

// IsOn reports whether the cluster opens names.
func (d Domains) IsOn() bool { return d != "" && d != DomainsOff }

// check is a policy.DomainCheck.
func (d Domains) check(domain string) func() string {
	if d.IsOn() {
		return nil
	}
	return func() string {
		return fmt.Sprintf("Invalid domain: %s; a NetworkPolicy has no names, and the platform has not turned on --domains: use cidr or awsService", domain)
	}
}

// DomainsAnnotation has what a policy opens by name, as JSON of []DomainRule. It is absent if that is nothing.
const DomainsAnnotation = "egress-controller/domains"

// DomainRule opens ports of names.
type DomainRule struct {
	// Domains are sorted. Each is a name or, as *.example.com, every name below a name. The list is not empty.
	Domains []string `json:"domains"`
	// Ports are sorted. An empty list means every port.
	Ports []networkingv1.NetworkPolicyPort `json:"ports,omitempty"`
}

// DomainRulesOf returns the rules of an agent's NetworkPolicy, sorted. It returns nil if the NetworkPolicy has no
// DomainsAnnotation, and an error if the agent did not write the annotation.
func DomainRulesOf(annotations map[string]string) ([]DomainRule, error) {
	text := annotations[DomainsAnnotation]
	if text == "" {
		return nil, nil
	}
	var rules []DomainRule
	if err := json.Unmarshal([]byte(text), &rules); err != nil {
		return nil, fmt.Errorf("annotation %s: %w", DomainsAnnotation, err)
	}
	for _, rule := range rules {
		if len(rule.Domains) == 0 {
			return nil, fmt.Errorf("annotation %s: a rule without domains", DomainsAnnotation)
		}
	}
	return rules, nil
}

// openedDomain is a domain that a policy opens, with its ports on somePod, which stands for any address of the domain.
type openedDomain struct {
	domain string
	ports  prefixes.Set
}

// addDomain opens the domain of a destination. Destinations with the same domain share their ports.
func (c *collector) addDomain(d policy.Destination) {
	if c.domains == nil {
		c.domains = make(map[string]prefixes.Set)
	}
	ports := portsOnPod(portRanges(d.Ports))
	if opened, ok := c.domains[d.Domain]; ok {
		ports = opened.Union(ports)
	}
	c.domains[d.Domain] = ports
}

// cutDomains sets c.domains to the part of the opened domains that the guardrails permit.
func (c *Compiled) cutDomains(collected *collector, guardrails *Guardrails) {
	if len(collected.domains) == 0 {
		return // without an allocation
	}
	for _, domain := range slices.Sorted(maps.Keys(collected.domains)) {
		permitted, isCut := guardrails.cutDomain(openedDomain{domain, collected.domains[domain]})
		c.isCut = c.isCut || isCut
		if isCut && guardrails.unresolved != nil {
			c.unresolvedGuardrails = guardrails.unresolved
		}
		if !permitted.IsEmpty() {
			c.domains = append(c.domains, openedDomain{domain, permitted})
		}
	}
}

// domainRules returns one rule for each distinct port set of domains, in the order of the first domains with these ports.
func domainRules(domains []openedDomain) []DomainRule {
	var rules []DomainRule
	for _, opened := range domains {
		set, ok := openedPods{ports: opened.ports}.portSet()
		if !ok {
			continue
		}
		ports := rulePorts(set)
		i := slices.IndexFunc(rules, func(r DomainRule) bool { return jsonKey(r.Ports) == jsonKey(ports) })
		if i < 0 {
			rules = append(rules, DomainRule{Domains: []string{opened.domain}, Ports: ports})
		} else {
			rules[i].Domains = append(rules[i].Domains, opened.domain)
		}
	}
	return rules
}

// maxDomainsAnnotation limits DomainsAnnotation, in bytes. With the other annotations it is within what an API server
// accepts.
const maxDomainsAnnotation = 64 << 10

// formatDomains returns the value of DomainsAnnotation, or "" if no domain is open.
func formatDomains(domains []openedDomain) string {
	if rules := domainRules(domains); rules != nil {
		return jsonKey(rules)
	}
	return ""
}

// domainProblems returns a problem if the domains of a policy have too many ports, or nil.
func (c *Compiled) domainProblems() policy.Problems {
	var problems policy.Problems
	for _, opened := range c.domains {
		if slots := slotsOnPod(opened.ports); c.options.MaxPortSlots != 0 && slots > c.options.MaxPortSlots {
			problems = append(problems, policy.Problem{Path: "allowedDestinations", Message: fmt.Sprintf(
				"Too many ports: %s has %d ports and port ranges; at most %d are allowed for a domain: merge or remove ports", opened.domain, slots, c.options.MaxPortSlots)})
		}
	}
	if size := len(formatDomains(c.domains)); problems == nil && size > maxDomainsAnnotation {
		problems = policy.Problems{{Path: "allowedDestinations", Message: fmt.Sprintf(
			"Too many domains and ports: they take %d bytes; at most %d are allowed: use wildcards or fewer ports, or split the policy into several ConfigMaps", size, maxDomainsAnnotation)}}
	}
	return problems
}

// domainGuardrails are the guardrails of one document for domains, as ports on somePod.
//
// The owner of a name decides where it leads, and may choose any address, also one that a document denies. So a
// document must permit a domain's ports on every address, or name the domain in within: the platform then trusts the
// owner, also with the addresses that the document denies.
type domainGuardrails struct {
	denied  prefixes.Set   // the ports that the document denies on any address
	outside prefixes.Set   // the ports that the document does not permit on every address
	trusted []openedDomain // the domains of within
}

func newDomainGuardrails(d *documentGuardrails, family Family) domainGuardrails {
	g := domainGuardrails{denied: portsOfAny(d.denied)}
	if d.within == nil {
		return g
	}
	g.outside = portsOfAny(everything(family).Subtract(*d.within))
	for _, entry := range d.Guardrails.Within {
		if entry.Domain != "" {
			g.trusted = append(g.trusted, openedDomain{entry.Domain, portsOnPod(portRanges(entry.Ports))})
		}
	}
	return g
}

// closed returns the part of opened that the document does not permit.
func (g domainGuardrails) closed(opened openedDomain) closedPart {
	ports := opened.ports
	for _, trusted := range g.trusted {
		if policy.CoversDomain(trusted.domain, opened.domain) {
			ports = ports.Subtract(trusted.ports)
		}
	}
	return closedPart{denied: ports.Intersect(g.denied), outside: ports.Intersect(g.outside)}
}

// cutDomain returns the ports of opened that g permits. isCut is false if these are all.
func (g *Guardrails) cutDomain(opened openedDomain) (permitted prefixes.Set, isCut bool) {
	return g.cutPorts(opened.ports, func(d *documentGuardrails) closedPart { return d.domains().closed(opened) })
}

// cutDomainsOf returns the value of DomainsAnnotation that g permits of the annotations of an agent's NetworkPolicy.
func (g *Guardrails) cutDomainsOf(annotations map[string]string) (text string, isCut bool) {
	if !g.Cuts() || len(g.unresolved) > 0 {
		return annotations[DomainsAnnotation], false
	}
	rules, err := DomainRulesOf(annotations)
	if err != nil {
		return "", true
	}
	var permitted []openedDomain
	for _, rule := range rules {
		for _, domain := range rule.Domains {
			ports, isDomainCut := g.cutDomain(openedDomain{domain, portsOnPod(portRangesOf(rule.Ports))})
			isCut = isCut || isDomainCut
			if !ports.IsEmpty() {
				permitted = append(permitted, openedDomain{domain, ports})
			}
		}
	}
	if !isCut {
		return annotations[DomainsAnnotation], false
	}
	slices.SortFunc(permitted, func(a, b openedDomain) int { return cmp.Compare(a.domain, b.domain) })
	return formatDomains(permitted), true
}

// closedDomains returns a violation for each destination with a domain if the document does not permit all its ports.
func (d *documentGuardrails) closedDomains(p *policy.Policy) []Violation {
	const why = "; the owner of a name can lead it to any address, so only the base or a domain in within of a platform document can open it"
	return d.closedPeers(p, why, func(destination policy.Destination) (peer string, part closedPart) {
		if destination.Domain == "" {
			return "", closedPart{}
		}
		return destination.Domain, d.domains().closed(openedDomain{destination.Domain, portsOnPod(portRanges(destination.Ports))})
	}, func(denied prefixes.Set) prefixes.Set { return denied })
}

// warnOfDomains adds the warnings about the domains that a policy opens.
func warnOfDomains(p *policy.Policy, warnings *policy.Warnings) {
	if p.DefaultAction == policy.Allow {
		return
	}
	for i, d := range p.Destinations {
		for _, shared := range sharedDomains {
			if policy.IsWildcard(d.Domain) && policy.CoversDomain("*."+shared, d.Domain) {
				warnings.Add(policy.AlsoCovers, i, "domain", "%s opens %s, where every customer of the provider has names, such as those of buckets and APIs", d.Name, d.Domain)
				break
			}
		}
	}
}

// sharedDomains are names below which every customer of AWS gets names.
var sharedDomains = strings.Fields("amazonaws.com amazonaws.com.cn api.aws on.aws cloudfront.net awsapprunner.com amplifyapp.com elasticbeanstalk.com")
