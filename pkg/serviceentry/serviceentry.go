// Package serviceentry translates NetworkPolicies to Istio's ServiceEntries, for meshes that forward only to hosts that
// they know (outboundTrafficPolicy REGISTRY_ONLY).
//
// The package is pure.
package serviceentry

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/netpol"
)

// ServiceEntry is an object of networking.istio.io/v1 with the fields that a list of CIDRs needs.
type ServiceEntry struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        Metadata `json:"metadata"`
	Spec            Spec     `json:"spec"`
}

// Metadata is the metadata of a ServiceEntry.
type Metadata struct {
	Name      string            `json:"name"`
	Namespace string            `json:"namespace,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
}

// Spec is the spec of a ServiceEntry.
type Spec struct {
	Hosts      []string `json:"hosts"`
	Addresses  []string `json:"addresses"`
	Ports      []Port   `json:"ports"`
	Location   string   `json:"location"`
	Resolution string   `json:"resolution"`
	ExportTo   []string `json:"exportTo"`
}

// Port is a port of a ServiceEntry.
type Port struct {
	Number   uint32 `json:"number"`
	Name     string `json:"name"`
	Protocol string `json:"protocol"`
}

const (
	maxAddresses = 256  // of the CustomResourceDefinition
	maxPorts     = 256  // of the CustomResourceDefinition
	maxSetPorts  = 1024 // of one rule: each port costs every sidecar a listener
	// minBits is the shortest prefix. A wider entry takes its ports away from all other hosts, and istiod warns of it.
	minBits = 8
	// The ports of the sidecar itself cannot be forwarded.
	firstSidecarPort, lastSidecarPort = 15000, 15090
)

// Of returns ServiceEntries with the addresses and TCP ports of a NetworkPolicy, and notes on what they leave out. They
// never open more than the NetworkPolicy. The ServiceEntries are in the order of the rules, each with at most 256
// addresses and 256 ports.
//
// The protocol is TCP: for TLS, a sidecar compares the name in the handshake with the host, which is made up here. A
// ServiceEntry without addresses would open its ports everywhere, so Of makes none.
func Of(networkPolicy *networkingv1.NetworkPolicy) (entries []ServiceEntry, notes []string) {
	t := &translation{networkPolicy: networkPolicy}
	for _, rule := range networkPolicy.Spec.Egress {
		t.add(rule)
	}
	domainRules, _ := netpol.DomainRulesOf(networkPolicy.Annotations) // an annotation that the agent did not write has no names
	for _, rule := range domainRules {
		t.notes = append(t.notes, strings.Join(rule.Domains, ", ")+": these ServiceEntries have only addresses; write your own for the names")
	}
	return t.entries, t.notes
}

type translation struct {
	networkPolicy *networkingv1.NetworkPolicy
	entries       []ServiceEntry
	notes         []string
}

func (t *translation) note(format string, args ...any) {
	t.notes = append(t.notes, fmt.Sprintf(format, args...))
}

func (t *translation) add(rule networkingv1.NetworkPolicyEgressRule) {
	if len(rule.To) == 0 {
		t.note("it allows everything, which no ServiceEntry can say")
		return
	}
	addresses := t.addressesOf(rule.To)
	if len(addresses) == 0 {
		return // pods and DNS, which a mesh knows from the cluster
	}
	ports, left := portsOf(rule.Ports)
	switch {
	case left != "":
		t.note("%s of %s: %s", portsText(rule.Ports), addressesText(addresses), left)
		return
	case len(ports) == 0:
		t.note("%s of %s: a sidecar forwards only TCP, and not the ports 15000 to 15090", portsText(rule.Ports), addressesText(addresses))
		return
	}
	for chunk := range slices.Chunk(addresses, maxAddresses) {
		for some := range slices.Chunk(ports, maxPorts) {
			t.addEntry(slices.Clone(chunk), slices.Clone(some))
		}
	}
}

// addressesOf returns the CIDRs of a rule, without those that are too wide.
func (t *translation) addressesOf(peers []networkingv1.NetworkPolicyPeer) []string {
	var addresses []string
	for _, peer := range peers {
		if peer.IPBlock == nil {
			continue
		}
		prefix, err := netip.ParsePrefix(peer.IPBlock.CIDR)
		switch {
		case err != nil || len(peer.IPBlock.Except) > 0:
			t.note("%s: it is no plain CIDR", peer.IPBlock.CIDR)
		case prefix.Bits() < minBits:
			t.note("%s: a ServiceEntry wider than /%d takes its ports away from all other hosts of the mesh", prefix, minBits)
		default:
			addresses = append(addresses, prefix.String())
		}
	}
	return addresses
}

// portsOf returns the TCP ports that a sidecar can forward. left is why there are none, if there are too many.
func portsOf(opened []networkingv1.NetworkPolicyPort) (ports []Port, left string) {
	if len(opened) == 0 {
		return nil, "a ServiceEntry lists each port"
	}
	for _, p := range opened {
		if p.Protocol == nil || *p.Protocol != corev1.ProtocolTCP || p.Port == nil {
			continue
		}
		last := p.Port.IntVal
		if p.EndPort != nil {
			last = *p.EndPort
		}
		if len(ports)+int(last-p.Port.IntVal)+1 > maxSetPorts {
			return nil, fmt.Sprintf("a ServiceEntry lists each port, and these are more than %d", maxSetPorts)
		}
		for number := p.Port.IntVal; number <= last; number++ {
			if number < firstSidecarPort || number > lastSidecarPort {
				ports = append(ports, Port{uint32(number), "tcp-" + strconv.Itoa(int(number)), "TCP"})
			}
		}
	}
	return ports, ""
}

func portsText(ports []networkingv1.NetworkPolicyPort) string {
	names := netpol.PortNames(ports)
	switch len(names) {
	case 0:
		return "every port"
	case 1:
		return names[0]
	}
	return fmt.Sprintf("%s and %d more ports", names[0], len(names)-1)
}

func addressesText(addresses []string) string {
	if len(addresses) == 1 {
		return addresses[0]
	}
	return fmt.Sprintf("%s and %d more CIDRs", addresses[0], len(addresses)-1)
}

// addEntry adds a ServiceEntry. Its host is unique in the cluster and stays the same while the order of the rules does.
func (t *translation) addEntry(addresses []string, ports []Port) {
	number := strconv.Itoa(len(t.entries) + 1)
	name, namespace := t.networkPolicy.Name, t.networkPolicy.Namespace
	host := number + "." + name
	if namespace != "" {
		host += "." + namespace
	}
	t.entries = append(t.entries, ServiceEntry{
		TypeMeta: metav1.TypeMeta{APIVersion: "networking.istio.io/v1", Kind: "ServiceEntry"},
		Metadata: Metadata{Name: name + "-" + number, Namespace: namespace, Labels: map[string]string{netpol.ManagedByLabel: netpol.ManagedBy}},
		Spec: Spec{
			Hosts: []string{host + ".egress.invalid"}, Addresses: addresses, Ports: ports,
			Location: "MESH_EXTERNAL", Resolution: "NONE", ExportTo: []string{"."},
		},
	})
}
