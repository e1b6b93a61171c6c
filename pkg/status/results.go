package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/netpol"
	"egress-agent/pkg/platform"
	"egress-agent/pkg/policy"
)

// Outcome is what a Result says.
type Outcome string

// The outcomes, the worst first.
const (
	Fail Outcome = "fail"
	Warn Outcome = "warn"
	Pass Outcome = "pass"
	Skip Outcome = "skip"
)

// Severity is how urgent a Result is.
type Severity string

// The severities, the worst first.
const (
	High   Severity = "high"
	Medium Severity = "medium"
	Low    Severity = "low"
	Info   Severity = "info"
)

// The rules of Results.
const (
	RuleApplied     = "applied"      // the state of the policy
	RuleEverything  = "everything"   // defaultAction is allow
	RuleWide        = "wide"         // a CIDR wider than a /8
	RuleEveryPort   = "every-port"   // a destination without ports
	RuleEveryRegion = "every-region" // a service without regions
	RuleExpiry      = "expiry"       // a destination that has expired, or expires within 30 days
	RuleReason      = "reason"       // a destination without a reason
	RuleRequired    = "required"     // a field that a platform document requires
	RuleLeak        = "leak"         // a NetworkPolicy of somebody else that opens egress
)

// Result is one thing that a report says about a policy.
type Result struct {
	// Policy is the name of the policy, or of the NetworkPolicy for RuleLeak.
	Policy string
	// Destination is the name of the destination; empty if the result is about the whole policy.
	Destination string
	Rule        string
	Outcome     Outcome
	Severity    Severity
	Message     string
}

// expiringSoon is how long before its end a destination is in a report. netpol warns as early.
const expiringSoon = 30 * 24 * time.Hour

// wideBits is the length of the widest prefix that is not wide, in both families.
const wideBits = 8

// Results returns what a report says about the policies of one namespace at a time, the worst first. A policy without a
// flaw gives one result.
func Results(policies []Policy, now time.Time) []Result {
	var results []Result
	for _, p := range policies {
		results = append(results, p.stateResult())
		for _, violation := range p.missing {
			result := Result{p.Name, "", RuleRequired, Fail, Medium, violation.String()}
			if violation.Mode == platform.Warn {
				result.Outcome, result.Severity = Warn, Low
			}
			results = append(results, result)
		}
		if p.DefaultAction == policy.Allow {
			results = append(results, Result{p.Name, "", RuleEverything, Fail, High, "it opens every address and port, because defaultAction is allow"})
			continue
		}
		for _, d := range p.Destinations {
			results = append(results, d.results(p.Name, now)...)
		}
	}
	results = append(results, leakResults(policies)...)
	sortResults(results)
	return results
}

// sortResults puts the worst results first, and keeps the order of equally bad ones.
func sortResults(results []Result) {
	slices.SortStableFunc(results, func(a, b Result) int {
		return cmp.Or(rank(outcomes, a.Outcome)-rank(outcomes, b.Outcome), rank(severities, a.Severity)-rank(severities, b.Severity))
	})
}

// ResultsOf returns the Results of one policy, without other NetworkPolicies, from the assessment by which the agent has
// written its NetworkPolicy.
func ResultsOf(name string, assessment *netpol.Assessment, now time.Time) []Result {
	p := Policy{Name: name, State: assessment.State, Messages: assessment.Messages()}
	if p.State == Pending && assessment.Desired != nil {
		p.State = Applied // the agent has written it since
	}
	if assessment.Policy != nil {
		p.describe(assessment.Policy, nil, now)
		p.setMissing(slices.DeleteFunc(slices.Clone(assessment.Violations), func(v netpol.Violation) bool { return v.Guardrail != netpol.Requirement }))
	}
	return Results([]Policy{p}, now)
}

// Leak returns the Result for a NetworkPolicy of somebody else. ok is false if it opens no egress.
func Leak(networkPolicy *networkingv1.NetworkPolicy) (result Result, ok bool) {
	if !allowsEgress(networkPolicy) || netpol.IsMade(&networkPolicy.ObjectMeta) {
		return Result{}, false
	}
	return leakResult(newOtherPolicy(networkPolicy)), true
}

var (
	outcomes   = []Outcome{Fail, Warn, Pass, Skip}
	severities = []Severity{High, Medium, Low, Info}
)

func rank[T comparable](order []T, value T) int { return slices.Index(order, value) }

// stateResult returns the result for the state of a policy.
func (p *Policy) stateResult() Result {
	result := Result{Policy: p.Name, Rule: RuleApplied, Message: string(p.State)}
	switch p.State {
	case Applied:
		result.Outcome, result.Severity = Pass, Info
	case Invalid, NameConflict, NamespaceExempt:
		result.Outcome, result.Severity = Fail, High
	case RangesUnavailable, Guarded:
		result.Outcome, result.Severity = Warn, Medium
	default:
		result.Outcome, result.Severity = Warn, Low
	}
	if len(p.Messages) > 0 {
		result.Message += ": " + strings.Join(p.Messages, "; ")
	}
	return result
}

func (d *Destination) results(policyName string, now time.Time) []Result {
	var results []Result
	add := func(rule string, outcome Outcome, severity Severity, message string) {
		results = append(results, Result{policyName, d.Name, rule, outcome, severity, message})
	}
	if d.Source.CIDR.IsValid() && d.Source.CIDR.Bits() < wideBits {
		add(RuleWide, Fail, High, fmt.Sprintf("it opens %s, which is wider than a /%d", d.CIDR, wideBits))
	}
	if len(d.Ports) == 0 && d.Source.Entity == "" {
		add(RuleEveryPort, Fail, Medium, "it opens every port and protocol, because it has no ports")
	}
	if d.Service != "" && len(d.Regions) == 0 {
		add(RuleEveryRegion, Warn, Low, "it opens "+d.Service+" in every region, because it has no regions")
	}
	switch {
	case d.IsExpired:
		add(RuleExpiry, Warn, Low, "it has expired and opens nothing: "+policy.FormatExpiry(*d.Expires))
	case d.Expires != nil && d.Expires.Sub(now) <= expiringSoon:
		add(RuleExpiry, Warn, Medium, "it expires and then opens nothing: "+policy.FormatExpiry(*d.Expires))
	}
	if d.Reason == "" {
		add(RuleReason, Warn, Low, "it has no reason for reviewers")
	}
	return results
}

// leakResults returns a result for each NetworkPolicy of a namespace that opens egress and that the agent did not make.
func leakResults(policies []Policy) []Result {
	var results []Result
	seen := make(map[string]bool)
	for _, p := range policies {
		for _, other := range p.OtherPolicies {
			if other.IsFromPolicy || seen[other.Name] {
				continue
			}
			seen[other.Name] = true
			results = append(results, leakResult(other))
		}
	}
	slices.SortStableFunc(results, func(a, b Result) int { return strings.Compare(a.Policy, b.Policy) })
	return results
}

func leakResult(other OtherPolicy) Result {
	if other.AllowsEverything {
		return Result{other.Name, "", RuleLeak, Fail, High, "another NetworkPolicy opens every address and port, and no policy can close that"}
	}
	return Result{other.Name, "", RuleLeak, Warn, Medium, "another NetworkPolicy opens egress, and no policy can close that"}
}
