package netpol

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/policy"
)

// The label and the annotations of a NetworkPolicy that the agent writes.
const (
	ManagedByLabel = "app.kubernetes.io/managed-by"
	ManagedBy      = "egress-agent"
	// PolicyDigestAnnotation has the SHA-256, in hex, of the policy.json in force. It is absent if no version was ever
	// valid.
	PolicyDigestAnnotation = "egress-controller/policy-digest"
	// PolicyAnnotation has the policy.json in force, without white space. It is absent if no version was ever valid, and
	// if the text is longer than MaxPolicyAnnotation. While a newer version is invalid, the agent applies the version
	// here.
	PolicyAnnotation = "egress-controller/policy"
	// SpecDigestAnnotation has the result of SpecDigestOf for the spec that the agent wrote. If the spec has another
	// digest, a person edited the spec.
	SpecDigestAnnotation = "egress-controller/spec-digest"
	// DestinationsAnnotation has the number of prefixes of each destination, such as "s3=15 db=1".
	DestinationsAnnotation = "egress-controller/destinations"
	// OptionsAnnotation has the options that shaped the spec, such as "ipv4 dns".
	OptionsAnnotation = "egress-controller/options"
	// GuardedAnnotation names the guardrails that close a part of the policy, such as "baseline/metadata baseline/within".
	// It is absent if they close nothing.
	GuardedAnnotation = "egress-controller/guarded"
	// ExpiredAnnotation has the time of the last destination that has expired, such as "2027-04-01T00:00:00Z". It is absent
	// if none has expired. For the same policy, the agent takes no earlier time as the current one, so a clock that goes
	// back opens nothing.
	ExpiredAnnotation = "egress-controller/expired"
	// PlatformLabel is on a NetworkPolicy that comes from no ConfigMap of its own namespace. Its value is Base or
	// Inherited.
	PlatformLabel = "egress-controller/platform"
	// SourceAnnotation has the NAMESPACE/NAME of the ConfigMap that such a NetworkPolicy comes from.
	SourceAnnotation = "egress-controller/source"
)

// OptionalAnnotations are the annotations that only some of the agent's NetworkPolicies have.
var OptionalAnnotations = []string{PolicyAnnotation, GuardedAnnotation, ExpiredAnnotation, DomainsAnnotation}

// The values of PlatformLabel, and the prefixes of the names of such NetworkPolicies. No policy of a tenant may have such
// a name.
const (
	Base            = "base"
	Inherited       = "inherited"
	BasePrefix      = "egress-platform-"
	InheritedPrefix = "egress-inherited-"
)

// Origin says where a NetworkPolicy comes from. The zero Origin is a tenant's ConfigMap in the same namespace.
type Origin struct {
	// Kind is Base, Inherited or empty.
	Kind string
	// Source is the NAMESPACE/NAME of the ConfigMap; empty if Kind is empty.
	Source string
}

// IsReserved reports whether a name belongs to the NetworkPolicies of the platform.
func IsReserved(name string) bool {
	return strings.HasPrefix(name, BasePrefix) || strings.HasPrefix(name, InheritedPrefix)
}

// reservedNameProblem returns the problem of a tenant's policy with a reserved name, or nil.
func reservedNameProblem(name string, origin Origin) *policy.Problem {
	if !IsReserved(name) || origin.Kind != "" {
		return nil
	}
	return &policy.Problem{Path: "metadata.name", Message: fmt.Sprintf(
		"Reserved name: %s; names that start with %s or %s belong to the platform: rename the ConfigMap",
		policy.Sanitize(name), BasePrefix, InheritedPrefix)}
}

// BaseConfigMap returns the base of a platform document as a policy ConfigMap of a namespace that it governs. The
// ConfigMap exists only in memory, and its Origin has the kind Base. document must have a base.
func BaseConfigMap(namespace string, document PlatformDocument) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: BasePrefix + document.Name,
			Labels: map[string]string{policy.Label: policy.LabelValue},
		},
		Data: map[string]string{policy.Key: document.BaseDocument},
	}
}

// MaxPolicyAnnotation limits PolicyAnnotation, in bytes: an API server accepts 256 KiB of annotations on an object
// (TotalAnnotationSizeLimitB of k8s.io/apimachinery/pkg/api/validation).
const MaxPolicyAnnotation = 64 << 10

// IsMade reports whether the agent made a NetworkPolicy, whose source may no longer exist. A NetworkPolicy from a
// ConfigMap has the label and, as owner, a ConfigMap whose NetworkPolicyName is its name. A NetworkPolicy of the
// platform has PlatformLabel and a reserved name. The label alone is not enough, because a user may have copied it.
func IsMade(networkPolicy *metav1.ObjectMeta) bool {
	return HasManagedLabel(networkPolicy) && (IsPlatforms(networkPolicy) || slices.ContainsFunc(networkPolicy.OwnerReferences, func(owner metav1.OwnerReference) bool {
		return owner.APIVersion == "v1" && owner.Kind == "ConfigMap" && NetworkPolicyName(owner.Name) == networkPolicy.Name
	}))
}

// IsPlatforms reports whether a NetworkPolicy is one of the platform: its name is reserved, and it has PlatformLabel.
func IsPlatforms(networkPolicy *metav1.ObjectMeta) bool {
	kind := networkPolicy.Labels[PlatformLabel]
	return IsReserved(networkPolicy.Name) && (kind == Base || kind == Inherited)
}

// NetworkPolicyFor returns the NetworkPolicy for a ConfigMap. compiled is the result of CompileConfigMap for the same
// ConfigMap. The NetworkPolicy has an ownerReference if the ConfigMap has a UID. If the policy has problems,
// NetworkPolicy denies all egress.
func NetworkPolicyFor(configMap *corev1.ConfigMap, compiled *Compiled) *networkingv1.NetworkPolicy {
	object := newNetworkPolicy(sourceOf(configMap, compiled.origin), compiled.Spec())
	if compiled.Problems == nil {
		object.Annotations[PolicyDigestAnnotation] = PolicyDigestOf(configMap)
		object.Annotations[DestinationsAnnotation] = formatCounts(compiled.Counts)
		if guarded := compiled.guardedBy(); guarded != "" {
			object.Annotations[GuardedAnnotation] = guarded
		}
		if expiredAt := compiled.expiredAt(); !expiredAt.IsZero() {
			object.Annotations[ExpiredAnnotation] = expiredAt.Format(time.RFC3339Nano)
		}
		if domains := formatDomains(compiled.domains); domains != "" {
			object.Annotations[DomainsAnnotation] = domains
		}
	}
	return object
}

// source has the metadata that a NetworkPolicy takes from its source. The source need not be a ConfigMap, and need not
// be in the same namespace.
type source struct {
	namespace, name string
	owner           *metav1.OwnerReference // nil if there is no owner: an owner cannot be in another namespace
	origin          Origin
}

func sourceOf(configMap *corev1.ConfigMap, origin Origin) source {
	s := source{namespace: configMap.Namespace, name: NetworkPolicyName(configMap.Name), origin: origin}
	if configMap.UID != "" && origin.Kind == "" {
		s.owner = &metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: configMap.Name, UID: configMap.UID}
	}
	return s
}

func newNetworkPolicy(s source, spec networkingv1.NetworkPolicySpec) *networkingv1.NetworkPolicy {
	object := &networkingv1.NetworkPolicy{
		TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"},
		ObjectMeta: metav1.ObjectMeta{
			Name:        s.name,
			Namespace:   s.namespace,
			Labels:      map[string]string{ManagedByLabel: ManagedBy},
			Annotations: map[string]string{SpecDigestAnnotation: SpecDigestOf(spec)},
		},
		Spec: spec,
	}
	if s.owner != nil {
		object.OwnerReferences = []metav1.OwnerReference{*s.owner}
	}
	if s.origin.Kind != "" {
		object.Labels[PlatformLabel], object.Annotations[SourceAnnotation] = s.origin.Kind, s.origin.Source
	}
	return object
}

// PolicyDigestOf returns the value of PolicyDigestAnnotation for a NetworkPolicy that the agent makes from the
// ConfigMap.
func PolicyDigestOf(configMap *corev1.ConfigMap) string {
	digest := sha256.Sum256([]byte(configMap.Data[policy.Key]))
	return hex.EncodeToString(digest[:])
}

// HasManagedLabel reports whether a NetworkPolicy has the label that the agent writes.
func HasManagedLabel(networkPolicy *metav1.ObjectMeta) bool {
	return networkPolicy.Labels[ManagedByLabel] == ManagedBy
}

// IsOwned reports whether the agent may write networkPolicy for a ConfigMap with this origin. It checks the managed-by
// label and, if a user removed it, the owner's UID. A NetworkPolicy of the platform belongs to the agent by its reserved
// name. Otherwise a tenant could take it over by removing its labels.
func IsOwned(configMap *corev1.ConfigMap, origin Origin, networkPolicy *metav1.ObjectMeta) bool {
	return origin.Kind != "" || HasManagedLabel(networkPolicy) || slices.ContainsFunc(networkPolicy.OwnerReferences, func(owner metav1.OwnerReference) bool {
		return owner.UID == configMap.UID
	})
}

// maxNameLength is the length of the longest name that AWS VPC CNI handles. AWS VPC CNI derives the names of other
// objects from the name of a NetworkPolicy. If the name of the NetworkPolicy has 58 or more characters, the derived
// names collide (aws/amazon-network-policy-controller-k8s#59).
const maxNameLength = 57

// NetworkPolicyName returns the name of the NetworkPolicy for a ConfigMap with the name configMap. The two names are
// equal if configMap has at most 57 characters. Otherwise the result is the start of configMap and a hash of configMap.
func NetworkPolicyName(configMap string) string {
	const hashLength = 10
	if len(configMap) <= maxNameLength {
		return configMap
	}
	hash := sha256.Sum256([]byte(configMap))
	start := strings.TrimRight(configMap[:maxNameLength-hashLength-1], "-.")
	return start + "-" + hex.EncodeToString(hash[:])[:hashLength]
}

// formatCounts returns the value of DestinationsAnnotation, which ParseCounts reads. It stops well before 256 KiB, the
// limit of all annotations of an object together.
func formatCounts(counts []Count) string {
	const maxBytes = 32 << 10
	var b strings.Builder
	for i, c := range counts {
		if b.Len() > maxBytes {
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

// ParseCounts parses annotation, a value of DestinationsAnnotation. It returns the counts in the same order, or nil if
// annotation is empty. complete is false if annotation ends before the last destination, or if the agent did not write
// annotation.
func ParseCounts(annotation string) (counts []Count, complete bool) {
	for rest := annotation; rest != ""; {
		quoted := ""
		if rest[0] == '"' {
			quoted, _ = strconv.QuotedPrefix(rest)
		}
		name, value, _ := strings.Cut(rest[len(quoted):], "=")
		number, remaining, _ := strings.Cut(value, " ")
		cidrs, err := strconv.ParseUint(number, 10, 31)
		if quoted != "" && name == "" {
			name, _ = strconv.Unquote(quoted)
		} else if strings.ContainsAny(name, ` "`) {
			name = ""
		}
		if err != nil || name == "" {
			return counts, false
		}
		counts, rest = append(counts, Count{name, int(cidrs)}), remaining
	}
	return counts, true
}
