package status

import (
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/netpol"
)

// namespace is what all policies of a namespace share.
type namespace struct {
	byName map[string]*networkingv1.NetworkPolicy // nil for none
	egress []OtherPolicy                          // all that allow egress, sorted; nil until the first use
	taken  *netpol.Slots                          // by the agent's NetworkPolicies; nil until the first use
	dns    bool                                   // whether one of them opens DNS
}

// others returns all NetworkPolicies that allow egress, except one of this name; empty, and not nil, for none.
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

// allowsEgress is false for a NetworkPolicy that only denies: NetworkPolicies add up, so it closes nothing.
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

// made returns the specs of the NetworkPolicies that the agent made, except one of this name.
func (n *namespace) made(except string) []networkingv1.NetworkPolicySpec {
	var specs []networkingv1.NetworkPolicySpec
	for name, networkPolicy := range n.byName {
		if name != except && netpol.IsMade(&networkPolicy.ObjectMeta) {
			specs = append(specs, networkPolicy.Spec)
		}
	}
	return specs
}

// slots returns the highest number of slots that a CIDR of the spec, or one inside it, takes.
func (n *namespace) slots(spec networkingv1.NetworkPolicySpec) int {
	if n.taken == nil {
		var specs []networkingv1.NetworkPolicySpec
		for _, networkPolicy := range n.byName {
			if netpol.HasManagedLabel(&networkPolicy.ObjectMeta) {
				specs = append(specs, networkPolicy.Spec)
			}
		}
		slots := netpol.SlotsOf(specs...)
		n.taken, n.dns = &slots, slices.ContainsFunc(specs, netpol.OpensDNS)
	}
	_, most := n.taken.Max(spec)
	if n.dns {
		most += netpol.DNSSlots
	}
	return most
}
