package netpol

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Current describes the NetworkPolicy that exists in the cluster under a policy's name, without the spec.
type Current struct {
	// ObjectMeta may lack PolicyAnnotation.
	*metav1.ObjectMeta
	// SpecDigest is the result of SpecDigestOf for the spec.
	SpecDigest string
	// Usage is the result of UsageOf for the spec.
	Usage Usage
	// DocumentDigest is the digest of PolicyAnnotation; empty if the NetworkPolicy lacks PolicyAnnotation.
	DocumentDigest string
	// Document is the value of PolicyAnnotation. It is empty if the NetworkPolicy lacks PolicyAnnotation, or if the caller
	// has not read the value.
	Document string
	// Spec is nil if the caller has not read it.
	Spec *networkingv1.NetworkPolicySpec
}

// CurrentOf returns the Current of a NetworkPolicy that has its spec. Both share the metadata.
func CurrentOf(networkPolicy *networkingv1.NetworkPolicy) *Current {
	document := networkPolicy.Annotations[PolicyAnnotation]
	return &Current{
		ObjectMeta: &networkPolicy.ObjectMeta,
		SpecDigest: SpecDigestOf(networkPolicy.Spec), Usage: UsageOf(networkPolicy.Spec),
		DocumentDigest: DocumentDigest(document), Document: document, Spec: &networkPolicy.Spec,
	}
}

// CurrentOfMetadata returns the Current of a NetworkPolicy from its metadata, without the spec. ok is false if somebody
// may have edited the spec since the agent wrote it. The caller must then read the full object and use CurrentOf.
// documentDigest becomes the DocumentDigest of the result.
func CurrentOfMetadata(metadata *metav1.ObjectMeta, documentDigest string) (current *Current, ok bool) {
	usage, isUsage := ParseUsage(metadata.Annotations[UsageAnnotation])
	digest := metadata.Annotations[SpecDigestAnnotation]
	ok = isUsage && digest != "" && metadata.Annotations[GenerationAnnotation] == strconv.FormatInt(metadata.Generation, 10)
	return &Current{ObjectMeta: metadata, SpecDigest: digest, Usage: usage, DocumentDigest: documentDigest}, ok
}

// DocumentDigest returns the SHA-256 of document, a value of PolicyAnnotation, in hex. It returns "" if document is
// empty.
func DocumentDigest(document string) string {
	if document == "" {
		return ""
	}
	digest := sha256.Sum256([]byte(document))
	return hex.EncodeToString(digest[:])
}

// generationAfter returns the metadata.generation that c has after the agent has written desired. c is nil if no
// NetworkPolicy exists.
func (c *Current) generationAfter(desired *networkingv1.NetworkPolicy) int64 {
	switch {
	case c == nil:
		return 1
	case c.SpecDigest == desired.Annotations[SpecDigestAnnotation]:
		return c.Generation
	}
	return c.Generation + 1
}

// isEdited reports whether somebody edited the NetworkPolicy since the agent wrote it.
func (c *Current) isEdited() bool {
	return !HasManagedLabel(c.ObjectMeta) || c.SpecDigest != c.Annotations[SpecDigestAnnotation]
}

// matches reports whether c has the spec, labels, annotations and owners of desired. c may have further labels,
// annotations and owners.
func (c *Current) matches(desired *networkingv1.NetworkPolicy) bool {
	if c.SpecDigest != desired.Annotations[SpecDigestAnnotation] || c.DocumentDigest != DocumentDigest(desired.Annotations[PolicyAnnotation]) {
		return false
	}
	for _, key := range OptionalAnnotations {
		if key != PolicyAnnotation && c.Annotations[key] != desired.Annotations[key] {
			return false
		}
	}
	for key, value := range desired.Annotations {
		if currentValue, ok := c.Annotations[key]; key != PolicyAnnotation && (!ok || currentValue != value) {
			return false
		}
	}
	for key, value := range desired.Labels {
		if c.Labels[key] != value {
			return false
		}
	}
	for _, owner := range desired.OwnerReferences {
		if !slices.Contains(c.OwnerReferences, owner) { // compares pointers, which are nil in the agent's owners
			return false
		}
	}
	return true
}

// causeOf returns why c does not match desired. c is nil if no NetworkPolicy exists.
func (c *Current) causeOf(desired *networkingv1.NetworkPolicy) Cause {
	differs := func(key string) bool { return c.Annotations[key] != desired.Annotations[key] }
	switch {
	case c == nil:
		return CauseMissing
	case c.isEdited():
		return CauseEdited
	case differs(PolicyDigestAnnotation):
		return CausePolicy
	case c.SpecDigest == desired.Annotations[SpecDigestAnnotation] && !differs(DomainsAnnotation):
		return CauseMetadata
	case c.Annotations[OptionsAnnotation] != "" && differs(OptionsAnnotation):
		return CauseOptions
	case differs(ExpiredAnnotation):
		return CauseExpiry
	case differs(GuardedAnnotation):
		return CauseGuardrails
	case c.SpecDigest == desired.Annotations[SpecDigestAnnotation]:
		return CauseMetadata
	}
	return CauseRanges
}
