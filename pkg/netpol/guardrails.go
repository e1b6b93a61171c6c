package netpol

import (
	"math"
	"net/netip"
	"slices"
	"sync"

	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/internal/prefixes"
	"egress-agent/pkg/platform"
	"egress-agent/pkg/policy"
)

// PlatformDocument is a valid platform document and the name of its ConfigMap.
type PlatformDocument struct {
	Name string
	*platform.Document
}

// Guardrails are the guardrails of the platform documents that govern a namespace, with their addresses. Policies may
// open what is within every document and denied by none. They are immutable, and safe for concurrent use. Nil limits
// nothing.
type Guardrails struct {
	documents []*documentGuardrails // in the order of names
	// unresolved are the guardrails that close something, but whose AWS ranges are not loaded.
	unresolved []string
}

// documentGuardrails are the guardrails of one document.
type documentGuardrails struct {
	PlatformDocument
	// isResolved is false if the document needs AWS ranges that are not loaded. The sets are then incomplete.
	isResolved bool
	denied     prefixes.Set  // everything that the document denies
	within     *prefixes.Set // everything that the document permits; nil if it permits everything
	// entry returns the addresses and ports of an entry of Guardrails.Denied.
	entry func(i int) prefixes.Set
	// Few policies open pods or domains, so both are computed for the first that does.
	pods    func() podGuardrails
	domains func() domainGuardrails
}

// NewGuardrails returns the guardrails of documents, which are sorted by name. It returns nil if no document has
// guardrails.
func NewGuardrails(documents []PlatformDocument, table *awsranges.Table, family Family) *Guardrails {
	g := &Guardrails{}
	for _, document := range documents {
		rails := document.Guardrails
		if !rails.Cuts() && len(rails.Require) == 0 && rails.MaxDays == 0 {
			continue
		}
		d := &documentGuardrails{PlatformDocument: document, isResolved: true}
		for _, entry := range slices.Concat(rails.Denied, rails.Within) {
			if entry.Service == "" || isServiceLoaded(awsranges.Canonical(entry.Service), table) {
				continue
			}
			d.isResolved = false
			if rails.Mode == platform.Enforce {
				g.unresolved = append(g.unresolved, entry.Name+" of "+document.Name)
			}
		}
		d.denied = setOf(rails.Denied, table, family)
		if rails.Within != nil {
			within := setOf(rails.Within, table, family)
			d.within = &within
		}
		d.pods = sync.OnceValue(func() podGuardrails { return newPodGuardrails(d, family) })
		d.domains = sync.OnceValue(func() domainGuardrails { return newDomainGuardrails(d, family) })
		entries := make([]func() prefixes.Set, len(rails.Denied))
		for i := range entries {
			entries[i] = sync.OnceValue(func() prefixes.Set {
				return setOf(rails.Denied[i:i+1], table, family)
			})
		}
		d.entry = func(i int) prefixes.Set { return entries[i]() }
		g.documents = append(g.documents, d)
	}
	if len(g.documents) == 0 {
		return nil
	}
	return g
}

// setOf returns the union of destinations in the family. It leaves out a service whose ranges are not loaded.
func setOf(destinations []policy.Destination, table *awsranges.Table, family Family) prefixes.Set {
	c := newCollector(Inputs{Table: table, Options: Options{Family: family}}, len(destinations))
	for _, d := range destinations {
		if found := c.addressesOf(d); found.isResolved {
			c.add(found, c.builder.Ports(portRanges(d.Ports)))
		}
	}
	return c.set()
}

// everything returns every address of the family with every port.
func everything(family Family) prefixes.Set {
	builder := prefixes.NewBuilder(2)
	for _, all := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
		if family.Includes(all) {
			builder.Add(builder.Ports(nil), all)
		}
	}
	return builder.Set()
}

// Cuts reports whether g can close a part of what a policy opens.
func (g *Guardrails) Cuts() bool {
	return g != nil && slices.ContainsFunc(g.documents, (*documentGuardrails).enforces)
}

// enforces reports whether d closes something, and does not only warn.
func (d *documentGuardrails) enforces() bool {
	return d.Guardrails.Mode == platform.Enforce && d.Guardrails.Cuts()
}

// closedPart is the part of what a policy opens that one document does not permit.
type closedPart struct {
	denied  prefixes.Set // the part that the document denies
	outside prefixes.Set // the part that is not within the document
}

func (c closedPart) isEmpty() bool { return c.denied.IsEmpty() && c.outside.IsEmpty() }

// closedParts returns what each document does not permit of opened, in the order of documents.
func (g *Guardrails) closedParts(opened prefixes.Set) []closedPart {
	parts := make([]closedPart, len(g.documents))
	for i, d := range g.documents {
		if d.isResolved && d.Guardrails.Cuts() {
			parts[i] = d.closedPart(opened)
		}
	}
	return parts
}

func (d *documentGuardrails) closedPart(opened prefixes.Set) closedPart {
	part := closedPart{denied: opened.Intersect(d.denied)}
	if d.within != nil {
		part.outside = opened.Subtract(*d.within)
	}
	return part
}

// cut returns the part of opened that g permits. closed is the result of closedParts. isCut is false if that is all of
// it. If g needs ranges that are not loaded, cut returns the empty set.
func (g *Guardrails) cut(opened prefixes.Set, closed []closedPart) (permitted prefixes.Set, isCut bool) {
	if !g.Cuts() || opened.IsEmpty() {
		return opened, false
	}
	if len(g.unresolved) > 0 {
		return prefixes.Set{}, true
	}
	permitted = opened
	for i, d := range g.documents {
		if !d.enforces() || closed[i].isEmpty() {
			continue
		}
		isCut = true
		if !closed[i].outside.IsEmpty() {
			permitted = permitted.Intersect(*d.within)
		}
		if !closed[i].denied.IsEmpty() {
			permitted = permitted.Subtract(d.denied)
		}
	}
	return permitted, isCut
}

// Violates reports whether a spec that the agent wrote opens anything that the guardrails do not permit.
func (g *Guardrails) Violates(spec networkingv1.NetworkPolicySpec, family Family) bool {
	if !g.Cuts() || len(g.unresolved) > 0 {
		return false
	}
	opened := setOfSpec(spec, family)
	_, isCut := g.cut(opened, g.closedParts(opened))
	_, arePodsCut := g.cutPodsOfSpec(spec)
	return isCut || arePodsCut
}

// cutSpec returns the part of a spec that the guardrails permit. The agent wrote the spec, so each of its rules either
// is the DNS rule, which stays, or has only CIDRs, only pods or no peers. isCut is false if that is the whole spec. If
// the result would exceed the limits of a pod, cutSpec denies all.
func (g *Guardrails) cutSpec(spec networkingv1.NetworkPolicySpec, options Options) (networkingv1.NetworkPolicySpec, bool) {
	if !g.Cuts() || len(g.unresolved) > 0 {
		return spec, false
	}
	opened := setOfSpec(spec, options.Family)
	permitted, isCut := g.cut(opened, g.closedParts(opened))
	pods, arePodsCut := g.cutPodsOfSpec(spec)
	if !isCut && !arePodsCut {
		return spec, false
	}
	var dns []networkingv1.NetworkPolicyEgressRule
	for _, rule := range spec.Egress {
		if isDNSRule(rule) {
			dns = append(dns, *rule.DeepCopy())
		}
	}
	denyAll, cut := newSpec(dns), networkingv1.NetworkPolicySpec{}
	blocks, err := permitted.Blocks()
	if err == nil {
		cut = newSpec(appendPrefixRules(appendPodRules(slices.Clip(dns), pods), blocks))
	}
	denyAll.PodSelector, cut.PodSelector = spec.PodSelector, spec.PodSelector
	if err != nil || !isWithinLimits(cut, options) {
		return denyAll, true
	}
	return cut, true
}

func hasSelector(rule networkingv1.NetworkPolicyEgressRule) bool {
	return slices.ContainsFunc(rule.To, func(peer networkingv1.NetworkPolicyPeer) bool {
		return peer.PodSelector != nil || peer.NamespaceSelector != nil
	})
}

// setOfSpec returns what the CIDRs of a spec open, without the rules that have selectors.
func setOfSpec(spec networkingv1.NetworkPolicySpec, family Family) prefixes.Set {
	builder := prefixes.NewBuilder(CIDRCount(spec))
	for _, rule := range spec.Egress {
		if hasSelector(rule) {
			continue
		}
		if len(rule.To) == 0 && len(rule.Ports) == 0 {
			return everything(family)
		}
		ports := builder.Ports(portRangesOf(rule.Ports))
		for _, peer := range rule.To {
			if prefix := peerPrefix(peer); prefix.IsValid() {
				builder.Add(ports, prefix)
			}
		}
	}
	return builder.Set()
}

// portRangesOf returns the ranges of a rule that the agent wrote; nil for every port.
func portRangesOf(ports []networkingv1.NetworkPolicyPort) []prefixes.PortRange {
	if len(ports) == 0 {
		return nil
	}
	ranges := make([]prefixes.PortRange, 0, len(ports))
	for _, port := range ports {
		r := prefixes.PortRange{Protocol: string(policy.TCP), First: 1, Last: math.MaxUint16}
		if port.Protocol != nil {
			r.Protocol = string(*port.Protocol)
		}
		if port.Port != nil {
			r.First, r.Last = uint16(port.Port.IntVal), uint16(port.Port.IntVal)
		}
		if port.EndPort != nil {
			r.Last = uint16(*port.EndPort)
		}
		ranges = append(ranges, r)
	}
	return ranges
}
