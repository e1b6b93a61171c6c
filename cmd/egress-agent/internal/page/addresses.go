package page

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/netpol"
	"egress-agent/pkg/status"
)

// service returns phrases with the service and each region of the destination. If the table has the service, each
// phrase links to its prefixes.
func (b *builder) service(d status.Destination) []phrase {
	regions := d.Regions
	if len(regions) == 0 {
		regions = []string{""} // every region
	}
	var phrases []phrase
	for i, region := range regions {
		if i > 0 {
			phrases = append(phrases, phrase{text: ", "})
		}
		title := d.Service + " " + cmp.Or(region, "in every region")
		if !b.hasService(d.Service) {
			phrases = append(phrases, phrase{text: title})
			continue
		}
		var prefixes []string
		for _, prefix := range b.table.Lookup(d.Service, region) {
			if len(b.families) == 0 || b.families[prefix.Addr().BitLen()] {
				prefixes = append(prefixes, prefix.String())
			}
		}
		phrases = append(phrases, b.link(title, title, prefixes))
	}
	return phrases
}

func (b *builder) hasService(service string) bool {
	return b.table != nil && b.table.Regions(service) != nil
}

// link returns a phrase that links to a list of prefixes, and adds the list unless the view has it.
func (b *builder) link(text, title string, prefixes []string) phrase {
	if len(prefixes) == 0 {
		return phrase{text: text + " (no addresses)"}
	}
	key := title + "\n" + strings.Join(prefixes, "\n")
	id, ok := b.listIDs[key]
	if !ok {
		id = fmt.Sprintf("ranges-%d", len(b.lists)+1)
		b.listIDs[key] = id
		b.lists = append(b.lists, prefixList{id, title + ": " + formatCount(len(prefixes), "CIDR"), prefixes})
	}
	return phrase{text, id}
}

// showsInForce reports whether the page lists the rules in force. It returns true if the destinations do not show these
// rules: the destinations differ from the NetworkPolicy, or the table lacks the prefixes of a service.
func (b *builder) showsInForce(p *status.Policy) bool {
	if p.Current == nil {
		return false
	}
	for _, d := range p.Destinations {
		if d.Service != "" && !b.hasService(d.Service) {
			return true
		}
	}
	return p.State != status.Applied
}

// inForce describes each rule of the NetworkPolicy.
func (b *builder) inForce(spec networkingv1.NetworkPolicySpec) [][]phrase {
	if len(spec.Egress) == 0 {
		return [][]phrase{{{text: "nothing"}}}
	}
	var rules [][]phrase
	for _, rule := range spec.Egress {
		rules = append(rules, b.rule(rule))
	}
	return rules
}

func (b *builder) rule(rule networkingv1.NetworkPolicyEgressRule) []phrase {
	var cidrs []string
	for _, peer := range rule.To {
		if peer.IPBlock != nil {
			cidrs = append(cidrs, peer.IPBlock.CIDR)
		}
	}
	var phrases []phrase
	switch {
	case len(rule.To) == 0:
		phrases = append(phrases, phrase{text: "every destination"})
	case len(cidrs) == 0:
		phrases = append(phrases, phrase{text: "selected Pods"})
	case len(cidrs) < len(rule.To):
		phrases = append(phrases, phrase{text: "selected Pods, "})
	}
	if len(cidrs) > 0 {
		phrases = append(phrases, b.link(formatCount(len(cidrs), "CIDR"), "In force", cidrs))
	}
	return append(phrases, phrase{text: ": " + portsText(netpol.PortNames(rule.Ports))})
}

// familiesOf returns the address families of the CIDRs in force: 32 bits for IPv4, 128 for IPv6. status does not read
// the agent's --ip-family, but the CIDRs in force show it. If there are no CIDRs, familiesOf returns an empty map.
func familiesOf(policies []status.Policy) map[int]bool {
	families := make(map[int]bool)
	for _, p := range policies {
		if p.Current == nil {
			continue
		}
		for _, rule := range p.Current.Spec.Egress {
			for _, peer := range rule.To {
				if peer.IPBlock == nil {
					continue
				}
				if prefix, err := netip.ParsePrefix(peer.IPBlock.CIDR); err == nil {
					families[prefix.Addr().BitLen()] = true
				}
			}
		}
	}
	return families
}
