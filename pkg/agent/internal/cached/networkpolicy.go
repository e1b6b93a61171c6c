// Package cached defines the reduced forms in which the agent's caches hold objects.
package cached

import (
	"maps"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/netpol"
)

// NetworkPolicy is the metadata of a NetworkPolicy without managed fields and without its PolicyAnnotation. It embeds
// PartialObjectMetadata because a list of the API holds only objects of the API. netpol.Current
// explains the other fields. They are empty for a NetworkPolicy that has neither the agent's label nor an owner.
type NetworkPolicy struct {
	metav1.PartialObjectMetadata
	SpecDigest     string
	CIDRCount      int
	DocumentDigest string
}

// Current returns the NetworkPolicy as netpol.Assess takes it; nil for nil. It shares the metadata.
func (n *NetworkPolicy) Current() *netpol.Current {
	if n == nil {
		return nil
	}
	return &netpol.Current{ObjectMeta: &n.ObjectMeta, SpecDigest: n.SpecDigest, CIDRCount: n.CIDRCount, DocumentDigest: n.DocumentDigest}
}

// managedLabels are the labels of most NetworkPolicies. They share this map, which nobody may modify.
var managedLabels = map[string]string{netpol.ManagedByLabel: netpol.ManagedBy}

// NetworkPolicyOf returns the reduced form, which shares the metadata of full.
func NetworkPolicyOf(full *networkingv1.NetworkPolicy) *NetworkPolicy {
	n := &NetworkPolicy{}
	n.ObjectMeta = full.ObjectMeta
	n.ManagedFields = nil
	if len(n.Labels) == 1 && netpol.HasManagedLabel(&n.ObjectMeta) {
		n.Labels = managedLabels
	}
	if netpol.HasManagedLabel(&n.ObjectMeta) || len(n.OwnerReferences) > 0 {
		current := netpol.CurrentOf(full)
		n.SpecDigest, n.CIDRCount, n.DocumentDigest = current.SpecDigest, current.CIDRCount, current.DocumentDigest
		if annotation := n.Annotations[netpol.SpecDigestAnnotation]; annotation == n.SpecDigest {
			n.SpecDigest = annotation // shares the annotation's memory
		}
	}
	if n.DocumentDigest != "" {
		n.Annotations = maps.Clone(n.Annotations) // the caller may use the full object further
		delete(n.Annotations, netpol.PolicyAnnotation)
	}
	return n
}
