package plan

import (
	"maps"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/netpol"
)

// merge returns desired with the labels, annotations, finalizers and owners that others have set on current. current
// may be nil.
func merge(current *netpol.Current, desired *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy {
	if current == nil {
		return desired
	}
	return &networkingv1.NetworkPolicy{
		TypeMeta:   desired.TypeMeta,
		ObjectMeta: mergeMeta(*current.ObjectMeta, desired.ObjectMeta),
		Spec:       desired.Spec,
	}
}

// hasOwner reports whether an object has this very owner reference.
func hasOwner(object metav1.ObjectMeta, owner metav1.OwnerReference) bool {
	return slices.Contains(object.OwnerReferences, owner) // == is enough, because the agent leaves the pointer fields nil
}

// mergeMeta returns current with the desired labels, annotations and owner. The labels, annotations, finalizers and
// owners that others have set stay.
func mergeMeta(current, desired metav1.ObjectMeta) metav1.ObjectMeta {
	merged := *current.DeepCopy()
	if merged.Labels == nil {
		merged.Labels = make(map[string]string)
	}
	maps.Copy(merged.Labels, desired.Labels)
	if merged.Annotations == nil {
		merged.Annotations = make(map[string]string)
	}
	for _, key := range netpol.OptionalAnnotations {
		delete(merged.Annotations, key) // desired may lack the annotation
	}
	maps.Copy(merged.Annotations, desired.Annotations)
	for _, owner := range desired.OwnerReferences {
		if hasOwner(merged, owner) {
			continue
		}
		// An owner of the same kind whose NetworkPolicy has the same name is a predecessor of the ConfigMap. The
		// garbage collector would delete the NetworkPolicy together with the predecessor.
		merged.OwnerReferences = slices.DeleteFunc(merged.OwnerReferences, func(existing metav1.OwnerReference) bool {
			return existing.Kind == owner.Kind && netpol.NetworkPolicyName(existing.Name) == desired.Name
		})
		merged.OwnerReferences = append(merged.OwnerReferences, owner)
	}
	return merged
}
