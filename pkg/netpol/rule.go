package netpol

import (
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// rule opens its ports to its peers. It has a first peer, so it cannot be without: Kubernetes reads
// a rule with an empty "to" as open to every destination
// (https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.37/#networkpolicyegressrule-v1-networking-k8s-io).
// The zero rule's peer is empty too, which an API server refuses.
type rule struct {
	first networkingv1.NetworkPolicyPeer
	rest  []networkingv1.NetworkPolicyPeer
	ports []networkingv1.NetworkPolicyPort // nil is every port
}

func (r rule) toAPI() networkingv1.NetworkPolicyEgressRule {
	to := make([]networkingv1.NetworkPolicyPeer, 0, 1+len(r.rest))
	return networkingv1.NetworkPolicyEgressRule{To: append(append(to, r.first), r.rest...), Ports: r.ports}
}

// prefixPeers returns so many peers, each for one prefix. It allocates what they have in common once: a policy may
// have thousands.
func prefixPeers(n int, prefix func(i int) netip.Prefix) []networkingv1.NetworkPolicyPeer {
	const usual, longest = len("255.255.255.255/32"), len("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128")
	var text strings.Builder
	text.Grow(n * usual)
	buffer, ends := make([]byte, 0, longest), make([]int, n)
	for i := range n {
		text.Write(prefix(i).AppendTo(buffer))
		ends[i] = text.Len()
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

// What the rule for DNS is made of, shared by all policies. Never to be modified.
var (
	dnsPort        = intstr.FromInt32(53)
	dnsUDP, dnsTCP = corev1.ProtocolUDP, corev1.ProtocolTCP
	dnsPorts       = []networkingv1.NetworkPolicyPort{{Protocol: &dnsUDP, Port: &dnsPort}, {Protocol: &dnsTCP, Port: &dnsPort}}
	dnsPods        = networkingv1.NetworkPolicyPeer{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: metav1.NamespaceSystem}},
		PodSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"k8s-app": "kube-dns"}},
	}
)

// dnsRule opens port 53 to the cluster's DNS, without which no destination can be found by name. On
// AWS VPC CNI the selector also stands for the Service's cluster IP.
func dnsRule(more []netip.Prefix) rule {
	return rule{first: dnsPods, rest: prefixPeers(len(more), func(i int) netip.Prefix { return more[i] }), ports: dnsPorts}
}

// allowAllRule is the one rule without peers: what "defaultAction": "allow" asks for in so many words.
func allowAllRule() networkingv1.NetworkPolicyEgressRule {
	return networkingv1.NetworkPolicyEgressRule{}
}
