package netpol

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/internal/prefixes"
	"egress-agent/pkg/policy"
)

// Usage is how much of a pod's limits in the dataplane a spec uses.
type Usage struct {
	CIDRs int
	// Ports are the distinct ports and port ranges of the rules that have CIDRs, in no order.
	Ports []PortKey
	// Many reports that Ports lacks some: there are too many for UsageAnnotation.
	Many bool
}

// UsageOf returns the usage of a spec.
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

// MayExceed reports whether specs that apply to the same pods may exceed a pod's limits. cidrs is the sum of their
// CIDRs, and ports the number of their distinct ports and port ranges. If it is false, Beside finds nothing and need
// not run.
func (o Options) MayExceed(cidrs, ports int) bool { return cidrs > maxPeers || o.exceedsSlots(ports) }

// Beside returns the limits of a pod that own exceeds together with other specs that apply to the same pods. Each spec
// by itself is within the limits. The limits are the number of CIDRs, and the port slots of a CIDR that is in own or
// inside a CIDR of own. It returns nil if the specs fit.
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

// TooManyBeside returns the problem of specs with so many CIDRs in sum that Beside need not read them. It returns nil
// for fewer CIDRs.
func TooManyBeside(cidrs int) policy.Problems {
	if cidrs <= 2*maxPeers {
		return nil
	}
	return tooManyBeside(cidrs)
}

func tooManyBeside(count int) policy.Problems {
	return policy.Problems{{Path: "allowedDestinations", Message: fmt.Sprintf(
		"Too many CIDRs: %d together with the namespace's other policies, which apply to the same pods; at most %d fit in the dataplane, which holds old and new CIDRs during an update", count, maxPeers)}}
}

// Slots are the port slots of each CIDR of some specs that apply to the same pods.
type Slots struct {
	cidrs []prefixSlots // sorted
}

// SlotsOf counts the port slots of specs together. A CIDR may be in several rules and specs. It takes one slot for each
// distinct port or port range of its rules, and of the rules of CIDRs that contain it.
func SlotsOf(specs ...networkingv1.NetworkPolicySpec) Slots {
	open := make(map[netip.Prefix]map[PortKey]bool) // the ports of each CIDR; those of other peers under the zero Prefix
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
	delete(open, netip.Prefix{})
	sorted := slices.SortedFunc(maps.Keys(open), prefixes.Compare)
	cidrs := make([]prefixSlots, 0, len(sorted))
	for prefix, slots := range prefixes.CountSlots(len(sorted), func(i int) (netip.Prefix, []PortKey) {
		return sorted[i], slices.Collect(maps.Keys(open[sorted[i]]))
	}, func(PortKey) int { return 1 }) {
		cidrs = append(cidrs, prefixSlots{prefix, slots})
	}
	return Slots{cidrs}
}

// Max returns the CIDR with the most slots among the CIDRs of spec and the CIDRs inside them. spec is one of the specs
// that SlotsOf counted. The slots of DNS are not included. On a tie Max returns the first prefix; without any, 0 slots.
func (s Slots) Max(spec networkingv1.NetworkPolicySpec) (prefix netip.Prefix, slots int) {
	own := make(map[netip.Prefix]bool)
	for _, rule := range spec.Egress {
		for _, peer := range rule.To {
			own[peerPrefix(peer)] = true
		}
	}
	var outer netip.Prefix // the last outermost CIDR of spec: a containing CIDR comes before the CIDRs inside it
	for _, c := range s.cidrs {
		if own[c.prefix] && !prefixes.Contains(outer, c.prefix) {
			outer = c.prefix
		}
		if c.slots > slots && prefixes.Contains(outer, c.prefix) {
			prefix, slots = c.prefix, c.slots
		}
	}
	return prefix, slots
}

// OpensDNS reports whether a spec that the agent wrote has the rule for the cluster's DNS. It is the only rule with a
// pod selector.
func OpensDNS(spec networkingv1.NetworkPolicySpec) bool {
	return slices.ContainsFunc(spec.Egress, func(rule networkingv1.NetworkPolicyEgressRule) bool {
		return slices.ContainsFunc(rule.To, func(peer networkingv1.NetworkPolicyPeer) bool { return peer.PodSelector != nil })
	})
}

// AllowsEverything reports whether a rule of the spec has neither peers nor ports.
func AllowsEverything(spec networkingv1.NetworkPolicySpec) bool {
	return slices.ContainsFunc(spec.Egress, func(rule networkingv1.NetworkPolicyEgressRule) bool {
		return len(rule.To) == 0 && len(rule.Ports) == 0
	})
}

// PortNames returns a rule's ports as "TCP 443" or "UDP 8000-8100", or nil for every port.
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
