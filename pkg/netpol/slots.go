package netpol

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/internal/prefixes"
	"egress-agent/pkg/policy"
)

// Usage has the parts of a spec that count against a pod's limits in the dataplane.
type Usage struct {
	CIDRs int
	// Ports are the distinct ports and port ranges of the rules that have CIDRs or pods, in no order. The rule for DNS
	// counts only if it has CIDRs.
	Ports []PortKey
	// Many reports that Ports is incomplete, because a UsageAnnotation cannot hold so many ports.
	Many bool
}

// UsageOf returns the usage of a spec.
func UsageOf(spec networkingv1.NetworkPolicySpec) Usage {
	usage := Usage{CIDRs: CIDRCount(spec)}
	for _, rule := range spec.Egress {
		if len(rule.To) == 0 || isDNSRule(rule) && CIDRCount(networkingv1.NetworkPolicySpec{Egress: []networkingv1.NetworkPolicyEgressRule{rule}}) == 0 {
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

// MayExceed reports whether specs that apply to the same pods may exceed a pod's limits. cidrCount is the number of
// CIDRs in the specs. portCount is the number of distinct ports and port ranges in the specs. If MayExceed returns
// false, SharedLimitProblems would return nil.
func (o Options) MayExceed(cidrCount, portCount int) bool {
	return cidrCount > maxPeers || o.exceedsSlots(portCount)
}

// SharedLimitProblems returns a problem if spec and otherSpecs together exceed a limit of a pod. It skips another spec
// that selects no pod of spec. Each spec alone is within the limits. The limits are the number of CIDRs, and the port slots of
// each CIDR that is in spec or inside a CIDR of spec. SharedLimitProblems returns nil if the specs are within the
// limits.
func SharedLimitProblems(spec networkingv1.NetworkPolicySpec, otherSpecs []networkingv1.NetworkPolicySpec, options Options) policy.Problems {
	specs := []networkingv1.NetworkPolicySpec{spec}
	for _, other := range otherSpecs {
		if maySelectSamePod(spec.PodSelector, other.PodSelector) {
			specs = append(specs, other)
		}
	}
	slots := SlotsOf(specs...)
	if count := len(slots.cidrs); count > maxPeers {
		return tooManySharedCIDRs(count)
	}
	prefix, maxSlots := slots.Max(spec)
	if !options.exceedsSlots(maxSlots) {
		return nil
	}
	subject := "a pod"
	if prefix.IsValid() {
		subject = prefix.String()
	}
	return policy.Problems{slotProblem(subject, maxSlots, "this or the namespace's other policies, which apply to the same pods", options)}
}

// SharedCIDRProblems returns a problem if cidrCount, the number of CIDRs in several specs, is so high that the caller
// need not read the specs. If it returns nil, the caller must read them and call SharedLimitProblems.
func SharedCIDRProblems(cidrCount int) policy.Problems {
	if cidrCount <= 2*maxPeers {
		return nil
	}
	return tooManySharedCIDRs(cidrCount)
}

func tooManySharedCIDRs(cidrCount int) policy.Problems {
	return policy.Problems{{Path: "allowedDestinations", Message: fmt.Sprintf(
		"Too many CIDRs: %d together with the namespace's other policies, which apply to the same pods; at most %d fit in the dataplane, which holds old and new CIDRs during an update", cidrCount, maxPeers)}}
}

// Slots has the number of port slots of each CIDR of several specs that apply to the same pods.
type Slots struct {
	cidrs []prefixSlots // sorted
	pods  int           // the slots of the peers that are pods; a pod may have an address in any CIDR
}

// SlotsOf counts the port slots of specs together. A CIDR may be in several rules and specs. It takes one slot for each
// distinct port or port range of its rules, and of the rules of CIDRs that contain it.
func SlotsOf(specs ...networkingv1.NetworkPolicySpec) Slots {
	portsOf := make(map[netip.Prefix]map[PortKey]bool) // by CIDR; the zero Prefix has the ports of pods
	for _, spec := range specs {
		for _, rule := range spec.Egress {
			ports, isDNS := portKeys(rule.Ports), isDNSRule(rule)
			for _, peer := range rule.To {
				prefix := peerPrefix(peer)
				if isDNS && peer.IPBlock == nil {
					continue
				}
				if portsOf[prefix] == nil {
					portsOf[prefix] = make(map[PortKey]bool, len(ports))
				}
				for _, port := range ports {
					portsOf[prefix][port] = true
				}
			}
		}
	}
	ofPods := len(portsOf[netip.Prefix{}])
	delete(portsOf, netip.Prefix{})
	sorted := slices.SortedFunc(maps.Keys(portsOf), prefixes.Compare)
	cidrs := make([]prefixSlots, 0, len(sorted))
	for prefix, slots := range prefixes.CountSlots(len(sorted), func(i int) (netip.Prefix, []PortKey) {
		return sorted[i], slices.Collect(maps.Keys(portsOf[sorted[i]]))
	}, func(PortKey) int { return 1 }) {
		cidrs = append(cidrs, prefixSlots{prefix, slots})
	}
	return Slots{cidrs, ofPods}
}

// Max returns the CIDR with the most slots among the CIDRs of spec and the CIDRs inside them. spec is one of the specs
// that SlotsOf counted. The slots of DNS are not included. If several CIDRs have the most slots, Max returns the first.
// If spec has no CIDR, Max returns the slots of the pods and the zero Prefix.
func (s Slots) Max(spec networkingv1.NetworkPolicySpec) (prefix netip.Prefix, slots int) {
	isInSpec := make(map[netip.Prefix]bool)
	for _, rule := range spec.Egress {
		for _, peer := range rule.To {
			isInSpec[peerPrefix(peer)] = true
		}
	}
	var outer netip.Prefix // the last CIDR of spec so far that is not inside another CIDR of spec; s.cidrs has outer CIDRs first
	for _, c := range s.cidrs {
		if isInSpec[c.prefix] && !prefixes.Contains(outer, c.prefix) {
			outer = c.prefix
		}
		if c.slots > slots && prefixes.Contains(outer, c.prefix) {
			prefix, slots = c.prefix, c.slots
		}
	}
	return prefix, slots + s.pods
}

// OpensDNS reports whether a spec that the agent wrote has the rule for the cluster's DNS.
func OpensDNS(spec networkingv1.NetworkPolicySpec) bool {
	return slices.ContainsFunc(spec.Egress, isDNSRule)
}

// AllowsEverything reports whether a rule of the spec has neither peers nor ports.
func AllowsEverything(spec networkingv1.NetworkPolicySpec) bool {
	return slices.ContainsFunc(spec.Egress, func(rule networkingv1.NetworkPolicyEgressRule) bool {
		return len(rule.To) == 0 && len(rule.Ports) == 0
	})
}

// PortNames returns a rule's ports as "TCP 443" or "UDP 8000-8100". It returns nil if ports is empty, which means every
// port.
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
