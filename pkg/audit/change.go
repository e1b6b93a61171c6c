package audit

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"egress-agent/pkg/internal/prefixes"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// Change is what a new version of a NetworkPolicy opens and closes. It compares two versions of one NetworkPolicy, and not
// all of a namespace, where another NetworkPolicy may open the same.
type Change struct {
	Opened []Opening `json:"opened,omitempty"`
	Closed []Opening `json:"closed,omitempty"`
	// OpenedMore and ClosedMore count further CIDRs and peers, which the lists leave out.
	OpenedMore int `json:"openedMore,omitempty"`
	ClosedMore int `json:"closedMore,omitempty"`
	// Unknown is why the lists are missing.
	Unknown string `json:"unknown,omitempty"`
}

// Opening is a set of destinations with the same ports.
type Opening struct {
	// To are CIDRs, sorted, or pods, or a domain.
	To []string `json:"to"`
	// Ports have the form "TCP 443" or "UDP 8000-8100"; empty means every port of every protocol.
	Ports []string `json:"ports,omitempty"`
}

// maxTo bounds the CIDRs and peers in each list of a Change.
const maxTo = 100

// Compare returns the difference between two versions of a NetworkPolicy: its spec and the names in its annotation. A nil
// version opens nothing.
func Compare(old, new *networkingv1.NetworkPolicy) Change {
	a, b := contentOf(old), contentOf(new)
	var c Change
	var err error
	if c.Opened, c.OpenedMore, err = onlyIn(b, a); err == nil {
		c.Closed, c.ClosedMore, err = onlyIn(a, b)
	}
	if err != nil {
		return Change{Unknown: err.Error()}
	}
	return c
}

// content is what a version opens.
type content struct {
	addresses prefixes.Set
	peers     map[string][]string // the ports of each peer that is no CIDR, by its description
}

func contentOf(version *networkingv1.NetworkPolicy) content {
	c := content{peers: make(map[string][]string)}
	if version == nil {
		return c
	}
	domainRules, _ := netpol.DomainRulesOf(version.Annotations) // an annotation that the agent did not write opens nothing
	for _, rule := range domainRules {
		ranges, _ := rangesOf(rule.Ports)
		for _, domain := range rule.Domains {
			c.addPeer(domain, portNames(ranges))
		}
	}
	builder := prefixes.NewBuilder(0)
	for _, rule := range version.Spec.Egress {
		ranges, isPlain := rangesOf(rule.Ports)
		var blocks []netip.Prefix
		for _, peer := range rule.To {
			if peer.IPBlock == nil || !isPlain || len(peer.IPBlock.Except) > 0 {
				c.addPeer(describe(peer, isPlain, rule.Ports), portNames(ranges))
				continue
			}
			if prefix, err := netip.ParsePrefix(peer.IPBlock.CIDR); err == nil {
				blocks = append(blocks, prefix.Masked())
			}
		}
		if len(rule.To) == 0 {
			blocks = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
		}
		if isPlain {
			builder.Add(builder.Ports(slices.Clone(ranges)), blocks...)
		}
	}
	c.addresses = builder.Set()
	return c
}

// addPeer adds the ports of a peer; none means every port.
func (c *content) addPeer(peer string, ports []string) {
	if other, isKnown := c.peers[peer]; isKnown {
		if len(other) == 0 || len(ports) == 0 {
			ports = nil
		} else {
			ports = append(other, ports...)
			slices.Sort(ports)
			ports = slices.Compact(ports)
		}
	}
	c.peers[peer] = ports
}

// rangesOf returns the port ranges of a rule; nil means every port. isPlain is false if a port has a name.
func rangesOf(ports []networkingv1.NetworkPolicyPort) (ranges []prefixes.PortRange, isPlain bool) {
	if len(ports) == 0 {
		return nil, true
	}
	for _, p := range ports {
		r := prefixes.PortRange{Protocol: string(policy.TCP), First: 1, Last: 65535}
		if p.Protocol != nil {
			r.Protocol = string(*p.Protocol)
		}
		if p.Port != nil {
			if p.Port.Type == intstr.String {
				return nil, false
			}
			r.First, r.Last = uint16(p.Port.IntVal), uint16(p.Port.IntVal)
		}
		if p.EndPort != nil {
			r.Last = uint16(*p.EndPort)
		}
		ranges = append(ranges, r)
	}
	return prefixes.MergePorts(ranges), true
}

// describe returns a text for a peer that is not a plain CIDR. Equal peers have equal texts.
func describe(peer networkingv1.NetworkPolicyPeer, isPlain bool, ports []networkingv1.NetworkPolicyPort) string {
	text := ""
	switch {
	case peer.IPBlock != nil:
		text = peer.IPBlock.CIDR
		if len(peer.IPBlock.Except) > 0 {
			text += fmt.Sprintf(" except %s", peer.IPBlock.Except)
		}
	default:
		text = "pods"
		if peer.PodSelector != nil && len(peer.PodSelector.MatchLabels)+len(peer.PodSelector.MatchExpressions) > 0 {
			text += " " + metav1.FormatLabelSelector(peer.PodSelector)
		}
		if peer.NamespaceSelector != nil {
			text += " of namespaces " + metav1.FormatLabelSelector(peer.NamespaceSelector)
		}
	}
	if !isPlain {
		encoded, _ := json.Marshal(ports)
		text += " on " + string(encoded)
	}
	return text
}

func portNames(ranges []prefixes.PortRange) []string {
	var names []string
	for _, r := range ranges {
		names = append(names, policy.Port{Protocol: policy.Protocol(r.Protocol), First: r.First, Last: r.Last}.String())
	}
	return names
}

// onlyIn returns what a opens and b does not. more counts what is left out.
func onlyIn(a, b content) (openings []Opening, more int, err error) {
	blocks, err := a.addresses.Subtract(b.addresses).Blocks()
	if err != nil {
		return nil, 0, err
	}
	left := maxTo
	add := func(to []string, ports []string) {
		shown := min(left, len(to))
		left -= shown
		more += len(to) - shown
		if shown > 0 {
			openings = append(openings, Opening{to[:shown], ports})
		}
	}
	for _, group := range blocks.ByPorts() {
		to := make([]string, 0, len(group.Prefixes))
		for _, prefix := range group.Prefixes {
			to = append(to, prefix.String())
		}
		var ports []string
		if !group.Ports.IsEveryPort() {
			ports = portNames(group.Ports.Ranges())
		}
		add(to, ports)
	}
	var peers []string
	for peer, ports := range a.peers {
		if other, isIn := b.peers[peer]; !isIn || !slices.Equal(ports, other) {
			peers = append(peers, peer)
		}
	}
	slices.Sort(peers)
	for _, peer := range peers {
		add([]string{peer}, a.peers[peer])
	}
	return openings, more, nil
}
