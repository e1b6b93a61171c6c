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

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/policy"
)

// What marks a NetworkPolicy as written from a policy.
const (
	ManagedByLabel = "app.kubernetes.io/managed-by"
	ManagedBy      = "egress-agent"
	// PolicyDigestAnnotation is the SHA-256 of policy.json, in hex; absent where the policy was not valid.
	PolicyDigestAnnotation = "egress-controller/policy-digest"
	// SpecDigestAnnotation is Digest of the spec as it was written, by which an edit by others is told.
	SpecDigestAnnotation = "egress-controller/spec-digest"
	// DestinationsAnnotation counts each destination's prefixes, as s3=15 db=1.
	DestinationsAnnotation = "egress-controller/destinations"
)

// Evaluate walks the whole line for a ConfigMap: Parse, Validate, Compile. What it accepts,
// admission accepts and the agent writes. Exactly one of Result and Problems is nil; the table may
// be nil. The ConfigMap's label is not looked at.
func Evaluate(configMap *corev1.ConfigMap, table *awsranges.Table, options Options) (*Result, policy.Problems) {
	p, problems := Read(configMap, table)
	if problems != nil {
		return nil, problems
	}
	return compile(p, table, options, warningsOf(configMap, p))
}

// Judge is Evaluate for those who write nothing: it gives the same problems or else the same warnings, and
// stops before the spec, which nothing can keep from being made.
func Judge(configMap *corev1.ConfigMap, table *awsranges.Table, options Options) (warnings, problems policy.Problems) {
	p, problems := Read(configMap, table)
	if problems != nil {
		return nil, problems
	}
	found := warningsOf(configMap, p)
	if _, _, _, problems := check(p, table, options, found); problems != nil {
		return nil, problems
	}
	return found.List(), nil
}

// warningsOf gathers what is to be said of a ConfigMap and its valid policy without ranges.
func warningsOf(configMap *corev1.ConfigMap, p *policy.Policy) *policy.Warnings {
	var found policy.Warnings
	if IsExempt(configMap.Namespace, DefaultNamespace) {
		found.AddProblem(policy.NotEnforced, policy.Problem{Path: "metadata.namespace", Message: fmt.Sprintf(
			"the agent writes nothing in %s, which the cluster itself rests on: put the policy into the namespace of the pods", configMap.Namespace)})
	}
	policy.Warn(p, &found)
	for _, problem := range policy.ObjectWarnings(configMap.Name, configMap.Labels, configMap.Annotations) {
		found.AddProblem(policy.Fragile, problem)
	}
	return &found
}

// Read walks the line as far as the policy: Parse and Validate. Exactly one of Policy and Problems is
// nil; the table, which may be nil, knows more names than the catalogue.
func Read(configMap *corev1.ConfigMap, table *awsranges.Table) (*policy.Policy, policy.Problems) {
	data, ok := configMap.Data[policy.Key]
	if !ok {
		return nil, policy.Problems{missing(configMap)}
	}
	document, problems := policy.Parse([]byte(data))
	if problems != nil {
		return nil, problems
	}
	return policy.Validate(document, NameCheck(table))
}

// ReadAccepted is Read for a policy that was accepted before, by a table with more names: it accepts any name of a service
// or a region, and returns those that the table lacks, each once in the policy's order.
func ReadAccepted(configMap *corev1.ConfigMap, table *awsranges.Table) (p *policy.Policy, gone []string) {
	document, problems := policy.Parse([]byte(configMap.Data[policy.Key]))
	if problems != nil {
		return nil, nil
	}
	if p, problems = policy.Validate(document, nil); problems != nil {
		return nil, nil
	}
	add := func(name string, known bool) {
		if !known && !slices.Contains(gone, name) {
			gone = append(gone, name)
		}
	}
	for _, d := range p.Destinations {
		if d.Service == "" {
			continue
		}
		add(d.Service, table.KnowsService(awsranges.Canonical(d.Service)))
		for _, region := range d.Regions {
			add(region, table.KnowsRegion(region))
		}
	}
	return p, gone
}

// IsMade reports whether the agent made a NetworkPolicy from a ConfigMap, be it gone: it has the label, and for its owner
// a ConfigMap whose NetworkPolicy has that name. The label alone anyone could have copied.
func IsMade(networkPolicy *metav1.ObjectMeta) bool {
	return HasManagedLabel(networkPolicy) && slices.ContainsFunc(networkPolicy.OwnerReferences, func(owner metav1.OwnerReference) bool {
		return owner.APIVersion == "v1" && owner.Kind == "ConfigMap" && NetworkPolicyName(owner.Name) == networkPolicy.Name
	})
}

// NetworkPolicyFor returns the NetworkPolicy of a ConfigMap that Evaluate accepted. It has an ownerReference
// where the ConfigMap has a UID.
func NetworkPolicyFor(configMap *corev1.ConfigMap, result *Result) *networkingv1.NetworkPolicy {
	object := newNetworkPolicy(configMap, result.Spec)
	object.Annotations[PolicyDigestAnnotation] = PolicyDigestOf(configMap)
	object.Annotations[DestinationsAnnotation] = formatCounts(result.Counts)
	return object
}

// DenyAllFor returns the NetworkPolicy for a ConfigMap of which no valid version was ever seen.
func DenyAllFor(configMap *corev1.ConfigMap, options Options) *networkingv1.NetworkPolicy {
	return newNetworkPolicy(configMap, DenyAll(options))
}

func newNetworkPolicy(configMap *corev1.ConfigMap, spec networkingv1.NetworkPolicySpec) *networkingv1.NetworkPolicy {
	policy := &networkingv1.NetworkPolicy{
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
		policy.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: configMap.Name, UID: configMap.UID}}
	}
	return policy
}

// PolicyDigestOf returns what PolicyDigest says of a NetworkPolicy that is made from the ConfigMap as it is.
func PolicyDigestOf(configMap *corev1.ConfigMap) string {
	digest := sha256.Sum256([]byte(configMap.Data[policy.Key]))
	return hex.EncodeToString(digest[:])
}

// HasManagedLabel says whether a NetworkPolicy has the label of those that the agent writes.
func HasManagedLabel(networkPolicy *metav1.ObjectMeta) bool {
	return networkPolicy.Labels[ManagedByLabel] == ManagedBy
}

// IsOwned says whether the NetworkPolicy of a ConfigMap's name is the agent's to write: by its label or,
// should someone have taken that off, by its owner.
func IsOwned(configMap *corev1.ConfigMap, networkPolicy *metav1.ObjectMeta) bool {
	return HasManagedLabel(networkPolicy) || slices.ContainsFunc(networkPolicy.OwnerReferences, func(owner metav1.OwnerReference) bool {
		return owner.UID == configMap.UID
	})
}

// longestName is what AWS VPC CNI takes: it derives names of its own from a NetworkPolicy's, and
// from 58 characters on those collide (aws/amazon-network-policy-controller-k8s#59).
const longestName = 57

// NetworkPolicyName returns the NetworkPolicy's name for a ConfigMap's: the same, or, over 57 characters, cut and
// with a hash of the whole for its end.
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

// ParseCounts reads a Destinations annotation, in its order; nil where it is empty. complete is false where it
// names only the first of many, or is not as the agent writes it.
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
