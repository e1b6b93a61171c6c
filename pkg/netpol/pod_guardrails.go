package netpol

import (
	"fmt"
	"net/netip"

	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/internal/prefixes"
	"egress-agent/pkg/policy"
)

// podGuardrails are the guardrails of one document for pods, as ports on somePod.
//
// A tenant can lead a Service to any address with an EndpointSlice, and AWS VPC CNI checks a connection before that
// translation. So a destination with pods may reach every address that an EndpointSlice may have.
type podGuardrails struct {
	denied prefixes.Set // the ports that the document denies on any such address
	// within are the ports that the document permits on every such address; nil if it permits everything.
	within *prefixes.Set
	// selected are the pods that the document permits by an entry of within.
	selected []openedPods
}

// neverEndpoints are the addresses that an EndpointSlice cannot have (k8s.io/kubernetes, ValidateEndpointIP in
// pkg/apis/core/validation/validation.go).
var neverEndpoints = func() prefixes.Set {
	builder := prefixes.NewBuilder(8)
	for _, cidr := range []string{"0.0.0.0/32", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/24", "::/128", "::1/128", "fe80::/10", "ff02::/16"} {
		builder.Add(builder.Ports(nil), netip.MustParsePrefix(cidr))
	}
	return builder.Set()
}()

func newPodGuardrails(d *documentGuardrails, family Family) podGuardrails {
	g := podGuardrails{denied: portsOfAny(d.denied.Subtract(neverEndpoints))}
	if d.within == nil {
		return g
	}
	outside := portsOfAny(everything(family).Subtract(neverEndpoints).Subtract(*d.within))
	within := portsOnPod(nil).Subtract(outside)
	g.within = &within
	for _, entry := range d.Guardrails.Within {
		if entry.Pods != nil {
			g.selected = append(g.selected, openedPods{*entry.Pods, portsOnPod(portRanges(entry.Ports))})
		}
	}
	return g
}

// portsOfAny returns the ports that a set has on any address, on somePod. If the set exceeds a bound, these are all
// ports.
func portsOfAny(set prefixes.Set) prefixes.Set {
	blocks, err := set.Blocks()
	if err != nil {
		return portsOnPod(nil)
	}
	builder := prefixes.NewBuilder(1)
	for _, group := range blocks.ByPorts() {
		ranges := append([]prefixes.PortRange{}, group.Ports.Ranges()...)
		if group.Ports.IsEveryPort() {
			ranges = nil
		}
		builder.Add(builder.Ports(ranges), somePod)
	}
	return builder.Set()
}

// closed returns the part of opened that the document does not permit.
func (g podGuardrails) closed(opened openedPods) closedPart {
	part := closedPart{denied: opened.ports.Intersect(g.denied)}
	if g.within != nil {
		part.outside = opened.ports.Subtract(g.permitted(opened.pods))
	}
	return part
}

// permitted returns the ports within the document on pods.
func (g podGuardrails) permitted(pods policy.Pods) prefixes.Set {
	permitted := *g.within
	for _, selected := range g.selected {
		if selected.includes(pods) {
			permitted = permitted.Union(selected.ports)
		}
	}
	return permitted
}

// includes reports whether o selects each of the pods.
func (o openedPods) includes(pods policy.Pods) bool {
	if o.pods.Namespace != pods.Namespace {
		return false
	}
	for key, value := range o.pods.Labels {
		if found, ok := pods.Labels[key]; !ok || found != value {
			return false
		}
	}
	return true
}

// cutPods returns the ports of opened that g permits. isCut is false if these are all.
func (g *Guardrails) cutPods(opened openedPods) (permitted prefixes.Set, isCut bool) {
	return g.cutPorts(opened.ports, func(d *documentGuardrails) closedPart { return d.pods().closed(opened) })
}

// cutPorts returns the ports of a peer without addresses, on somePod, that g permits. closed returns the ports that one
// document closes. isCut is false if cutPorts returns all ports.
func (g *Guardrails) cutPorts(ports prefixes.Set, closed func(d *documentGuardrails) closedPart) (permitted prefixes.Set, isCut bool) {
	if !g.Cuts() {
		return ports, false
	}
	if len(g.unresolved) > 0 {
		return prefixes.Set{}, true
	}
	permitted = ports
	for _, d := range g.documents {
		if !d.enforces() {
			continue
		}
		part := closed(d)
		isCut = isCut || !part.isEmpty()
		permitted = permitted.Subtract(part.denied).Subtract(part.outside)
	}
	return permitted, isCut
}

// cutPodsOfSpec returns what g permits of the pods that a spec opens, without the rule for DNS.
func (g *Guardrails) cutPodsOfSpec(spec networkingv1.NetworkPolicySpec) (pods []openedPods, isCut bool) {
	for _, rule := range spec.Egress {
		if isDNSRule(rule) {
			continue
		}
		for _, peer := range rule.To {
			if peer.IPBlock != nil {
				continue
			}
			opened := openedPods{podsOf(peer), portsOnPod(portRangesOf(rule.Ports))}
			permitted, isPeerCut := g.cutPods(opened)
			isCut = isCut || isPeerCut
			if !permitted.IsEmpty() {
				pods = append(pods, openedPods{opened.pods, permitted})
			}
		}
	}
	return pods, isCut
}

// closedPods returns a violation for each destination with pods if the document does not permit all its ports.
func (d *documentGuardrails) closedPods(p *policy.Policy) []Violation {
	const why = ", and a Service may lead to any address; only the base or within of a platform document can open pods there"
	return d.closedPeers(p, why, func(destination policy.Destination) (peer string, part closedPart) {
		if destination.Pods == nil {
			return "", closedPart{}
		}
		return FormatPods(*destination.Pods), d.pods().closed(openedPods{*destination.Pods, portsOnPod(portRanges(destination.Ports))})
	}, func(denied prefixes.Set) prefixes.Set { return denied.Subtract(neverEndpoints) })
}

// closedPeers returns a violation for each destination without addresses if the document does not permit all its ports.
// closed returns the name of a destination's peer and the ports that the document closes; nothing for another
// destination. reachable returns the part of a guardrail's addresses that such peers may have. why ends each message.
func (d *documentGuardrails) closedPeers(p *policy.Policy, why string, closed func(policy.Destination) (peer string, part closedPart),
	reachable func(denied prefixes.Set) prefixes.Set) []Violation {
	var found []Violation
	if !d.isResolved || !d.Guardrails.Cuts() {
		return nil
	}
	for i, destination := range p.Destinations {
		peer, part := closed(destination)
		if part.isEmpty() || len(found) >= policy.MaxProblems {
			continue
		}
		add := func(guardrail string, ports prefixes.Set, format string, args ...any) {
			block, _ := ports.First()
			message := fmt.Sprintf(format, args...) + fmt.Sprintf(": %s opens %s on %s", destination.Name, peer, formatPorts(block.Ports)) + why
			found = append(found, Violation{
				Problem:  policy.Problem{Path: fmt.Sprintf("allowedDestinations[%d]", i), Message: message},
				Document: d.Name, Guardrail: guardrail, Mode: d.Guardrails.Mode, IsCut: d.enforces(),
			})
		}
		for k, entry := range d.Guardrails.Denied {
			if hit := part.denied.Intersect(portsOfAny(reachable(d.entry(k)))); !hit.IsEmpty() {
				add(entry.Name, hit, "Denied by guardrail %s of platform document %s%s", entry.Name, d.Name, inParentheses(entry.Reason))
			}
		}
		if !part.outside.IsEmpty() {
			add("within", part.outside, "Outside of what platform document %s permits (%s)", d.Name, d.permitted())
		}
	}
	return found
}
