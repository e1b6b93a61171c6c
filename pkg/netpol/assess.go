package netpol

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

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
	// NameConflict: the agent does not manage the NetworkPolicy with the policy's name, so it must not write it.
	NameConflict State = "NameConflict"
	// NamespaceExempt: the agent writes nothing in the namespace.
	NamespaceExempt State = "NamespaceExempt"
	// RangesUnavailable: the policy names AWS services whose ranges are not loaded.
	RangesUnavailable State = "RangesUnavailable"
	// Guarded: as Applied, but guardrails of the platform close a part of the policy.
	Guarded State = "Guarded"
	// Pending: the agent has a write to do.
	Pending State = "Pending"
)

// Cause is the reason for a write.
type Cause string

// The causes. An empty Cause means that the agent has nothing to write.
const (
	CauseMissing Cause = "Missing" // no NetworkPolicy exists
	CauseEdited  Cause = "Edited"  // somebody edited the NetworkPolicy
	CausePolicy  Cause = "Policy"  // the policy changed
	CauseOptions Cause = "Options" // the agent's options changed
	CauseRanges  Cause = "Ranges"  // the ranges changed
	// CauseGuardrails means that other guardrails close a part of what the policy opens. If the same guardrails close
	// another part, the cause is CauseRanges.
	CauseGuardrails Cause = "Guardrails"
	CauseExpiry     Cause = "Expiry"   // a destination expired
	CauseMetadata   Cause = "Metadata" // only labels, annotations or owners differ
)

// Assessment is the state of a policy, and the writes that the policy needs.
type Assessment struct {
	*Compiled
	State State
	// Desired are the full objects to write; nil if there is nothing to write. They have only the labels and annotations
	// that the agent sets.
	Desired []*networkingv1.NetworkPolicy
	// Cause is the reason for the next write; empty if the policy needs no write. With Inputs.TrustCurrent, Cause may be
	// set although Desired is nil.
	Cause Cause
	// Opens reports whether Desired may open more than the cluster allows now. The caller must then compare Desired with
	// the other policies of the namespace. If the policies together exceed limits, the caller must call Assess again with
	// these limits in Inputs.Exceeded.
	Opens bool
	// MissingNames are the names of services and regions that the table no longer has, without duplicates, in the policy's
	// order. The policy was valid when the table had the names, so it stays in force without them.
	MissingNames []string
	// LastPolicy is the last valid version of an invalid policy. It is nil if no version was ever valid, or if Assess did
	// not parse Current.Document.
	LastPolicy *policy.Policy
	// NeedsObject reports that Assess needs Current.Document or Current.Spec. A second call of Assess with the result of
	// CurrentOf may return Desired.
	NeedsObject bool
	// keepsCurrent reports that the current NetworkPolicy stays in force as it is, and that Assess has not compiled the
	// policy that it was made from.
	keepsCurrent bool

	// text explains State; empty if there is nothing to explain. If State is Invalid, Message writes the problems first.
	text string
}

// Message returns one line for an Event or a log: what is wrong with the policy, and what to do. It returns "" if
// nothing is wrong.
func (a *Assessment) Message() string {
	if a.State == Invalid {
		return a.Problems.Error() + "; " + a.text
	}
	return a.text
}

// Messages returns the text of Message as a list, with one item for each problem. It returns nil if Message returns "".
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

// Assess compares a policy with the cluster. current describes the NetworkPolicy that has the policy's name; nil if the
// cluster has no such NetworkPolicy.
func Assess(configMap *corev1.ConfigMap, current *Current, in Inputs) *Assessment {
	in.PolicyDigest = cmp.Or(in.PolicyDigest, PolicyDigestOf(configMap))
	in.Now = current.notBeforeExpiry(in)
	a := &Assessment{Compiled: CompileConfigMap(configMap, in)}
	isFromThisVersion := current != nil && IsOwned(configMap, in.Origin, current.ObjectMeta) && current.Annotations[PolicyDigestAnnotation] == in.PolicyDigest
	if isFromThisVersion {
		a.acceptMissingNames(configMap, in)
	}
	switch {
	case in.isExempt(configMap.Namespace):
		a.State = NamespaceExempt
		a.text = fmt.Sprintf("The agent writes nothing in %s, because the cluster or the agent itself runs there; put the policy into the namespace of the pods", configMap.Namespace)
	case reservedNameProblem(configMap.Name, in.Origin) != nil:
		a.State = NameConflict
		a.text = reservedNameProblem(configMap.Name, in.Origin).Message
	case current != nil && !IsOwned(configMap, in.Origin, current.ObjectMeta):
		a.State = NameConflict
		a.text = fmt.Sprintf("NetworkPolicy %s exists and %s does not manage it, so this policy is not applied; rename the ConfigMap or the NetworkPolicy", current.Name, ManagedBy)
	case current != nil && current.DeletionTimestamp != nil:
		a.State = Pending
		a.text = fmt.Sprintf("NetworkPolicy %s is being deleted; the agent creates it again after that", current.Name)
	case in.TrustCurrent && isFromThisVersion:
		a.assessByAnnotations(current, in)
	case a.Problems != nil:
		a.assessInvalid(configMap, current, in)
	case (len(a.Unresolved) > 0 || a.unresolvedGuardrails != nil) && !in.RangesIncomplete:
		a.assessUnresolved(configMap, current, in)
	default:
		a.State = Applied
		a.setDesired(current, desiredFor(configMap, a.Compiled, in))
		a.Opens = a.mayOpen(current)
		switch {
		case a.isCut:
			a.State, a.text = Guarded, guardedText(a.Violations)
		case len(a.MissingNames) > 0:
			a.text = missingNamesText(a.MissingNames)
		}
	}
	if a.keepsCurrent && !in.TrustCurrent && a.Desired == nil {
		a.cutCurrent(configMap, current, in)
	}
	return a
}

// cutCurrent cuts the current spec if the guardrails do not permit it. The spec stays in force, and there is no policy
// to compile again.
func (a *Assessment) cutCurrent(configMap *corev1.ConfigMap, current *Current, in Inputs) {
	if !in.Guardrails.Cuts() {
		return
	}
	if current.Spec == nil {
		a.NeedsObject = true
		return
	}
	spec, isCut := in.Guardrails.cutSpec(*current.Spec, in.Options)
	domains, areDomainsCut := in.Guardrails.cutDomainsOf(current.Annotations)
	if !isCut && !areDomainsCut {
		return
	}
	desired := newNetworkPolicy(sourceOf(configMap, in.Origin), spec)
	for _, key := range append([]string{PolicyDigestAnnotation, DestinationsAnnotation, OptionsAnnotation}, OptionalAnnotations...) {
		if value, ok := current.Annotations[key]; ok {
			desired.Annotations[key] = value
		}
	}
	if areDomainsCut {
		delete(desired.Annotations, DomainsAnnotation)
		if domains != "" {
			desired.Annotations[DomainsAnnotation] = domains
		}
	}
	a.setDesired(current, desired)
}

// acceptMissingNames compiles a policy with problems again, and then accepts names that the table lacks. The agent made
// the current NetworkPolicy from this version of the policy, so the names were valid then.
func (a *Assessment) acceptMissingNames(configMap *corev1.ConfigMap, in Inputs) {
	if a.Problems == nil || in.Exceeded != nil || !in.TrustCurrent && !in.Table.HasAWS() {
		return
	}
	compiled := compileConfigMap(configMap, in, nil)
	if compiled.Policy == nil {
		return
	}
	a.Compiled = compiled
	if in.Table.HasAWS() && !in.RangesIncomplete {
		a.MissingNames = missingNames(compiled.Policy, in.Table)
	}
}

// missingNames returns the services and regions of a policy that the table lacks, without duplicates, in the policy's
// order.
func missingNames(p *policy.Policy, table *awsranges.Table) []string {
	var missing []string
	addUnlessKnown := func(name string, isKnown bool) {
		if !isKnown && !slices.Contains(missing, name) {
			missing = append(missing, name)
		}
	}
	for _, d := range p.Destinations {
		if d.Service == "" {
			continue
		}
		for _, service := range append([]string{d.Service}, d.Without...) {
			addUnlessKnown(service, table.KnowsService(awsranges.Canonical(service)))
		}
		for _, region := range d.Regions {
			addUnlessKnown(region, table.KnowsRegion(region))
		}
	}
	return missing
}

// assessByAnnotations derives the state from the annotations of current, which the agent made from the current version
// of the policy.
func (a *Assessment) assessByAnnotations(current *Current, in Inputs) {
	a.Problems = nil
	lacksAWS := !in.RangesIncomplete && !in.Table.HasAWS()
	a.Unresolved = uncounted(a.Policy, current.Annotations[DestinationsAnnotation], lacksAWS, in.Now)
	switch {
	case len(a.Unresolved) > 0 && in.Table.HasAWS():
		a.State, a.Cause = Pending, CauseRanges
	case len(a.Unresolved) > 0:
		neverCounted := uncounted(a.Policy, current.Annotations[DestinationsAnnotation], false, in.Now)
		a.State, a.text = RangesUnavailable, unresolvedText(a.Policy, a.Unresolved, len(neverCounted) == len(a.Unresolved))
	case current.isEdited():
		a.State, a.Cause = Pending, CauseEdited
	case current.Annotations[GuardedAnnotation] != "":
		a.State = Guarded
		a.text = "These guardrails of the platform close a part of what the policy opens: " + current.Annotations[GuardedAnnotation]
	default:
		a.State = Applied
		if len(a.MissingNames) > 0 {
			a.text = missingNamesText(a.MissingNames)
		}
	}
}

// guardedText describes the parts of a policy that guardrails close.
func guardedText(violations []Violation) string {
	var closed policy.Problems
	for _, violation := range violations {
		if violation.IsCut {
			closed = append(closed, violation.Problem)
		}
	}
	return "Guardrails of the platform close a part of what the policy opens: " + closed.String()
}

// uncounted returns the names of destinations that have a service but no count in a DestinationsAnnotation: the ranges
// were not loaded when the agent wrote the annotation. lacksAWS means that no AWS ranges are loaded now. Then uncounted
// also returns every destination with a service of AWS, because the agent cannot update such a destination. It skips
// expired destinations.
func uncounted(p *policy.Policy, annotation string, lacksAWS bool, now time.Time) []string {
	counts, complete := ParseCounts(annotation)
	if p == nil || p.DefaultAction == policy.Allow || !complete {
		return nil
	}
	var names []string
	for _, d := range p.Destinations {
		if d.Service == "" || d.IsExpired(now) {
			continue
		}
		isCounted := slices.ContainsFunc(counts, func(count Count) bool { return count.Name == d.Name })
		_, isAWS := awsranges.LookupService(awsranges.Canonical(d.Service))
		if !isCounted || lacksAWS && isAWS {
			names = append(names, d.Name)
		}
	}
	return names
}

// assessInvalid leaves the last valid version in force. If current has Document, assessInvalid compiles that version
// again, so the version follows the ranges, and the agent restores it after an edit of the NetworkPolicy. If no version
// was ever valid, Desired denies all egress.
func (a *Assessment) assessInvalid(configMap *corev1.ConfigMap, current *Current, in Inputs) {
	a.State = Invalid
	if current == nil || current.Annotations[PolicyDigestAnnotation] == "" {
		a.text = "until it is corrected, all egress" + in.Options.exceptDNS() + " is denied"
		denyAll := newNetworkPolicy(sourceOf(configMap, in.Origin), a.Spec())
		denyAll.Annotations[OptionsAnnotation] = in.Options.specOptions()
		a.setDesired(current, denyAll)
		return
	}
	a.text = "until it is corrected, the last valid policy stays in force"
	a.keepsCurrent = true
	if in.TrustCurrent || current.DocumentDigest == "" {
		return
	}
	if current.Document == "" {
		a.NeedsObject = true
		return
	}
	last := *configMap
	last.Data = map[string]string{policy.Key: current.Document}
	in.Exceeded, in.PolicyDigest = nil, current.Annotations[PolicyDigestAnnotation]
	in.Now = current.notBeforeExpiry(in)
	compiled := compileConfigMap(&last, in, nil)
	a.LastPolicy, a.Expiries, a.NextChange, a.NextExpiry = compiled.Policy, compiled.Expiries, compiled.NextChange, compiled.NextExpiry
	if compiled.Problems != nil || len(compiled.Unresolved) > 0 || compiled.unresolvedGuardrails != nil {
		return
	}
	a.keepsCurrent = false
	a.setDesired(current, desiredFor(&last, compiled, in))
	a.Opens = a.mayOpen(current)
}

// mayOpen reports whether Desired has another spec than the agent last wrote for the same policy.
func (a *Assessment) mayOpen(current *Current) bool {
	if a.Desired == nil || current == nil {
		return a.Desired != nil
	}
	desired := a.Desired[0].Annotations
	if a.Cause == CauseEdited && current.Annotations[PolicyDigestAnnotation] == desired[PolicyDigestAnnotation] {
		return false // it undoes the edit
	}
	return current.SpecDigest != desired[SpecDigestAnnotation]
}

// assessUnresolved sets Desired only if no NetworkPolicy exists. Desired then has the destinations that need no ranges.
func (a *Assessment) assessUnresolved(configMap *corev1.ConfigMap, current *Current, in Inputs) {
	partial := desiredFor(configMap, a.Compiled, in)
	isPartial := current == nil || current.SpecDigest == partial.Annotations[SpecDigestAnnotation]
	a.State, a.text = RangesUnavailable, unresolvedText(a.Policy, a.Unresolved, isPartial)
	if a.unresolvedGuardrails != nil {
		a.text = unresolvedGuardrailsText(a.unresolvedGuardrails, current == nil, in.Options)
	}
	if current == nil {
		a.setDesired(nil, partial)
	}
	a.keepsCurrent = current != nil
}

func unresolvedGuardrailsText(names []string, isNew bool, options Options) string {
	text := fmt.Sprintf("The AWS ranges of these guardrails are not loaded yet: %q; until they are loaded, ", names)
	if isNew {
		return text + "all egress" + options.exceptDNS() + " is denied"
	}
	return text + "the NetworkPolicy stays as it is"
}

func missingNamesText(names []string) string {
	return fmt.Sprintf("The ranges no longer have the names %q, so their addresses are closed; remove these names from the policy, or replace them", names)
}

// unresolvedText describes the destinations of p whose addresses are unknown, by their names.
func unresolvedText(p *policy.Policy, names []string, isPartial bool) string {
	subject, loaded := "AWS ranges", "loaded"
	if slices.ContainsFunc(p.Destinations, func(d policy.Destination) bool { return d.Entity != "" && slices.Contains(names, d.Name) }) {
		subject, loaded = "addresses", "known"
	}
	text := fmt.Sprintf("The %s of these destinations are not %s yet: %q; ", subject, loaded, names)
	if isPartial {
		return text + "the other destinations are applied"
	}
	return text + "the NetworkPolicy stays as it is until they are " + loaded
}

// setDesired sets Desired and Cause if current does not match desired. current is nil if no NetworkPolicy exists.
func (a *Assessment) setDesired(current *Current, desired *networkingv1.NetworkPolicy) {
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

// desiredFor returns the result of NetworkPolicyFor, and adds the annotations that only the agent reads.
func desiredFor(configMap *corev1.ConfigMap, compiled *Compiled, in Inputs) *networkingv1.NetworkPolicy {
	desired := NetworkPolicyFor(configMap, compiled)
	desired.Annotations[PolicyDigestAnnotation] = in.PolicyDigest
	desired.Annotations[OptionsAnnotation] = in.Options.specOptions()
	if document, size := policy.Compact(configMap.Data[policy.Key]); size <= MaxPolicyAnnotation {
		desired.Annotations[PolicyAnnotation] = document
	}
	return desired
}
