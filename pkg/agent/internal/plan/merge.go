package plan

import (
	"maps"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/netpol"
)

// merge returns desired with the labels, annotations, finalizers and owners that others have set on current, which may
// be nil.
func merge(current *netpol.Current, desired *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy {
	if current == nil {
		return desired
	}
	return &networkingv1.NetworkPolicy{TypeMeta: desired.TypeMeta, ObjectMeta: mergeMeta(*current.ObjectMeta, desired.ObjectMeta), Spec: desired.Spec}
}

func hasOwner(object metav1.ObjectMeta, owner metav1.OwnerReference) bool {
	return slices.Contains(object.OwnerReferences, owner) // == compares values: the agent leaves the pointers nil
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
	delete(merged.Annotations, netpol.PolicyAnnotation) // desired may lack it
	maps.Copy(merged.Annotations, desired.Annotations)
	for _, owner := range desired.OwnerReferences {
		if hasOwner(merged, owner) {
			continue
		}
		// An owner of the same kind and NetworkPolicy name is the ConfigMap's predecessor. The garbage collector would
		// delete the NetworkPolicy with it.
		merged.OwnerReferences = slices.DeleteFunc(merged.OwnerReferences, func(other metav1.OwnerReference) bool {
			return other.Kind == owner.Kind && netpol.NetworkPolicyName(other.Name) == desired.Name
		})
		merged.OwnerReferences = append(merged.OwnerReferences, owner)
	}
	return merged
}
