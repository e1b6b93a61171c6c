package netpol

import (
	"iter"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"egress-agent/pkg/internal/prefixes"
)

// rule opens its ports to its peers. A rule cannot lack peers, because first is always a peer. Kubernetes reads a rule
// with an empty "to" as open to every destination
// (https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.37/#networkpolicyegressrule-v1-networking-k8s-io).
// The peer of the zero rule is empty, and an API server refuses such a peer.
type rule struct {
	first networkingv1.NetworkPolicyPeer
	rest  []networkingv1.NetworkPolicyPeer
	ports []networkingv1.NetworkPolicyPort // nil means every port
}

func (r rule) toAPI() networkingv1.NetworkPolicyEgressRule {
	to := make([]networkingv1.NetworkPolicyPeer, 0, 1+len(r.rest))
	return networkingv1.NetworkPolicyEgressRule{To: append(append(to, r.first), r.rest...), Ports: r.ports}
}

// prefixPeers returns one peer for each prefix of the sequence, which has n prefixes. A policy may have thousands of
// peers, so the peers share three allocations.
func prefixPeers(n int, sequence iter.Seq[netip.Prefix]) []networkingv1.NetworkPolicyPeer {
	const usualLength, maxLength = len("255.255.255.255/32"), len("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128")
	var text strings.Builder
	text.Grow(n * usualLength)
	buffer, ends := make([]byte, 0, maxLength), make([]int, 0, n)
	for prefix := range sequence {
		text.Write(prefix.AppendTo(buffer))
		ends = append(ends, text.Len())
	}
	start := 0
	blocks, peers := make([]networkingv1.IPBlock, n), make([]networkingv1.NetworkPolicyPeer, n)
	for i, end := range ends {
		blocks[i].CIDR = text.String()[start:end]
		peers[i].IPBlock = &blocks[i]
		start = end
	}
	return peers
}

// rulePorts returns a port set as a rule's ports. It returns nil, which Kubernetes reads as every port, only for the
// set of every port.
func rulePorts(set prefixes.PortSet) []networkingv1.NetworkPolicyPort {
	if set.IsEveryPort() {
		return nil
	}
	ports := make([]networkingv1.NetworkPolicyPort, len(set.Ranges()))
	for i, r := range set.Ranges() {
		protocol, first := corev1.Protocol(r.Protocol), intstr.FromInt32(int32(r.First))
		ports[i] = networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: &first}
		if r.Last > r.First {
			last := int32(r.Last)
			ports[i].EndPort = &last
		}
	}
	return ports
}

// appendPrefixRules appends one rule for each distinct port set, sorted by port set.
func appendPrefixRules(rules []networkingv1.NetworkPolicyEgressRule, blocks prefixes.Blocks) []networkingv1.NetworkPolicyEgressRule {
	groups := blocks.ByPorts()
	peers := prefixPeers(blocks.Len(), func(yield func(netip.Prefix) bool) {
		for _, group := range groups {
			for _, prefix := range group.Prefixes {
				if !yield(prefix) {
					return
				}
			}
		}
	})
	for _, group := range groups {
		n := len(group.Prefixes)
		rules = append(rules, rule{first: peers[0], rest: peers[1:n], ports: rulePorts(group.Ports)}.toAPI())
		peers = peers[n:]
	}
	return rules
}

// The parts of the DNS rule. All policies share them, so no code may modify them.
var (
	dnsPort        = intstr.FromInt32(53)
	dnsUDP, dnsTCP = corev1.ProtocolUDP, corev1.ProtocolTCP
	dnsPorts       = []networkingv1.NetworkPolicyPort{{Protocol: &dnsUDP, Port: &dnsPort}, {Protocol: &dnsTCP, Port: &dnsPort}}
	dnsPods        = networkingv1.NetworkPolicyPeer{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: metav1.NamespaceSystem}},
		PodSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"k8s-app": "kube-dns"}},
	}
)

// dnsRule opens port 53 to the cluster's DNS and to further DNS servers. Without this rule, a pod cannot look up names.
// On AWS VPC CNI the selector also selects the cluster IP of the DNS Service.
func dnsRule(furtherServers []netip.Prefix) rule {
	return rule{first: dnsPods, rest: prefixPeers(len(furtherServers), slices.Values(furtherServers)), ports: dnsPorts}
}

// allowAllRule is the only rule without peers. Only a policy with "defaultAction": "allow" has this rule.
func allowAllRule() networkingv1.NetworkPolicyEgressRule {
	return networkingv1.NetworkPolicyEgressRule{}
}
