package netpol

import (
	"net/netip"

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

func (r rule) api() networkingv1.NetworkPolicyEgressRule {
	to := make([]networkingv1.NetworkPolicyPeer, 0, 1+len(r.rest))
	return networkingv1.NetworkPolicyEgressRule{To: append(append(to, r.first), r.rest...), Ports: r.ports}
}

// prefixRule opens ports to a first prefix and any more.
func prefixRule(ports []networkingv1.NetworkPolicyPort, first netip.Prefix, rest ...netip.Prefix) rule {
	peers := prefixPeers(append([]netip.Prefix{first}, rest...)...)
	return rule{first: peers[0], rest: peers[1:], ports: ports}
}

// prefixPeers allocates what many peers have in common once: a policy may have thousands.
func prefixPeers(prefixes ...netip.Prefix) []networkingv1.NetworkPolicyPeer {
	const usual = len("255.255.255.255/32")
	text, ends := make([]byte, 0, len(prefixes)*usual), make([]int, 0, len(prefixes))
	for _, prefix := range prefixes {
		text = prefix.AppendTo(text)
		ends = append(ends, len(text))
	}
	all, start := string(text), 0
	blocks, peers := make([]networkingv1.IPBlock, len(prefixes)), make([]networkingv1.NetworkPolicyPeer, len(prefixes))
	for i, end := range ends {
		blocks[i].CIDR = all[start:end]
		peers[i].IPBlock = &blocks[i]
		start = end
	}
	return peers
}

// dnsRule opens port 53 to the cluster's DNS, without which no destination can be found by name. On
// AWS VPC CNI the selector also stands for the Service's cluster IP.
func dnsRule(more []netip.Prefix) rule {
	port, udp, tcp := intstr.FromInt32(53), corev1.ProtocolUDP, corev1.ProtocolTCP
	return rule{
		first: networkingv1.NetworkPolicyPeer{
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: metav1.NamespaceSystem}},
			PodSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"k8s-app": "kube-dns"}},
		},
		rest:  prefixPeers(more...),
		ports: []networkingv1.NetworkPolicyPort{{Protocol: &udp, Port: &port}, {Protocol: &tcp, Port: &port}},
	}
}

// everything is the one rule without peers: what "defaultAction": "allow" asks for in so many words.
func everything() networkingv1.NetworkPolicyEgressRule { return networkingv1.NetworkPolicyEgressRule{} }
