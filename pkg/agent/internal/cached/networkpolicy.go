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

// NetworkPolicy is the metadata of a NetworkPolicy without managed fields and without its PolicyAnnotation. A cluster
// may have thousands, so one with nothing but the agent's metadata takes a third of the space of an ObjectMeta: without
// maps, and with digests as bytes.
type NetworkPolicy struct {
	documentDigest string             // netpol.DocumentDigest of the PolicyAnnotation, as bytes
	full           *metav1.ObjectMeta // if others have set metadata, too; the fields below are then unset

	namespace, name, resourceVersion string
	uid, ownerUID                    types.UID
	ownerName                        string
	generation                       int64
	policyDigest, specDigest         string // as bytes; empty without the annotation
	destinations                     string
	options, usage                   unique.Handle[string] // which many NetworkPolicies share
	hasDestinations                  bool
}

// NetworkPolicyOf returns the reduced form, which takes over the metadata.
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

// pack sets the fields from metadata. It returns false if metadata has anything that the agent has not written.
func (n *NetworkPolicy) pack(metadata *metav1.ObjectMeta) bool {
	if len(metadata.Labels) != 1 || !netpol.HasManagedLabel(metadata) || len(metadata.OwnerReferences) != 1 || len(metadata.Finalizers) > 0 ||
		metadata.DeletionTimestamp != nil {
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
		case netpol.PolicyAnnotation:
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
		case netpol.GenerationAnnotation:
		default:
			return false
		}
	}
	annotations := n.annotations()
	for key, value := range metadata.Annotations {
		if packed, ok := annotations[key]; key != netpol.PolicyAnnotation && (!ok || packed != value) {
			return false // not a digest, or the generation of another spec
		}
	}
	_, hasGeneration := metadata.Annotations[netpol.GenerationAnnotation]
	return hasGeneration
}

// unpack returns the metadata that pack took.
func (n *NetworkPolicy) unpack() *metav1.ObjectMeta {
	if n.full != nil {
		return n.full
	}
	return &metav1.ObjectMeta{
		Namespace: n.namespace, Name: n.name, UID: n.uid, ResourceVersion: n.resourceVersion, Generation: n.generation,
		Labels:      map[string]string{netpol.ManagedByLabel: netpol.ManagedBy},
		Annotations: n.annotations(), OwnerReferences: []metav1.OwnerReference{ownerReference(n.ownerName, n.ownerUID)},
	}
}

// Current returns what the metadata tells of the NetworkPolicy, and ok as netpol.CurrentOfMetadata does.
func (n *NetworkPolicy) Current() (current *netpol.Current, ok bool) {
	return netpol.CurrentOfMetadata(n.unpack(), hex.EncodeToString([]byte(n.documentDigest)))
}

// IsManaged reports whether the NetworkPolicy has the agent's label.
func (n *NetworkPolicy) IsManaged() bool { return n.full == nil || netpol.HasManagedLabel(n.full) }

// IsMade is netpol.IsMade.
func (n *NetworkPolicy) IsMade() bool { return netpol.IsMade(n.unpack()) }

// Usage is what its annotation tells of the spec, as netpol.ParseUsage does.
func (n *NetworkPolicy) Usage() (usage netpol.Usage, ok bool) {
	return netpol.ParseUsage(n.unpack().Annotations[netpol.UsageAnnotation])
}

// GetObjectMeta returns the metadata by which client-go stores the NetworkPolicy.
func (n *NetworkPolicy) GetObjectMeta() metav1.Object {
	if n.full != nil {
		return n.full
	}
	return &metav1.ObjectMeta{Namespace: n.namespace, Name: n.name, UID: n.uid, ResourceVersion: n.resourceVersion}
}

// GetObjectKind makes it a runtime.Object, of which a list of the API consists.
func (n *NetworkPolicy) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// DeepCopyObject returns n itself, which nobody modifies.
func (n *NetworkPolicy) DeepCopyObject() runtime.Object { return n }

func ownerReference(name string, uid types.UID) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: name, UID: uid}
}

// share returns a string that shares the memory of equal ones: a namespace, a name, or the UID of an owner.
func share(text string) string { return unique.Make(text).Value() }

// digestBytes returns a digest in hex as bytes, which take half the space; empty if the text is no hex.
func digestBytes(text string) string {
	digest, err := hex.DecodeString(text)
	if err != nil {
		return ""
	}
	return string(digest)
}

// annotations returns the annotations of packed metadata.
func (n *NetworkPolicy) annotations() map[string]string {
	annotations := make(map[string]string, 7) // and the PolicyAnnotation
	annotations[netpol.GenerationAnnotation] = strconv.FormatInt(n.generation, 10)
	for _, digest := range []struct{ key, bytes string }{{netpol.PolicyDigestAnnotation, n.policyDigest}, {netpol.SpecDigestAnnotation, n.specDigest}} {
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
