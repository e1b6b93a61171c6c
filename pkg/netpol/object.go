package netpol

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/policy"
)

// What marks a NetworkPolicy as written by the agent.
const (
	ManagedByLabel = "app.kubernetes.io/managed-by"
	ManagedBy      = "egress-agent"
	// PolicyDigestAnnotation is the SHA-256 in hex of the policy.json that is in force; absent if none ever was valid.
	PolicyDigestAnnotation = "egress-controller/policy-digest"
	// PolicyAnnotation is the policy.json that is in force, without white space; absent if none ever was valid, and if it
	// is over MaxPolicyAnnotation. While a newer version is invalid, the agent goes on with it.
	PolicyAnnotation = "egress-controller/policy"
	// SpecDigestAnnotation is SpecDigestOf the spec as the agent wrote it. If the spec has another digest, a person edited it.
	SpecDigestAnnotation = "egress-controller/spec-digest"
	// DestinationsAnnotation counts each destination's prefixes, as s3=15 db=1.
	DestinationsAnnotation = "egress-controller/destinations"
	// OptionsAnnotation are the options that shaped the spec, such as "ipv4 dns".
	OptionsAnnotation = "egress-controller/options"
)

// MaxPolicyAnnotation bounds PolicyAnnotation, in bytes: an API server takes 256 KiB of annotations on an object
// (TotalAnnotationSizeLimitB of k8s.io/apimachinery/pkg/api/validation).
const MaxPolicyAnnotation = 64 << 10

// IsMade reports whether the agent made a NetworkPolicy from a ConfigMap, which may no longer exist: it has the label and
// is owned by a ConfigMap whose NetworkPolicy has that name. Anyone could have copied the label alone.
func IsMade(networkPolicy *metav1.ObjectMeta) bool {
	return HasManagedLabel(networkPolicy) && slices.ContainsFunc(networkPolicy.OwnerReferences, func(owner metav1.OwnerReference) bool {
		return owner.APIVersion == "v1" && owner.Kind == "ConfigMap" && NetworkPolicyName(owner.Name) == networkPolicy.Name
	})
}

// NetworkPolicyFor returns the NetworkPolicy of a ConfigMap and what CompileConfigMap made of it. It has an ownerReference
// if the ConfigMap has a UID. For a policy with problems it is DenyAllFor.
func NetworkPolicyFor(configMap *corev1.ConfigMap, compiled *Compiled) *networkingv1.NetworkPolicy {
	object := newNetworkPolicy(configMap, compiled.Spec())
	if compiled.Problems == nil {
		object.Annotations[PolicyDigestAnnotation] = PolicyDigestOf(configMap)
		object.Annotations[DestinationsAnnotation] = formatCounts(compiled.Counts)
	}
	return object
}

// DenyAllFor returns the NetworkPolicy for a ConfigMap of which no version was ever valid.
func DenyAllFor(configMap *corev1.ConfigMap, options Options) *networkingv1.NetworkPolicy {
	return newNetworkPolicy(configMap, DenyAll(options))
}

func newNetworkPolicy(configMap *corev1.ConfigMap, spec networkingv1.NetworkPolicySpec) *networkingv1.NetworkPolicy {
	object := &networkingv1.NetworkPolicy{
		TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"},
		ObjectMeta: metav1.ObjectMeta{
			Name:        NetworkPolicyName(configMap.Name),
			Namespace:   configMap.Namespace,
			Labels:      map[string]string{ManagedByLabel: ManagedBy},
			Annotations: map[string]string{SpecDigestAnnotation: SpecDigestOf(spec)},
		},
		Spec: spec,
	}
	if configMap.UID != "" {
		object.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: configMap.Name, UID: configMap.UID}}
	}
	return object
}

// PolicyDigestOf returns the PolicyDigestAnnotation of a NetworkPolicy that is made from the ConfigMap as it is.
func PolicyDigestOf(configMap *corev1.ConfigMap) string {
	digest := sha256.Sum256([]byte(configMap.Data[policy.Key]))
	return hex.EncodeToString(digest[:])
}

// HasManagedLabel reports whether a NetworkPolicy has the label that the agent writes.
func HasManagedLabel(networkPolicy *metav1.ObjectMeta) bool {
	return networkPolicy.Labels[ManagedByLabel] == ManagedBy
}

// IsOwned reports whether the agent may write the NetworkPolicy of a ConfigMap's name. It checks the managed-by label and,
// if a user removed it, the owner's UID.
func IsOwned(configMap *corev1.ConfigMap, networkPolicy *metav1.ObjectMeta) bool {
	return HasManagedLabel(networkPolicy) || slices.ContainsFunc(networkPolicy.OwnerReferences, func(owner metav1.OwnerReference) bool {
		return owner.UID == configMap.UID
	})
}

// longestName is the longest name that AWS VPC CNI handles: it derives the names of its own objects from a
// NetworkPolicy's, and from 58 characters on those collide (aws/amazon-network-policy-controller-k8s#59).
const longestName = 57

// NetworkPolicyName returns the NetworkPolicy's name for a ConfigMap's: the same name or, over 57 characters, its start
// and a hash of the whole name.
func NetworkPolicyName(configMap string) string {
	const hashed = 10
	if len(configMap) <= longestName {
		return configMap
	}
	hash := sha256.Sum256([]byte(configMap))
	cut := strings.TrimRight(configMap[:longestName-hashed-1], "-.")
	return cut + "-" + hex.EncodeToString(hash[:])[:hashed]
}

// formatCounts gives the Destinations annotation, which Counted reads. It stops well before the 256 KiB that an object's
// annotations may take together.
func formatCounts(counts []Count) string {
	const longest = 32 << 10
	var b strings.Builder
	for i, c := range counts {
		if b.Len() > longest {
			fmt.Fprintf(&b, " and %d more", len(counts)-i)
			break
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		name := c.Name
		if strings.ContainsAny(name, ` ="`) {
			name = strconv.Quote(name)
		}
		fmt.Fprintf(&b, "%s=%d", name, c.CIDRs)
	}
	return b.String()
}

// ParseCounts reads a DestinationsAnnotation, in its order; nil if it is empty. complete is false if it names only the
// first of many, or if the agent did not write it.
func ParseCounts(annotation string) (counts []Count, complete bool) {
	for rest := annotation; rest != ""; {
		quoted := ""
		if rest[0] == '"' {
			quoted, _ = strconv.QuotedPrefix(rest)
		}
		name, value, _ := strings.Cut(rest[len(quoted):], "=")
		number, after, _ := strings.Cut(value, " ")
		cidrs, err := strconv.ParseUint(number, 10, 31)
		if quoted != "" && name == "" {
			name, _ = strconv.Unquote(quoted)
		} else if strings.ContainsAny(name, ` "`) {
			name = ""
		}
		if err != nil || name == "" {
			return counts, false
		}
		counts, rest = append(counts, Count{name, int(cidrs)}), after
	}
	return counts, true
}
