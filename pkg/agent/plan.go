package agent

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
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

// decision is what a look at a ConfigMap and its NetworkPolicy calls for.
type decision struct {
	// desired is the NetworkPolicy to create, or to update where there is a current one. Nil leaves
	// the cluster as it is.
	desired *networkingv1.NetworkPolicy
	// needsSpec says that it takes the whole of the current NetworkPolicy to tell, by planChange, what is to be written
	// first, or what other ranges changed.
	needsSpec bool
	// step is what write does of the change. A Narrow one is to wait until the write before it has settled.
	step netpol.Step
	// opens says that write may open more than what is in force, and so must fit beside the other policies.
	opens bool
	// reason is that of the Event; empty for none. Applied, Restored and RangesChanged tell of a write.
	reason  string
	message string
	// pairs are what the policy names; nil where that was not looked at.
	pairs []serviceRegion
}

// plan decides what a ConfigMap calls for. excess is what keeps it from being judged at all. current is the NetworkPolicy
// of that name, nil for none. known says that there has been one, made from this ConfigMap.
func plan(configMap *corev1.ConfigMap, excess policy.Problems, current *networkPolicyMeta, known bool, table *awsranges.Table, options Options) decision {
	if current != nil && !netpol.IsOwned(configMap, &current.ObjectMeta) {
		return decision{reason: ReasonNameConflict, message: fmt.Sprintf(
			"NetworkPolicy %s exists and is not %s's: it stays as it is, and this policy is not applied; rename one of the two", current.Name, Name)}
	}
	if current != nil && current.DeletionTimestamp != nil {
		return decision{} // it comes back once it is gone
	}
	if excess != nil {
		return planInvalid(configMap, current, excess, options.Compile)
	}
	p, problems := netpol.Read(configMap, table)
	var gone []string
	if problems != nil && wasAccepted(configMap, current) && table.HasAWS() {
		if accepted, names := netpol.ReadAccepted(configMap, table); accepted != nil {
			p, gone, problems = accepted, names, nil
		}
	}
	if problems != nil {
		return planInvalid(configMap, current, problems, options.Compile)
	}
	d := planValid(configMap, p, current, known, table, options)
	if gone != nil && d.reason != ReasonInvalid {
		d.reason, d.message = ReasonServiceGone, fmt.Sprintf(
			"The ranges no longer have %q: what they opened is closed; remove them from the policy, or name what took their place", gone)
	}
	d.pairs = serviceRegionsOf(p)
	return d
}

// wasAccepted reports whether what is in force was made from the policy as it is now.
func wasAccepted(configMap *corev1.ConfigMap, current *networkPolicyMeta) bool {
	return current != nil && current.Annotations[netpol.PolicyDigestAnnotation] == digestOf(configMap)
}

func planValid(configMap *corev1.ConfigMap, p *policy.Policy, current *networkPolicyMeta, known bool, table *awsranges.Table, options Options) decision {
	result, problems := netpol.Compile(p, table, options.Compile)
	if problems != nil {
		return planInvalid(configMap, current, problems, options.Compile)
	}
	if len(result.Unresolved) > 0 {
		return planUnresolved(configMap, current, result)
	}
	desired := netpol.NetworkPolicyFor(configMap, result)
	desired.Annotations[netpol.PolicyDigestAnnotation] = digestOf(configMap)
	d := decision{desired: updateIfChanged(current, desired), step: netpol.Replace, message: summary(desired)}
	switch {
	case d.desired == nil:
		return decision{}
	case current == nil && known, current != nil && editedByOthers(current):
		d.reason = ReasonRestored
	case current == nil:
		d.reason, d.opens = ReasonApplied, true
	default:
		d.reason, d.opens = ReasonApplied, current.digest != desired.Annotations[netpol.SpecDigestAnnotation]
		d.needsSpec = d.opens && (samePolicy(&current.ObjectMeta, desired) ||
			netpol.IsLarge(max(current.cidrs, netpol.CIDRCount(desired.Spec)), options.ChunkPeers, options.Compile))
	}
	return d
}

// planTransition makes a large change in two writes. Until the second, the NetworkPolicy says that it was
// made from the policy before.
//
// What other ranges changed is told with the first write, which sees all of it: to the second, which
// follows from what is then in the cluster, it is no news.
func planTransition(d decision, current *networkingv1.NetworkPolicy, options Options) decision {
	if d.reason == ReasonApplied && samePolicy(&current.ObjectMeta, d.desired) {
		if added, removed := countCIDRs(current.Spec, d.desired.Spec); added+removed > 0 {
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
		if d.reason == ReasonApplied {
			d.reason = ""
		}
	case step == netpol.Narrow && d.reason == ReasonRangesChanged:
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

// samePolicy says whether both were made from the same policy.
func samePolicy(current *metav1.ObjectMeta, desired *networkingv1.NetworkPolicy) bool {
	return current.Annotations[netpol.PolicyDigestAnnotation] == desired.Annotations[netpol.PolicyDigestAnnotation]
}

// planExempt writes nothing, and takes back what the agent made here before the namespace was exempt.
func planExempt(configMap *corev1.ConfigMap) decision {
	return decision{reason: ReasonNamespaceExempt, message: fmt.Sprintf(
		"The agent writes nothing in %s, which the cluster or the agent itself rests on; put the policy into the namespace of the pods", configMap.Namespace)}
}

// planInvalid keeps the last good policy. A NetworkPolicy without a digest of a policy never was one:
// it is the deny-all that an invalid policy gets from the start.
func planInvalid(configMap *corev1.ConfigMap, current *networkPolicyMeta, problems policy.Problems, options netpol.Options) decision {
	if current != nil && current.Annotations[netpol.PolicyDigestAnnotation] != "" {
		return decision{reason: ReasonInvalid, message: problems.Error() + "; the last valid policy stays in force"}
	}
	d := decision{reason: ReasonInvalid, message: problems.Error() + "; until it is corrected, all egress" + exceptDNS(options) + " is denied"}
	d.desired, d.step = updateIfChanged(current, netpol.DenyAllFor(configMap, options)), netpol.Replace
	return d
}

// planUnresolved writes what needs no ranges where nothing is in force, and else leaves it alone.
func planUnresolved(configMap *corev1.ConfigMap, current *networkPolicyMeta, result *netpol.Result) decision {
	partial := netpol.NetworkPolicyFor(configMap, result)
	partial.Annotations[netpol.PolicyDigestAnnotation] = digestOf(configMap)
	d := decision{reason: ReasonRangesUnavailable, message: fmt.Sprintf("The AWS ranges of these destinations are not known yet: %q; ", result.Unresolved)}
	switch {
	case current == nil:
		d.desired, d.step = partial, netpol.Replace
		fallthrough
	case updateIfChanged(current, partial) == nil:
		d.message += "what needs none of them is applied"
	default:
		d.message += "the NetworkPolicy stays as it is until they are"
	}
	return d
}

// editedByOthers says whether current is not as the agent left it, rather than out of date.
func editedByOthers(current *networkPolicyMeta) bool {
	return !netpol.HasManagedLabel(&current.ObjectMeta) || current.digest != current.Annotations[netpol.SpecDigestAnnotation]
}

// updateIfChanged returns what is to be written to have current, which may be nil, as desired; nil for nothing.
func updateIfChanged(current *networkPolicyMeta, desired *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy {
	if current == nil {
		return desired
	}
	if matches(current, desired) {
		return nil
	}
	return &networkingv1.NetworkPolicy{TypeMeta: desired.TypeMeta, ObjectMeta: mergeMeta(current.ObjectMeta, desired.ObjectMeta), Spec: desired.Spec}
}

// matches says whether current has everything that the agent answers for.
func matches(current *networkPolicyMeta, desired *networkingv1.NetworkPolicy) bool {
	return current.digest == desired.Annotations[netpol.SpecDigestAnnotation] &&
		contains(current.Labels, desired.Labels) && contains(current.Annotations, desired.Annotations) &&
		hasOwner(current.ObjectMeta, desired.OwnerReferences[0])
}

func contains(all, some map[string]string) bool {
	for key, value := range some {
		if there, ok := all[key]; !ok || there != value {
			return false
		}
	}
	return true
}

func hasOwner(object metav1.ObjectMeta, by metav1.OwnerReference) bool {
	return slices.Contains(object.OwnerReferences, by) // whose pointers are nil
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

func exceptDNS(options netpol.Options) string {
	if options.AllowDNS {
		return " but DNS"
	}
	return ""
}
