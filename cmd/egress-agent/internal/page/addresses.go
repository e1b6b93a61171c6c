package page

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
	"egress-agent/pkg/status"
)

// phrase is a part of a line. If listID is not empty, the phrase links to the prefixList with this id.
type phrase struct {
	text, listID string
	isCIDR       bool
}

// textOf returns the text of phrases without their links.
func textOf(phrases []phrase) string {
	var text strings.Builder
	for _, p := range phrases {
		text.WriteString(p.text)
	}
	return text.String()
}

// where returns phrases that say what a destination opens: its CIDR, its pods, or the service and each region.
func (b *builder) where(d status.Destination) []phrase {
	var phrases []phrase
	switch {
	case d.Service != "":
		phrases = b.service(d).where
	case d.CIDR == "":
		return []phrase{{text: d.Peer}}
	default:
		phrases = []phrase{{text: d.CIDR, isCIDR: true}}
	}
	if len(d.Except) > 0 {
		phrases = append(slices.Clip(phrases), phrase{text: " except " + listFirst(d.Except, 3)})
	}
	return phrases
}

// serviceName returns the service of a destination, with the services that it leaves out.
func serviceName(d status.Destination) string {
	if len(d.Without) == 0 {
		return d.Service
	}
	return d.Service + " without " + strings.Join(d.Without, ", ")
}

// serviceView is a service in some regions.
type serviceView struct {
	where     []phrase
	addresses extent // in the families in force; empty if the table lacks the service
}

// service returns the service and the regions of a destination. If the table has the service, the phrase for each region
// links to its prefixes. Thousands of policies may name the same service, so service builds each view once.
func (b *builder) service(d status.Destination) *serviceView {
	key := strings.Join(slices.Concat([]string{d.Service}, d.Regions, []string{"without"}, d.Without, []string{"except"}, d.Except), "\n")
	if v := b.services[key]; v != nil {
		return v
	}
	v := new(serviceView)
	var all []netip.Prefix
	for i, region := range regionsOf(d) {
		if i > 0 {
			v.where = append(v.where, phrase{text: ", "})
		}
		title := serviceName(d) + " " + cmp.Or(region, "in every region")
		if !b.hasService(d.Service) {
			v.where = append(v.where, phrase{text: title})
			continue
		}
		var texts []string
		for _, prefix := range b.prefixesIn(d, region) {
			if b.hasFamily(prefix) {
				all, texts = append(all, prefix), append(texts, prefix.String())
			}
		}
		v.where = append(v.where, b.link(title, title, texts))
	}
	v.addresses = newExtent(all)
	b.services[key] = v
	return v
}

// prefixesIn returns the prefixes of a destination with a service in one region. An empty region means every region.
func (b *builder) prefixesIn(d status.Destination, region string) []netip.Prefix {
	inRegion := policy.Destination{Service: d.Service, Without: d.Without, Except: d.Source.Except}
	if region != "" {
		inRegion.Regions = []string{region}
	}
	found, _ := netpol.Resolve(inRegion, b.table)
	return found
}

// regionsOf returns the regions for lookups. An empty region means every region.
func regionsOf(d status.Destination) []string {
	if len(d.Regions) == 0 {
		return []string{""}
	}
	return d.Regions
}

// labelOf says in a few words what a destination opens.
func labelOf(d status.Destination) string {
	switch {
	case d.Service == "" && len(d.Except) > 0:
		return d.CIDR + " except " + listFirst(d.Except, 1)
	case d.Service == "":
		return cmp.Or(d.CIDR, d.Peer)
	case len(d.Regions) == 0:
		return serviceName(d) + " in every region"
	case len(d.Regions) == 1:
		return serviceName(d) + " " + d.Regions[0]
	}
	return fmt.Sprintf("%s in %d regions", serviceName(d), len(d.Regions))
}

func (b *builder) hasService(service string) bool {
	return b.table != nil && b.table.Regions(service) != nil
}

func (b *builder) hasFamily(prefix netip.Prefix) bool {
	return len(b.families) == 0 || b.families[prefix.Addr().BitLen()]
}

// extentOfDestination returns the addresses of a destination, in the families in force. ok is false if they are
// unknown.
func (b *builder) extentOfDestination(d status.Destination) (addresses extent, ok bool) {
	switch {
	case d.IsExpired:
		return nil, true
	case d.Service == "" && d.CIDR == "":
		return nil, false // only the cluster knows the addresses of pods
	case d.Service == "":
		prefix, err := netip.ParsePrefix(d.CIDR)
		if err != nil || !b.hasFamily(prefix) {
			return nil, err == nil
		}
		if len(d.Except) > 0 {
			found, _ := netpol.Resolve(d.Source, b.table)
			return newExtent(found), true
		}
		return extent{prefix.Masked()}, true
	}
	return b.service(d).addresses, b.hasService(d.Service)
}

// belongs says where a CIDR belongs, or returns "".
func (b *builder) belongs(cidr string) string {
	prefix, err := netip.ParsePrefix(cidr)
	if err != nil {
		return ""
	}
	text, ok := b.descriptions[prefix]
	if !ok {
		text = b.owners.describe(prefix)
		b.descriptions[prefix] = text
	}
	return text
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
		b.lists = append(b.lists, prefixList{id, title + ": " + formatCIDRs(len(prefixes)), prefixes})
	}
	return phrase{text: text, listID: id}
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

// ruleView is a rule of a NetworkPolicy. Its ports are empty if the NetworkPolicy has no rules and so opens nothing.
type ruleView struct {
	where []phrase
	ports string
}

// portsAfterWhere returns the ports as the end of a line that begins with where.
func (r ruleView) portsAfterWhere() string {
	if r.ports == "" {
		return ""
	}
	return ": " + r.ports
}

// rules describes the rules of a NetworkPolicy. title is the title of the lists of its prefixes.
func (b *builder) rules(title string, rules []networkingv1.NetworkPolicyEgressRule) []ruleView {
	if len(rules) == 0 {
		return []ruleView{{where: []phrase{{text: "nothing"}}}}
	}
	var views []ruleView
	for _, rule := range rules {
		views = append(views, ruleView{b.peers(title, rule), portsText(netpol.PortNames(rule.Ports))})
	}
	return views
}

// peers describes the peers of a rule. It lists the CIDRs without their exceptions.
func (b *builder) peers(title string, rule networkingv1.NetworkPolicyEgressRule) []phrase {
	if len(rule.To) == 0 {
		return []phrase{{text: everyDestination}}
	}
	var cidrs []string
	selectsPods := false
	for _, peer := range rule.To {
		switch {
		case peer.IPBlock == nil:
			selectsPods = true
		case len(peer.IPBlock.Except) == 0:
			cidrs = append(cidrs, peer.IPBlock.CIDR)
		default:
			for _, prefix := range blockPrefixes(peer.IPBlock) {
				cidrs = append(cidrs, prefix.String())
			}
		}
	}
	var phrases []phrase
	switch {
	case selectsPods && len(cidrs) > 0:
		phrases = append(phrases, phrase{text: "selected Pods, "})
	case selectsPods:
		return []phrase{{text: "selected Pods"}}
	}
	if len(cidrs) == 1 {
		return append(phrases, phrase{text: cidrs[0], isCIDR: true})
	}
	return append(phrases, b.link(formatCIDRs(len(cidrs)), title, cidrs))
}

// familiesOf returns the address families in force: 32 bits for IPv4, 128 for IPv6. status does not read the agent's
// --ip-family, but the CIDRs in force show it. NetworkPolicies that open every address do not. If there are no CIDRs,
// familiesOf returns an empty map.
func familiesOf(inForce []extent) map[int]bool {
	families := make(map[int]bool)
	for _, addresses := range inForce {
		for _, prefix := range addresses {
			if prefix.Bits() > 0 {
				families[prefix.Addr().BitLen()] = true
			}
		}
	}
	return families
}
