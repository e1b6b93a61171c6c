package status

import (
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/netpol"
)

// namespace has the data that all policies of a namespace share.
type namespace struct {
	// byName has the NetworkPolicies; it may be nil.
	byName map[string]*networkingv1.NetworkPolicy
	// egress are the NetworkPolicies that allow egress, sorted by name; nil until the first call of others.
	egress []OtherPolicy
	// slotsInUse are the port slots of the agent's NetworkPolicies; nil until the first call of slots.
	slotsInUse *netpol.Slots
	// opensDNS reports whether one of the agent's NetworkPolicies opens DNS. slots sets it with slotsInUse.
	opensDNS bool
}

// others returns the NetworkPolicies that allow egress, except the one with this name. The list is empty, and not nil,
// without such NetworkPolicies.
func (n *namespace) others(name string) []OtherPolicy {
	if n.egress == nil {
		n.egress = []OtherPolicy{}
		for _, networkPolicy := range n.byName {
			if allowsEgress(networkPolicy) {
				n.egress = append(n.egress, other(networkPolicy))
			}
		}
		slices.SortFunc(n.egress, func(a, b OtherPolicy) int { return strings.Compare(a.Name, b.Name) })
	}
	return slices.DeleteFunc(slices.Clone(n.egress), func(o OtherPolicy) bool { return o.Name == name })
}

// allowsEgress reports whether a NetworkPolicy allows any egress. NetworkPolicies add up, so one that only denies does
// not close what another one allows.
func allowsEgress(networkPolicy *networkingv1.NetworkPolicy) bool {
	types := networkPolicy.Spec.PolicyTypes // without types, the rules decide
	return len(networkPolicy.Spec.Egress) > 0 && (len(types) == 0 || slices.Contains(types, networkingv1.PolicyTypeEgress))
}

func other(networkPolicy *networkingv1.NetworkPolicy) OtherPolicy {
	o := OtherPolicy{Name: networkPolicy.Name, Policy: netpol.HasManagedLabel(&networkPolicy.ObjectMeta)}
	if selector := &networkPolicy.Spec.PodSelector; len(selector.MatchLabels)+len(selector.MatchExpressions) > 0 {
		o.Pods = metav1.FormatLabelSelector(selector)
	}
	o.Everything = netpol.AllowsEverything(networkPolicy.Spec)
	return o
}

// made returns the specs of the NetworkPolicies that the agent made, except the one with this name.
func (n *namespace) made(except string) []networkingv1.NetworkPolicySpec {
	var specs []networkingv1.NetworkPolicySpec
	for name, networkPolicy := range n.byName {
		if name != except && netpol.IsMade(&networkPolicy.ObjectMeta) {
			specs = append(specs, networkPolicy.Spec)
		}
	}
	return specs
}

// slots returns the highest number of port slots of a CIDR of the spec, or of a CIDR inside one.
func (n *namespace) slots(spec networkingv1.NetworkPolicySpec) int {
	if n.slotsInUse == nil {
		var specs []networkingv1.NetworkPolicySpec
		for _, networkPolicy := range n.byName {
			if netpol.HasManagedLabel(&networkPolicy.ObjectMeta) {
				specs = append(specs, networkPolicy.Spec)
			}
		}
		slots := netpol.SlotsOf(specs...)
		n.slotsInUse, n.opensDNS = &slots, slices.ContainsFunc(specs, netpol.OpensDNS)
	}
	_, most := n.slotsInUse.Max(spec)
	if n.opensDNS {
		most += netpol.DNSSlots
	}
	return most
}
