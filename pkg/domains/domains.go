// Package domains builds the objects that open names beside a NetworkPolicy: EKS's ApplicationNetworkPolicy, or
// CiliumNetworkPolicy.
//
// The package is pure. No object opens more than the NetworkPolicy's annotation says: every rule has a name.
package domains

import (
	"net/netip"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// Object is an object that opens names. Its Spec has the type of its kind.
type Object struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        Metadata `json:"metadata"`
	Spec            any      `json:"spec"`
}

// Metadata is the metadata of an Object.
type Metadata struct {
	Name      string            `json:"name"`
	Namespace string            `json:"namespace,omitempty"`
	Labels    map[string]string `json:"labels"`
}

// Of returns the object that opens the names of a NetworkPolicy of the agent, of the kind that options.Domains says. It
// returns nil if there are no names, and an error if the agent did not write the annotation with the names.
func Of(networkPolicy *networkingv1.NetworkPolicy, options netpol.Options) (*Object, error) {
	rules, err := netpol.DomainRulesOf(networkPolicy.Annotations)
	if err != nil || rules == nil {
		return nil, err
	}
	object := &Object{Metadata: Metadata{
		Name: networkPolicy.Name, Namespace: networkPolicy.Namespace, Labels: map[string]string{netpol.ManagedByLabel: netpol.ManagedBy},
	}}
	if options.Domains == netpol.Cilium {
		object.TypeMeta = metav1.TypeMeta{APIVersion: "cilium.io/v2", Kind: "CiliumNetworkPolicy"}
		object.Spec = ciliumSpec(networkPolicy.Spec.PodSelector, rules, options.DNSCIDRs)
	} else {
		object.TypeMeta = metav1.TypeMeta{APIVersion: "networking.k8s.aws/v1alpha1", Kind: "ApplicationNetworkPolicy"}
		object.Spec = applicationSpec(networkPolicy.Spec.PodSelector, rules)
	}
	return object, nil
}

// ApplicationSpec is the spec of an ApplicationNetworkPolicy.
type ApplicationSpec struct {
	PodSelector metav1.LabelSelector `json:"podSelector"`
	PolicyTypes []string             `json:"policyTypes"`
	Egress      []ApplicationRule    `json:"egress"`
}

// ApplicationRule is an egress rule of an ApplicationNetworkPolicy.
type ApplicationRule struct {
	To    []ApplicationPeer                `json:"to"`
	Ports []networkingv1.NetworkPolicyPort `json:"ports,omitempty"`
}

// ApplicationPeer is a peer of an ApplicationRule.
type ApplicationPeer struct {
	DomainNames []string `json:"domainNames"`
}

func applicationSpec(pods metav1.LabelSelector, rules []netpol.DomainRule) ApplicationSpec {
	spec := ApplicationSpec{PodSelector: pods, PolicyTypes: []string{"Egress"}}
	for _, rule := range rules {
		spec.Egress = append(spec.Egress, ApplicationRule{To: []ApplicationPeer{{rule.Domains}}, Ports: rule.Ports})
	}
	return spec
}

// CiliumSpec is the spec of a CiliumNetworkPolicy.
type CiliumSpec struct {
	EndpointSelector metav1.LabelSelector `json:"endpointSelector"`
	Egress           []CiliumRule         `json:"egress"`
}

// CiliumRule is an egress rule of a CiliumNetworkPolicy. It has exactly one of ToFQDNs, ToEndpoints and ToCIDR.
type CiliumRule struct {
	ToFQDNs     []CiliumName           `json:"toFQDNs,omitempty"`
	ToEndpoints []metav1.LabelSelector `json:"toEndpoints,omitempty"`
	ToCIDR      []netip.Prefix         `json:"toCIDR,omitempty"`
	ToPorts     []CiliumPorts          `json:"toPorts,omitempty"`
}

// CiliumName is a name, or a pattern of names.
type CiliumName struct {
	MatchName    string `json:"matchName,omitempty"`
	MatchPattern string `json:"matchPattern,omitempty"`
}

// CiliumPorts are ports of a CiliumRule, and the names that pods may look up there.
type CiliumPorts struct {
	Ports []CiliumPort    `json:"ports"`
	Rules *CiliumDNSRules `json:"rules,omitempty"`
}

// CiliumDNSRules make Cilium read the answers of DNS, from which it knows the addresses of names.
type CiliumDNSRules struct {
	DNS []CiliumName `json:"dns"`
}

// CiliumPort is a port or a range of ports.
type CiliumPort struct {
	Port     string `json:"port"`
	EndPort  int32  `json:"endPort,omitempty"`
	Protocol string `json:"protocol"`
}

// maxCiliumPorts is the number of ports in an item of toPorts (the CustomResourceDefinition of Cilium 1.20).
const maxCiliumPorts = 40

func ciliumSpec(pods metav1.LabelSelector, rules []netpol.DomainRule, dnsCIDRs []netip.Prefix) CiliumSpec {
	dns := []CiliumPorts{{
		Ports: []CiliumPort{{Port: "53", Protocol: "UDP"}, {Port: "53", Protocol: "TCP"}},
		Rules: &CiliumDNSRules{DNS: []CiliumName{{MatchPattern: "*"}}},
	}}
	spec := CiliumSpec{EndpointSelector: pods, Egress: []CiliumRule{{
		ToEndpoints: []metav1.LabelSelector{{MatchLabels: map[string]string{
			"k8s:io.kubernetes.pod.namespace": metav1.NamespaceSystem, "k8s:k8s-app": "kube-dns",
		}}},
		ToPorts: dns,
	}}}
	if len(dnsCIDRs) > 0 {
		spec.Egress = append(spec.Egress, CiliumRule{ToCIDR: dnsCIDRs, ToPorts: dns})
	}
	for _, rule := range rules {
		spec.Egress = append(spec.Egress, CiliumRule{ToFQDNs: ciliumNames(rule.Domains), ToPorts: ciliumPorts(rule.Ports)})
	}
	return spec
}

// ciliumNames returns names. For *.example.com it returns Cilium's **.example.com: one label or more.
func ciliumNames(domains []string) []CiliumName {
	names := make([]CiliumName, len(domains))
	for i, domain := range domains {
		if policy.IsWildcard(domain) {
			names[i].MatchPattern = "*" + domain
		} else {
			names[i].MatchName = domain
		}
	}
	return names
}

// ciliumPorts returns nil for every port.
func ciliumPorts(ports []networkingv1.NetworkPolicyPort) []CiliumPorts {
	var all []CiliumPorts
	for i, port := range ports {
		p := CiliumPort{Port: strconv.Itoa(port.Port.IntValue()), Protocol: string(corev1.ProtocolTCP)}
		if port.Protocol != nil {
			p.Protocol = string(*port.Protocol)
		}
		if port.EndPort != nil {
			p.EndPort = *port.EndPort
		}
		if i%maxCiliumPorts == 0 {
			all = append(all, CiliumPorts{})
		}
		last := &all[len(all)-1]
		last.Ports = append(last.Ports, p)
	}
	return all
}
