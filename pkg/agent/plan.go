package agent

import (
	"fmt"
	"maps"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"

	"egress-agent/pkg/netpol"
)

// The reasons of Events on a policy ConfigMap.
const (
	ReasonApplied           = "Applied"
	ReasonRestored          = "Restored"
	ReasonInvalid           = "Invalid"
	ReasonNameConflict      = "NameConflict"
	ReasonRangesChanged     = "RangesChanged"
	ReasonRangesUnavailable = "RangesUnavailable"
	ReasonServiceGone       = "ServiceGone"
	ReasonNamespaceExempt   = "NamespaceExempt"
)

// ReasonNotMade is that of the Event on a NetworkPolicy that has the agent's label, and that no ConfigMap made.
const ReasonNotMade = "NotMade"

// decision is what a sync does about a policy.
type decision struct {
	// desired is the NetworkPolicy to create, or to update if there is a current one. nil leaves the cluster as it is.
	desired *networkingv1.NetworkPolicy
	// needsSpec reports that planTransition must complete the decision with the spec of the current NetworkPolicy.
	needsSpec bool
	// step is the part of a change that desired makes. Narrow must wait until the dataplane has taken up Widen.
	step netpol.Step
	// reason and message are the Event of the write. An empty reason is none.
	reason, message string
	// warning and problem are the Event about the policy itself, reported once. An empty warning is none.
	warning, problem string
}

// plan turns an assessment into a write and Events. current is nil if there is no NetworkPolicy. wasThere reports that
// this process has seen one that was made from the ConfigMap.
func plan(a *netpol.Assessment, current *networkPolicyMeta, wasThere bool, options Options) decision {
	d := decision{step: netpol.Replace}
	switch {
	case a.State != netpol.Applied && a.State != netpol.Pending:
		d.warning, d.problem = string(a.State), a.Message()
	case len(a.Gone) > 0:
		d.warning, d.problem = ReasonServiceGone, a.Message()
	}
	if len(a.Desired) == 0 {
		return d
	}
	desired := a.Desired[0]
	d.desired, d.message = merged(current, desired), summary(desired)
	isEdited := a.Cause == netpol.CauseEdited || a.Cause == netpol.CauseMissing && wasThere
	switch {
	case isEdited && (d.warning == "" || a.LastPolicy != nil):
		d.reason = ReasonRestored
	case d.warning == "":
		d.reason = ReasonApplied
	}
	isOtherSpec := a.Opens && a.Cause != netpol.CauseMissing
	d.needsSpec = isOtherSpec && (a.Cause == netpol.CauseRanges || a.Cause == netpol.CauseOptions ||
		netpol.IsLarge(max(current.CIDRCount, netpol.CIDRCount(desired.Spec)), options.ChunkPeers, options.Compile))
	return d
}

// planTransition completes a decision that needs the spec of the current NetworkPolicy: it makes a large change in two
// writes. Until the second, the NetworkPolicy says that it was made from the policy before.
//
// The first write sees the whole change of the ranges or options, so its Event reports it. The second write only
// completes the change and reports nothing.
func planTransition(d decision, cause netpol.Cause, current *networkingv1.NetworkPolicy, options Options) decision {
	isSamePolicy := cause == netpol.CauseRanges || cause == netpol.CauseOptions
	if isSamePolicy && d.warning != ReasonServiceGone {
		added, removed := countCIDRs(current.Spec, d.desired.Spec)
		switch {
		case cause == netpol.CauseOptions:
			d.reason, d.message = ReasonApplied, "The options of the agent changed; "+d.message
		case added+removed > 0:
			d.reason = ReasonRangesChanged
			d.message = fmt.Sprintf("The ranges changed, CIDRs added: %d, removed: %d; %s", added, removed, d.message)
		}
	}
	step, spec := netpol.Transition(current.Spec, d.desired.Spec, options.ChunkPeers, options.Compile)
	d.step = step
	switch {
	case step == netpol.Widen:
		wide := current.DeepCopy()
		wide.Spec = spec
		wide.Annotations[netpol.SpecDigestAnnotation] = netpol.SpecDigestOf(spec)
		d.desired = wide
		if !isSamePolicy {
			d.reason = ""
		}
	case step == netpol.Narrow && isSamePolicy:
		d.reason = ""
	}
	return d
}

// countCIDRs tells how many CIDRs desired has that current has not, and the other way round.
func countCIDRs(current, desired networkingv1.NetworkPolicySpec) (added, removed int) {
	before, after := cidrsOf(current), cidrsOf(desired)
	return after.Difference(before).Len(), before.Difference(after).Len()
}

func cidrsOf(spec networkingv1.NetworkPolicySpec) sets.Set[string] {
	cidrs := sets.New[string]()
	for _, rule := range spec.Egress {
		for _, peer := range rule.To {
			if peer.IPBlock != nil {
				cidrs.Insert(peer.IPBlock.CIDR)
			}
		}
	}
	return cidrs
}

// merged returns desired with the labels, annotations, finalizers and owners that others gave current, which may be nil.
func merged(current *networkPolicyMeta, desired *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy {
	if current == nil {
		return desired
	}
	return &networkingv1.NetworkPolicy{TypeMeta: desired.TypeMeta, ObjectMeta: mergeMeta(current.ObjectMeta, desired.ObjectMeta), Spec: desired.Spec}
}

func hasOwner(object metav1.ObjectMeta, by metav1.OwnerReference) bool {
	return slices.Contains(object.OwnerReferences, by) // the pointers in it are nil
}

// mergeMeta returns current with everything that the agent answers for as desired, and the labels,
// annotations, finalizers and owners of others as they are.
func mergeMeta(current, desired metav1.ObjectMeta) metav1.ObjectMeta {
	overlaid := *current.DeepCopy()
	if overlaid.Labels == nil {
		overlaid.Labels = make(map[string]string)
	}
	maps.Copy(overlaid.Labels, desired.Labels)
	if overlaid.Annotations == nil {
		overlaid.Annotations = make(map[string]string)
	}
	delete(overlaid.Annotations, netpol.PolicyAnnotation) // desired may lack it
	maps.Copy(overlaid.Annotations, desired.Annotations)
	if !hasOwner(overlaid, desired.OwnerReferences[0]) {
		// Such an owner is the ConfigMap's predecessor; with it gone, the NetworkPolicy would go too.
		overlaid.OwnerReferences = slices.DeleteFunc(overlaid.OwnerReferences, func(owner metav1.OwnerReference) bool {
			return owner.Kind == desired.OwnerReferences[0].Kind && netpol.NetworkPolicyName(owner.Name) == desired.Name
		})
		overlaid.OwnerReferences = append(overlaid.OwnerReferences, desired.OwnerReferences...)
	}
	return overlaid
}

func summary(desired *networkingv1.NetworkPolicy) string {
	destinations := desired.Annotations[netpol.DestinationsAnnotation]
	if destinations == "" {
		return fmt.Sprintf("NetworkPolicy %s is in force", desired.Name)
	}
	return fmt.Sprintf("NetworkPolicy %s is in force, with these numbers of CIDRs: %s", desired.Name, destinations)
}
