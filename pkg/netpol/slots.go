package netpol

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"egress-agent/pkg/internal/prefixes"
	"egress-agent/pkg/policy"
)

// Usage is what a spec takes of what a pod's dataplane has.
type Usage struct {
	CIDRs int
	// Ports are the distinct ports and port ranges of the rules for CIDRs, in no order.
	Ports []PortKey
}

// UsageOf counts.
func UsageOf(spec networkingv1.NetworkPolicySpec) Usage {
	usage := Usage{CIDRs: CIDRCount(spec)}
	for _, rule := range spec.Egress {
		if !slices.ContainsFunc(rule.To, func(peer networkingv1.NetworkPolicyPeer) bool { return peer.IPBlock != nil }) {
			continue
		}
		for _, port := range portKeys(rule.Ports) {
			if !slices.Contains(usage.Ports, port) {
				usage.Ports = append(usage.Ports, port)
			}
		}
	}
	return usage
}

// MayExceed reports whether specs that apply to the same pods may take more than a pod has: with so many CIDRs, added up,
// and distinct ports and port ranges. Only then Beside needs to look.
func (o Options) MayExceed(cidrs, ports int) bool { return cidrs > maxPeers || o.exceedsSlots(ports) }

// Beside returns what keeps a pod from having a spec beside the others that apply to it, each of which is within a pod's
// limits by itself: more CIDRs than fit, or a CIDR of the spec, or in one of it, with too many port slots. Nil if they
// fit.
func Beside(own networkingv1.NetworkPolicySpec, others []networkingv1.NetworkPolicySpec, options Options) policy.Problems {
	slots := SlotsOf(append([]networkingv1.NetworkPolicySpec{own}, others...)...)
	if count := len(slots.cidrs); count > maxPeers {
		return tooManyBeside(count)
	}
	prefix, most := slots.Max(own)
	if !options.exceedsSlots(most) {
		return nil
	}
	problem := slotProblem(prefix.String(), most, "", options)
	problem.Message = strings.TrimSuffix(problem.Message, " of ") + " of this or the namespace's other policies, which apply to the same pods"
	return policy.Problems{problem}
}

// TooManyBeside is what Beside returns for specs with so many CIDRs, added up, that nobody needs to look at them.
func TooManyBeside(cidrs int) policy.Problems {
	if cidrs <= 2*maxPeers {
		return nil
	}
	return tooManyBeside(cidrs)
}

func tooManyBeside(count int) policy.Problems {
	return policy.Problems{{Path: "allowedDestinations", Message: fmt.Sprintf(
		"Too many CIDRs: %d together with the namespace's other policies, which apply to the same pods; at most %d fit in the dataplane beside those they replace", count, maxPeers)}}
}

// Slots are the port slots of each CIDR that some specs, which apply to the same pods, have between them.
type Slots struct {
	cidrs []prefixSlots // sorted
}

// SlotsOf counts. A CIDR may stand in several rules and specs, and has as many slots as there are distinct
// ports in these and in those of the CIDRs that contain it.
func SlotsOf(specs ...networkingv1.NetworkPolicySpec) Slots {
	open := make(map[netip.Prefix]map[PortKey]bool) // the ports of each CIDR
	for _, spec := range specs {
		for _, rule := range spec.Egress {
			ports := portKeys(rule.Ports)
			for _, peer := range rule.To {
				prefix := peerPrefix(peer)
				if open[prefix] == nil {
					open[prefix] = make(map[PortKey]bool, len(ports))
				}
				for _, port := range ports {
					open[prefix][port] = true
				}
			}
		}
	}
	delete(open, netip.Prefix{}) // of peers that are no CIDR
	sorted := slices.SortedFunc(maps.Keys(open), prefixes.Compare)
	cidrs := make([]prefixSlots, 0, len(sorted))
	for prefix, slots := range prefixes.CountSlots(len(sorted), func(i int) (netip.Prefix, []PortKey) {
		return sorted[i], slices.Collect(maps.Keys(open[sorted[i]]))
	}) {
		cidrs = append(cidrs, prefixSlots{prefix, slots})
	}
	return Slots{cidrs}
}

// Max returns the CIDR with the most slots, DNS's not counted, among those of one of the specs and those
// that lie in them, and of several the first; 0 slots where there is none.
func (s Slots) Max(spec networkingv1.NetworkPolicySpec) (worst netip.Prefix, slots int) {
	own := make(map[netip.Prefix]bool)
	for _, rule := range spec.Egress {
		for _, peer := range rule.To {
			own[peerPrefix(peer)] = true
		}
	}
	var outer netip.Prefix // of the spec's, the last seen that lies in no other: what contains a CIDR comes before it
	for _, c := range s.cidrs {
		if own[c.prefix] && !prefixes.Contains(outer, c.prefix) {
			outer = c.prefix
		}
		if c.slots > slots && prefixes.Contains(outer, c.prefix) {
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

// PortKey tells the ports of rules apart. The zero key is every port of every protocol.
type PortKey struct {
	protocol corev1.Protocol
	port     intstr.IntOrString // zero for every one
	end      int32
}

func portKeys(ports []networkingv1.NetworkPolicyPort) []PortKey {
	if len(ports) == 0 {
		return []PortKey{{}}
	}
	keys := make([]PortKey, len(ports))
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
