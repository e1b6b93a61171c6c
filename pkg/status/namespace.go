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
	// allowingEgress are the NetworkPolicies that allow egress, sorted by name; nil until the first call of otherPolicies.
	allowingEgress []OtherPolicy
	// slotsInUse are the port slots of the agent's NetworkPolicies; nil until the first call of maxSlots.
	slotsInUse *netpol.Slots
	// opensDNS reports whether one of the agent's NetworkPolicies opens DNS. maxSlots sets it with slotsInUse.
	opensDNS bool
}

// otherPolicies returns the NetworkPolicies that allow egress, except the NetworkPolicy with the name exceptName. If
// there are none, the list is empty, and not nil.
func (n *namespace) otherPolicies(exceptName string) []OtherPolicy {
	if n.allowingEgress == nil {
		n.allowingEgress = []OtherPolicy{}
		for _, networkPolicy := range n.byName {
			if allowsEgress(networkPolicy) {
				n.allowingEgress = append(n.allowingEgress, newOtherPolicy(networkPolicy))
			}
		}
		slices.SortFunc(n.allowingEgress, func(a, b OtherPolicy) int { return strings.Compare(a.Name, b.Name) })
	}
	return slices.DeleteFunc(slices.Clone(n.allowingEgress), func(o OtherPolicy) bool { return o.Name == exceptName })
}

// allowsEgress reports whether a NetworkPolicy allows any egress. NetworkPolicies add up, so a NetworkPolicy that only
// denies does not close what another NetworkPolicy allows.
func allowsEgress(networkPolicy *networkingv1.NetworkPolicy) bool {
	types := networkPolicy.Spec.PolicyTypes // if the spec has no types, only the rules count
	return len(networkPolicy.Spec.Egress) > 0 && (len(types) == 0 || slices.Contains(types, networkingv1.PolicyTypeEgress))
}

func newOtherPolicy(networkPolicy *networkingv1.NetworkPolicy) OtherPolicy {
	o := OtherPolicy{Name: networkPolicy.Name, IsFromPolicy: netpol.IsMade(&networkPolicy.ObjectMeta), IsFromPlatform: netpol.IsPlatforms(&networkPolicy.ObjectMeta), Spec: &networkPolicy.Spec}
	if selector := &networkPolicy.Spec.PodSelector; len(selector.MatchLabels)+len(selector.MatchExpressions) > 0 {
		o.PodSelector = metav1.FormatLabelSelector(selector)
	}
	o.AllowsEverything = netpol.AllowsEverything(networkPolicy.Spec)
	return o
}

// specsExcept returns the specs of the NetworkPolicies that the agent made, except the NetworkPolicy with the name
// exceptName.
func (n *namespace) specsExcept(exceptName string) []networkingv1.NetworkPolicySpec {
	var specs []networkingv1.NetworkPolicySpec
	for name, networkPolicy := range n.byName {
		if name != exceptName && netpol.IsMade(&networkPolicy.ObjectMeta) {
			specs = append(specs, networkPolicy.Spec)
		}
	}
	return specs
}

// maxSlots returns the highest number of port slots of a CIDR of the spec, or of a CIDR inside such a CIDR.
func (n *namespace) maxSlots(spec networkingv1.NetworkPolicySpec) int {
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
	_, maxSlots := n.slotsInUse.Max(spec)
	if n.opensDNS {
		maxSlots += netpol.DNSSlots
	}
	return maxSlots
}
