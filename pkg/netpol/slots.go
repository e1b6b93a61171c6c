package netpol

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"egress-agent/pkg/awsranges"
)

// SharedSlots says whether a policy's spec takes part in a CIDR that has more port slots, over all the
// specs that apply to a pod, than there are: one of its own, or one that lies in it. Each spec by itself
// is within the limit. It returns what to tell the author; empty for nothing.
func SharedSlots(own networkingv1.NetworkPolicySpec, others []networkingv1.NetworkPolicySpec, maxPortSlots int) (message string) {
	prefix, slots := SlotsOf(append([]networkingv1.NetworkPolicySpec{own}, others...)...).Most(own)
	if !crowded(slots, maxPortSlots) {
		return ""
	}
	return fmt.Sprintf("With the other policies of the namespace, %s has %d ports and port ranges, and DNS takes %d; the dataplane keeps a random %d of them: join or drop some",
		prefix, slots, DNSSlots, maxPortSlots)
}

// Ports counts the distinct ports and port ranges of a spec's rules for CIDRs: no CIDR has more slots of
// it.
func Ports(spec networkingv1.NetworkPolicySpec) int {
	ports := make(map[portKey]bool)
	for _, rule := range spec.Egress {
		if !slices.ContainsFunc(rule.To, func(peer networkingv1.NetworkPolicyPeer) bool { return peer.IPBlock != nil }) {
			continue
		}
		for _, port := range portKeys(rule.Ports) {
			ports[port] = true
		}
	}
	return len(ports)
}

// CanShareSlots says whether specs with so many ports together may have more port slots in a CIDR than
// there are. Only then SharedSlots needs to look.
func CanShareSlots(ports, maxPortSlots int) bool {
	return crowded(ports, maxPortSlots)
}

// crowded says whether a CIDR's slots, with DNS's kept back, are more than there are.
func crowded(slots, maxPortSlots int) bool {
	return maxPortSlots != 0 && slots+DNSSlots > maxPortSlots
}

// Slots are the port slots of each CIDR that some specs, which apply to the same pods, have between them.
type Slots struct {
	cidrs []slotted // sorted
}

// SlotsOf counts. A CIDR may stand in several rules and specs, and has as many slots as there are distinct
// ports in these and in those of the CIDRs that contain it.
func SlotsOf(specs ...networkingv1.NetworkPolicySpec) Slots {
	open := make(map[netip.Prefix]map[portKey]bool) // the ports of each CIDR
	for _, spec := range specs {
		for _, rule := range spec.Egress {
			ports := portKeys(rule.Ports)
			for _, peer := range rule.To {
				prefix := peerPrefix(peer)
				if open[prefix] == nil {
					open[prefix] = make(map[portKey]bool, len(ports))
				}
				for _, port := range ports {
					open[prefix][port] = true
				}
			}
		}
	}
	delete(open, netip.Prefix{})  // of peers that are no CIDR
	var containers []netip.Prefix // of the current CIDR, the outermost first; open holds what they inherit
	var cidrs []slotted
	for _, prefix := range slices.SortedFunc(maps.Keys(open), awsranges.Compare) {
		for n := len(containers); n > 0 && !awsranges.Contains(containers[n-1], prefix); n = len(containers) {
			containers = containers[:n-1]
		}
		if n := len(containers); n > 0 {
			maps.Copy(open[prefix], open[containers[n-1]])
		}
		cidrs = append(cidrs, slotted{prefix, len(open[prefix])})
		containers = append(containers, prefix)
	}
	return Slots{cidrs}
}

// Most returns the CIDR with the most slots, DNS's not counted, among those of one of the specs and those
// that lie in them, and of several the first; 0 slots where there is none.
func (s Slots) Most(spec networkingv1.NetworkPolicySpec) (worst netip.Prefix, slots int) {
	own := make(map[netip.Prefix]bool)
	for _, rule := range spec.Egress {
		for _, peer := range rule.To {
			own[peerPrefix(peer)] = true
		}
	}
	var outer netip.Prefix // of the spec's, the last seen that lies in no other: what contains a CIDR comes before it
	for _, c := range s.cidrs {
		if own[c.prefix] && !awsranges.Contains(outer, c.prefix) {
			outer = c.prefix
		}
		if c.slots > slots && awsranges.Contains(outer, c.prefix) {
			worst, slots = c.prefix, c.slots
		}
	}
	return worst, slots
}

// OpensDNS says whether a spec that the agent wrote has the rule for the cluster's DNS, the only one for
// Pods.
func OpensDNS(spec networkingv1.NetworkPolicySpec) bool {
	return slices.ContainsFunc(spec.Egress, func(rule networkingv1.NetworkPolicyEgressRule) bool {
		return slices.ContainsFunc(rule.To, func(peer networkingv1.NetworkPolicyPeer) bool { return peer.PodSelector != nil })
	})
}

// AllowsEverything says whether a rule of the spec leaves out both where to and at which port.
func AllowsEverything(spec networkingv1.NetworkPolicySpec) bool {
	return slices.ContainsFunc(spec.Egress, func(rule networkingv1.NetworkPolicyEgressRule) bool {
		return len(rule.To) == 0 && len(rule.Ports) == 0
	})
}

// PortNames gives a rule's ports as "TCP 443" or "UDP 8000-8100"; nil for every port.
func PortNames(ports []networkingv1.NetworkPolicyPort) []string {
	var names []string
	for _, port := range ports {
		name := string(corev1.ProtocolTCP)
		if port.Protocol != nil {
			name = string(*port.Protocol)
		}
		if port.Port != nil {
			name += " " + port.Port.String()
		}
		if port.EndPort != nil {
			name += fmt.Sprintf("-%d", *port.EndPort)
		}
		names = append(names, name)
	}
	return names
}

// portKey tells the ports of rules apart. The zero key is every port of every protocol.
type portKey struct {
	protocol corev1.Protocol
	port     intstr.IntOrString // zero for every one
	end      int32
}

func portKeys(ports []networkingv1.NetworkPolicyPort) []portKey {
	if len(ports) == 0 {
		return []portKey{{}}
	}
	keys := make([]portKey, len(ports))
	for i, port := range ports {
		keys[i].protocol = corev1.ProtocolTCP
		if port.Protocol != nil {
			keys[i].protocol = *port.Protocol
		}
		if port.Port != nil {
			keys[i].port = *port.Port
		}
		if port.EndPort != nil {
			keys[i].end = *port.EndPort
		}
	}
	return keys
}
