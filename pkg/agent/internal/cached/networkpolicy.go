// Package cached defines the reduced forms in which the agent's caches hold objects.
package cached

import (
	"encoding/hex"
	"strconv"
	"unique"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"egress-agent/pkg/netpol"
)

// NetworkPolicy is the metadata of a NetworkPolicy without managed fields and without its PolicyAnnotation.
//
// A cluster may have thousands of NetworkPolicies. If all metadata comes from the agent, it is packed: it has no maps,
// and its digests are bytes. It then takes a third of the space of an ObjectMeta.
type NetworkPolicy struct {
	documentDigest string             // netpol.DocumentDigest of the PolicyAnnotation, as bytes
	full           *metav1.ObjectMeta // nil if the metadata is packed

	// The fields below are the packed metadata. They are unset if full is set.

	namespace, name, resourceVersion string
	uid, ownerUID                    types.UID
	ownerName                        string
	generation                       int64
	policyDigest, specDigest         string // as bytes; empty if the NetworkPolicy lacks the annotation
	destinations                     string
	options, usage                   unique.Handle[string] // many NetworkPolicies share a value; unset without the annotation
	hasDestinations                  bool                  // whether the annotation exists; destinations may be empty
}

// NetworkPolicyOf returns the reduced form. It may keep and modify metadata, so the caller must not use it afterwards.
func NetworkPolicyOf(metadata *metav1.PartialObjectMetadata) *NetworkPolicy {
	document := netpol.DocumentDigest(metadata.Annotations[netpol.PolicyAnnotation])
	n := &NetworkPolicy{documentDigest: digestBytes(document)}
	if !n.pack(&metadata.ObjectMeta) {
		full := metadata.ObjectMeta
		full.ManagedFields = nil
		delete(full.Annotations, netpol.PolicyAnnotation)
		*n = NetworkPolicy{documentDigest: n.documentDigest, full: &full}
	}
	return n
}

// pack sets the packed fields from metadata. It returns false if metadata has anything that the agent does not write.
// The fields are then undefined.
func (n *NetworkPolicy) pack(metadata *metav1.ObjectMeta) bool {
	if len(metadata.Labels) != 1 || !netpol.HasManagedLabel(metadata) || len(metadata.OwnerReferences) != 1 ||
		len(metadata.Finalizers) > 0 || metadata.DeletionTimestamp != nil {
		return false
	}
	owner := metadata.OwnerReferences[0]
	if owner != ownerReference(owner.Name, owner.UID) {
		return false
	}
	n.namespace, n.name, n.resourceVersion = share(metadata.Namespace), share(metadata.Name), metadata.ResourceVersion
	n.uid, n.generation = metadata.UID, metadata.Generation
	n.ownerName, n.ownerUID = share(owner.Name), types.UID(share(string(owner.UID)))
	for key, value := range metadata.Annotations {
		switch key {
		case netpol.PolicyAnnotation: // documentDigest stands for it
		case netpol.PolicyDigestAnnotation:
			n.policyDigest = digestBytes(value)
		case netpol.SpecDigestAnnotation:
			n.specDigest = digestBytes(value)
		case netpol.DestinationsAnnotation:
			n.destinations, n.hasDestinations = value, true
		case netpol.OptionsAnnotation:
			n.options = unique.Make(value)
		case netpol.UsageAnnotation:
			n.usage = unique.Make(value)
		case netpol.GenerationAnnotation: // its value must be generation, as checked below
		default:
			return false
		}
	}
	unpacked := n.annotations()
	for key, value := range metadata.Annotations {
		if unpackedValue, ok := unpacked[key]; key != netpol.PolicyAnnotation && (!ok || unpackedValue != value) {
			return false // the value is not a digest, or is the generation of another spec
		}
	}
	_, hasGeneration := metadata.Annotations[netpol.GenerationAnnotation]
	return hasGeneration
}

// unpack returns the metadata, except for the PolicyAnnotation and what the agent never reads, such as
// creationTimestamp.
func (n *NetworkPolicy) unpack() *metav1.ObjectMeta {
	if n.full != nil {
		return n.full
	}
	return &metav1.ObjectMeta{
		Namespace: n.namespace, Name: n.name, UID: n.uid, ResourceVersion: n.resourceVersion, Generation: n.generation,
		Labels:          map[string]string{netpol.ManagedByLabel: netpol.ManagedBy},
		Annotations:     n.annotations(),
		OwnerReferences: []metav1.OwnerReference{ownerReference(n.ownerName, n.ownerUID)},
	}
}

// Current returns the result of netpol.CurrentOfMetadata. isSpecKnown is false if someone may have edited the spec
// since the agent wrote it.
func (n *NetworkPolicy) Current() (current *netpol.Current, isSpecKnown bool) {
	return netpol.CurrentOfMetadata(n.unpack(), hex.EncodeToString([]byte(n.documentDigest)))
}

// IsManaged reports whether the NetworkPolicy has the agent's label.
func (n *NetworkPolicy) IsManaged() bool { return n.full == nil || netpol.HasManagedLabel(n.full) }

// GetObjectMeta returns the metadata that client-go needs to store the NetworkPolicy: its key, UID and resourceVersion.
func (n *NetworkPolicy) GetObjectMeta() metav1.Object {
	if n.full != nil {
		return n.full
	}
	return &metav1.ObjectMeta{Namespace: n.namespace, Name: n.name, UID: n.uid, ResourceVersion: n.resourceVersion}
}

// GetObjectKind makes NetworkPolicy a runtime.Object, because slimlist puts only such objects into a list.
func (n *NetworkPolicy) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// DeepCopyObject returns n itself, because n is immutable.
func (n *NetworkPolicy) DeepCopyObject() runtime.Object { return n }

// ownerReference returns the owner reference that the agent writes for a ConfigMap.
func ownerReference(name string, uid types.UID) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: name, UID: uid}
}

// share returns a string equal to text. Equal strings from share use the same memory. This saves space, because many
// objects have the same namespace, and a NetworkPolicy repeats the name and UID of its ConfigMap.
func share(text string) string { return unique.Make(text).Value() }

// digestBytes decodes a digest in hex to bytes, which take half the space. It returns an empty string if text is not
// hex.
func digestBytes(text string) string {
	digest, err := hex.DecodeString(text)
	if err != nil {
		return ""
	}
	return string(digest)
}

// annotations returns the annotations of packed metadata.
func (n *NetworkPolicy) annotations() map[string]string {
	annotations := make(map[string]string, 7) // capacity for the agent's annotations, with the PolicyAnnotation
	annotations[netpol.GenerationAnnotation] = strconv.FormatInt(n.generation, 10)
	for _, digest := range []struct{ key, bytes string }{
		{netpol.PolicyDigestAnnotation, n.policyDigest},
		{netpol.SpecDigestAnnotation, n.specDigest},
	} {
		if digest.bytes != "" {
			annotations[digest.key] = hex.EncodeToString([]byte(digest.bytes))
		}
	}
	if n.hasDestinations {
		annotations[netpol.DestinationsAnnotation] = n.destinations
	}
	for _, shared := range []struct {
		key   string
		value unique.Handle[string]
	}{{netpol.OptionsAnnotation, n.options}, {netpol.UsageAnnotation, n.usage}} {
		if shared.value != (unique.Handle[string]{}) {
			annotations[shared.key] = shared.value.Value()
		}
	}
	return annotations
}
