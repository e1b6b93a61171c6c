package netpol

import (
	"cmp"
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

// State is the state of a policy.
type State string

// The states. The agent's Events have the same names, except for Pending.
const (
	// Applied: the agent made the NetworkPolicy from the current version of the policy, and nobody has edited it since.
	Applied State = "Applied"
	// Invalid: the policy has problems. Its last valid version stays in force.
	Invalid State = "Invalid"
	// NameConflict: the agent may not write the NetworkPolicy of that name.
	NameConflict State = "NameConflict"
	// NamespaceExempt: the agent writes nothing in the namespace.
	NamespaceExempt State = "NamespaceExempt"
	// RangesUnavailable: the policy names AWS services whose ranges are not loaded.
	RangesUnavailable State = "RangesUnavailable"
	// Pending: the agent has a write to do.
	Pending State = "Pending"
)

// Cause is the reason for a write.
type Cause string

// The causes. An empty Cause means that nothing differs.
const (
	CauseMissing  Cause = "Missing"  // no NetworkPolicy exists
	CauseEdited   Cause = "Edited"   // somebody edited the NetworkPolicy
	CausePolicy   Cause = "Policy"   // the policy changed
	CauseOptions  Cause = "Options"  // the agent's options changed
	CauseRanges   Cause = "Ranges"   // the ranges changed
	CauseMetadata Cause = "Metadata" // only labels, annotations or owners differ
)

// Current describes the NetworkPolicy that exists in the cluster under a policy's name, without the spec.
type Current struct {
	// ObjectMeta may lack PolicyAnnotation.
	*metav1.ObjectMeta
	// SpecDigest is SpecDigestOf the spec.
	SpecDigest string
	// Usage is UsageOf the spec.
	Usage Usage
	// DocumentDigest is the digest of PolicyAnnotation; empty without one.
	DocumentDigest string
	// Document is PolicyAnnotation; empty without one, and if the caller has not read it.
	Document string
}

// CurrentOf returns the Current of a whole NetworkPolicy, whose metadata it shares.
func CurrentOf(networkPolicy *networkingv1.NetworkPolicy) *Current {
	document := networkPolicy.Annotations[PolicyAnnotation]
	return &Current{
		ObjectMeta: &networkPolicy.ObjectMeta,
		SpecDigest: SpecDigestOf(networkPolicy.Spec), Usage: UsageOf(networkPolicy.Spec),
		DocumentDigest: DocumentDigest(document), Document: document,
	}
}

// CurrentOfMetadata returns the Current of a NetworkPolicy without a spec, from its annotations. ok is false if somebody
// may have edited the spec since the agent wrote it. The caller must then read the full object and use CurrentOf.
func CurrentOfMetadata(metadata *metav1.ObjectMeta, documentDigest string) (current *Current, ok bool) {
	usage, isUsage := ParseUsage(metadata.Annotations[UsageAnnotation])
	digest := metadata.Annotations[SpecDigestAnnotation]
	ok = isUsage && digest != "" && metadata.Annotations[GenerationAnnotation] == strconv.FormatInt(metadata.Generation, 10)
	return &Current{ObjectMeta: metadata, SpecDigest: digest, Usage: usage, DocumentDigest: documentDigest}, ok
}

// DocumentDigest returns the SHA-256 of a PolicyAnnotation, in hex; empty for an empty one.
func DocumentDigest(document string) string {
	if document == "" {
		return ""
	}
	digest := sha256.Sum256([]byte(document))
	return hex.EncodeToString(digest[:])
}

// Assessment is the state of a policy with the writes that it needs.
type Assessment struct {
	*Compiled
	State State
	// Desired are the full objects to write, without the labels and annotations of others; nil if nothing changes.
	Desired []*networkingv1.NetworkPolicy
	// Cause is the reason for Desired; empty without Desired.
	Cause Cause
	// Opens reports whether Desired may open more than the cluster allows now. The caller must then compare Desired with
	// the other policies of the namespace, and call Assess again with the bounds that they exceed together.
	Opens bool
	// Gone are the names of services and regions that the table no longer has, each once, in the policy's order. The policy
	// was valid before, so it stays in force without these names.
	Gone []string
	// LastPolicy is the last valid version of an invalid policy; nil without one, and if Current lacks Document.
	LastPolicy *policy.Policy
	// NeedsDocument reports that Current lacks Document. A second call of Assess with Document may return Desired.
	NeedsDocument bool

	// text explains State; empty if there is nothing to explain. For Invalid it follows the problems.
	text string
}

// Message returns one line for an Event or a log: why the agent does not apply the policy, and what to do. It is empty if
// the agent applies the policy.
func (a *Assessment) Message() string {
	if a.State == Invalid {
		return a.Problems.Error() + "; " + a.text
	}
	return a.text
}

// Messages returns Message as a list with one item for each problem; nil if Message is empty.
func (a *Assessment) Messages() []string {
	if a.text == "" {
		return nil
	}
	var messages []string
	if a.State == Invalid {
		for _, problem := range a.Problems {
			messages = append(messages, problem.String())
		}
	}
	return append(messages, strings.ToUpper(a.text[:1])+a.text[1:])
}

// Assess compares a policy with the cluster. current describes the NetworkPolicy of that name; nil without one.
func Assess(configMap *corev1.ConfigMap, current *Current, in Inputs) *Assessment {
	in.PolicyDigest = cmp.Or(in.PolicyDigest, PolicyDigestOf(configMap))
	a := &Assessment{Compiled: CompileConfigMap(configMap, in)}
	isMade := current != nil && IsOwned(configMap, current.ObjectMeta) && current.Annotations[PolicyDigestAnnotation] == in.PolicyDigest
	if isMade {
		a.acceptGoneNames(configMap, in)
	}
	switch {
	case in.isExempt(configMap.Namespace):
		a.State = NamespaceExempt
		a.text = fmt.Sprintf("The agent writes nothing in %s, because the cluster or the agent itself runs there; put the policy into the namespace of the pods", configMap.Namespace)
	case current != nil && !IsOwned(configMap, current.ObjectMeta):
		a.State = NameConflict
		a.text = fmt.Sprintf("NetworkPolicy %s exists and %s does not manage it, so this policy is not applied; rename the ConfigMap or the NetworkPolicy", current.Name, ManagedBy)
	case current != nil && current.DeletionTimestamp != nil:
		a.State = Pending
		a.text = fmt.Sprintf("NetworkPolicy %s is being deleted; the agent creates it again after that", current.Name)
	case in.TrustCurrent && isMade:
		a.assessMade(current, in)
	case a.Problems != nil:
		a.assessInvalid(configMap, current, in)
	case len(a.Unresolved) > 0 && !in.Incomplete:
		a.assessUnresolved(configMap, current, in)
	default:
		a.State = Applied
		a.want(current, desiredFor(configMap, a.Compiled, in))
		a.Opens = a.Desired != nil && a.Cause != CauseEdited && (current == nil || current.SpecDigest != a.Desired[0].Annotations[SpecDigestAnnotation])
		if len(a.Gone) > 0 {
			a.text = goneText(a.Gone)
		}
	}
	return a
}

// acceptGoneNames compiles a policy again without the names that the table no longer has. The cluster already has a
// NetworkPolicy of this policy, so the names were valid before.
func (a *Assessment) acceptGoneNames(configMap *corev1.ConfigMap, in Inputs) {
	if a.Problems == nil || in.Exceeded != nil || !in.TrustCurrent && !in.Table.HasAWS() {
		return
	}
	compiled := compileConfigMap(configMap, in, nil)
	if compiled.Policy == nil {
		return
	}
	a.Compiled = compiled
	if in.Table.HasAWS() && !in.Incomplete {
		a.Gone = missingNames(compiled.Policy, in.Table)
	}
}

// missingNames returns the services and regions of a policy that the table lacks, each once, in the policy's order.
func missingNames(p *policy.Policy, table *awsranges.Table) []string {
	var missing []string
	add := func(name string, known bool) {
		if !known && !slices.Contains(missing, name) {
			missing = append(missing, name)
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
	return missing
}

// assessMade derives the state from the annotations of a NetworkPolicy that the agent made from this very policy.
func (a *Assessment) assessMade(current *Current, in Inputs) {
	a.Problems = nil
	noRanges := !in.Incomplete && !in.Table.HasAWS()
	a.Unresolved = uncounted(a.Policy, current.Annotations[DestinationsAnnotation], noRanges)
	switch {
	case len(a.Unresolved) > 0 && in.Table.HasAWS():
		a.State, a.Cause = Pending, CauseRanges
	case len(a.Unresolved) > 0:
		neverCounted := uncounted(a.Policy, current.Annotations[DestinationsAnnotation], false)
		a.State, a.text = RangesUnavailable, unresolvedText(a.Unresolved, len(neverCounted) == len(a.Unresolved))
	case current.isEdited():
		a.State, a.Cause = Pending, CauseEdited
	default:
		a.State = Applied
		if len(a.Gone) > 0 {
			a.text = goneText(a.Gone)
		}
	}
}

// uncounted returns the destinations with a service that a DestinationsAnnotation does not count, because their ranges
// were not loaded. If no AWS ranges are loaded now, it returns every destination with a service of AWS: the agent cannot
// update these.
func uncounted(p *policy.Policy, annotation string, noRanges bool) []string {
	counts, complete := ParseCounts(annotation)
	if p == nil || p.DefaultAction == policy.Allow || !complete {
		return nil
	}
	var names []string
	for _, d := range p.Destinations {
		if d.Service == "" {
			continue
		}
		isCounted := slices.ContainsFunc(counts, func(count Count) bool { return count.Name == d.Name })
		_, isAWS := awsranges.LookupService(awsranges.Canonical(d.Service))
		if !isCounted || noRanges && isAWS {
			names = append(names, d.Name)
		}
	}
	return names
}

// assessInvalid leaves the last valid version in force. If Current has Document, this version follows the ranges, and
// the agent restores it after an edit. If no version was ever valid, assessInvalid denies all egress.
func (a *Assessment) assessInvalid(configMap *corev1.ConfigMap, current *Current, in Inputs) {
	a.State = Invalid
	if current == nil || current.Annotations[PolicyDigestAnnotation] == "" {
		a.text = "until it is corrected, all egress" + in.Options.exceptDNS() + " is denied"
		denyAll := DenyAllFor(configMap, in.Options)
		denyAll.Annotations[OptionsAnnotation] = in.Options.specOptions()
		a.want(current, denyAll)
		return
	}
	a.text = "until it is corrected, the last valid policy stays in force"
	if in.TrustCurrent || current.DocumentDigest == "" {
		return
	}
	if a.NeedsDocument = current.Document == ""; a.NeedsDocument {
		return
	}
	last := *configMap
	last.Data = map[string]string{policy.Key: current.Document}
	in.Exceeded, in.PolicyDigest = nil, current.Annotations[PolicyDigestAnnotation]
	compiled := compileConfigMap(&last, in, nil)
	a.LastPolicy = compiled.Policy
	if compiled.Problems != nil || len(compiled.Unresolved) > 0 {
		return
	}
	a.want(current, desiredFor(&last, compiled, in))
	a.Opens = a.Desired != nil && a.Cause != CauseEdited
}

// assessUnresolved writes the destinations that need no ranges if no NetworkPolicy exists, and else writes nothing.
func (a *Assessment) assessUnresolved(configMap *corev1.ConfigMap, current *Current, in Inputs) {
	partial := desiredFor(configMap, a.Compiled, in)
	isPartial := current == nil || current.SpecDigest == partial.Annotations[SpecDigestAnnotation]
	a.State, a.text = RangesUnavailable, unresolvedText(a.Unresolved, isPartial)
	if current == nil {
		a.want(nil, partial)
	}
}

func goneText(names []string) string {
	return fmt.Sprintf("The ranges no longer have %q, so what they opened is closed; remove them from the policy, or name their successors", names)
}

func unresolvedText(names []string, isPartial bool) string {
	text := fmt.Sprintf("The AWS ranges of these destinations are not loaded yet: %q; ", names)
	if isPartial {
		return text + "the other destinations are applied"
	}
	return text + "the NetworkPolicy stays as it is until they are"
}

// want sets Desired and Cause unless current matches desired already.
func (a *Assessment) want(current *Current, desired *networkingv1.NetworkPolicy) {
	desired.Annotations[UsageAnnotation] = UsageOf(desired.Spec).String()
	desired.Annotations[GenerationAnnotation] = strconv.FormatInt(current.generationAfter(desired), 10)
	if current != nil && current.matches(desired) {
		return
	}
	a.Desired, a.Cause = []*networkingv1.NetworkPolicy{desired}, current.causeOf(desired)
	if a.State == Applied {
		a.State = Pending
	}
}

// desiredFor returns NetworkPolicyFor with the annotations that only the agent reads.
func desiredFor(configMap *corev1.ConfigMap, compiled *Compiled, in Inputs) *networkingv1.NetworkPolicy {
	desired := NetworkPolicyFor(configMap, compiled)
	desired.Annotations[PolicyDigestAnnotation] = in.PolicyDigest
	desired.Annotations[OptionsAnnotation] = in.Options.specOptions()
	if document, size := policy.Compact(configMap.Data[policy.Key]); size <= MaxPolicyAnnotation {
		desired.Annotations[PolicyAnnotation] = document
	}
	return desired
}

// generationAfter returns the generation that writing desired gives a NetworkPolicy; c may be nil.
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

// matches reports whether c has everything of desired.
func (c *Current) matches(desired *networkingv1.NetworkPolicy) bool {
	if c.SpecDigest != desired.Annotations[SpecDigestAnnotation] || c.DocumentDigest != DocumentDigest(desired.Annotations[PolicyAnnotation]) {
		return false
	}
	for key, value := range desired.Annotations {
		if current, ok := c.Annotations[key]; key != PolicyAnnotation && (!ok || current != value) {
			return false
		}
	}
	for key, value := range desired.Labels {
		if c.Labels[key] != value {
			return false
		}
	}
	for _, owner := range desired.OwnerReferences {
		if !slices.Contains(c.OwnerReferences, owner) { // the pointers in it are nil
			return false
		}
	}
	return true
}

// causeOf returns why c, which may be nil, does not match desired.
func (c *Current) causeOf(desired *networkingv1.NetworkPolicy) Cause {
	differs := func(key string) bool { return c.Annotations[key] != desired.Annotations[key] }
	switch {
	case c == nil:
		return CauseMissing
	case c.isEdited():
		return CauseEdited
	case differs(PolicyDigestAnnotation):
		return CausePolicy
	case c.SpecDigest == desired.Annotations[SpecDigestAnnotation]:
		return CauseMetadata
	case c.Annotations[OptionsAnnotation] != "" && differs(OptionsAnnotation):
		return CauseOptions
	}
	return CauseRanges
}
