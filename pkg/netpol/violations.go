package netpol

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"egress-agent/pkg/internal/prefixes"
	"egress-agent/pkg/platform"
	"egress-agent/pkg/policy"
)

// Violation is something in a policy that a platform document does not permit.
type Violation struct {
	policy.Problem
	// Document is the name of the platform document.
	Document string
	// Guardrail is the name of the entry of denied, "within" or, for a missing field, "require".
	Guardrail string
	// Mode is what happens: admission refuses the policy, or only warns.
	Mode platform.Mode
	// IsCut reports whether the agent closes a part of what the policy opens. It is false in mode Warn, and for a missing
	// field.
	IsCut bool
}

// maxExamined limits the destinations that violations compares with the guardrails of a document. A policy may have
// hundreds of destinations with thousands of addresses each.
const maxExamined = 200

// violations returns what of a policy the guardrails do not permit, in the order of documents, and at most
// policy.MaxProblems for each. closed is the result of closedParts for everything that the policy opens. collected has the
// addresses of p.
func (g *Guardrails) violations(p *policy.Policy, closed []closedPart, collected *collector, now time.Time) []Violation {
	if g == nil {
		return nil
	}
	var all []Violation
	for i, d := range g.documents {
		found := d.missing(p, now)
		if !closed[i].isEmpty() {
			found = append(found, d.closed(p, closed[i], collected)...)
		}
		found = append(found, d.closedPods(p)...)
		found = append(found, d.closedDomains(p)...)
		all = append(all, found[:min(len(found), policy.MaxProblems)]...)
	}
	return all
}

// missing returns a violation for each field that the document requires and the policy lacks, and for each destination
// that expires too late.
func (d *documentGuardrails) missing(p *policy.Policy, now time.Time) []Violation {
	var found []Violation
	add := func(path, message string) {
		if len(found) < policy.MaxProblems {
			found = append(found, Violation{
				Problem:  policy.Problem{Path: path, Message: message + "; platform document " + d.Name + " requires it"},
				Document: d.Name, Guardrail: Requirement, Mode: d.Guardrails.Mode,
			})
		}
	}
	for _, requirement := range d.Guardrails.Require {
		if requirement == platform.RequireDeny {
			if p.DefaultAction == policy.Allow {
				add("defaultAction", "Invalid defaultAction: allow; must be deny")
			}
			continue
		}
		for i, destination := range p.Destinations {
			lacks := false
			switch requirement {
			case platform.RequirePorts:
				lacks = destination.Ports == nil && destination.Entity == ""
			case platform.RequireRegions:
				lacks = destination.Service != "" && destination.Regions == nil
			case platform.RequireReason:
				lacks = destination.Reason == ""
			case platform.RequireExpires:
				lacks = destination.Expires.IsZero()
			}
			if lacks {
				add(fmt.Sprintf("allowedDestinations[%d].%s", i, requirement), fmt.Sprintf("Missing field: %s", requirement))
			}
		}
	}
	maxDays := d.Guardrails.MaxDays
	for i, destination := range p.Destinations {
		if maxDays > 0 && !now.IsZero() && destination.Expires.After(now.Add(time.Duration(maxDays)*day)) {
			add(fmt.Sprintf("allowedDestinations[%d].expires", i), fmt.Sprintf(
				"Invalid expires: %s; must be at most %d days from now, %s",
				policy.FormatExpiry(destination.Expires), maxDays, now.AddDate(0, 0, maxDays).UTC().Format(time.DateOnly)))
		}
	}
	return found
}

// closed returns a violation for each destination that reaches outside of the guardrails, and each guardrail that it
// violates. part is what d does not permit of the policy, and not empty.
func (d *documentGuardrails) closed(p *policy.Policy, part closedPart, collected *collector) []Violation {
	if p.DefaultAction == policy.Allow {
		return d.closedOf("defaultAction allow", "defaultAction", part)
	}
	if len(p.Destinations) == 1 {
		return d.closedOf(p.Destinations[0].Name, "allowedDestinations[0]", part)
	}
	var found []Violation
	examined := 0
	for i, destination := range p.Destinations {
		if len(found) >= policy.MaxProblems || examined == maxExamined {
			break
		}
		set := collected.setOf(destination)
		if set.IsEmpty() {
			continue
		}
		examined++
		own := closedPart{denied: part.denied.Intersect(set), outside: part.outside.Intersect(set)}
		if !own.isEmpty() {
			found = append(found, d.closedOf(destination.Name, fmt.Sprintf("allowedDestinations[%d]", i), own)...)
		}
	}
	if len(found) == 0 {
		found = d.closedOf("the policy", "allowedDestinations", part)
	}
	return found
}

// closedOf returns the violations of one destination. part is what d does not permit of it. subject is its name.
func (d *documentGuardrails) closedOf(subject, path string, part closedPart) []Violation {
	var found []Violation
	add := func(guardrail string, problem string) {
		found = append(found, Violation{
			Problem:  policy.Problem{Path: path, Message: problem},
			Document: d.Name, Guardrail: guardrail, Mode: d.Guardrails.Mode, IsCut: d.enforces(),
		})
	}
	for i, entry := range d.Guardrails.Denied {
		if part.denied.IsEmpty() {
			break
		}
		if hit := part.denied.Intersect(d.entry(i)); !hit.IsEmpty() {
			add(entry.Name, fmt.Sprintf("Denied by guardrail %s of platform document %s%s: %s opens %s; narrow it",
				entry.Name, d.Name, inParentheses(entry.Reason), subject, firstOf(hit)))
		}
	}
	if !part.outside.IsEmpty() {
		add("within", fmt.Sprintf("Outside of what platform document %s permits (%s): %s opens %s; narrow it",
			d.Name, d.permitted(), subject, firstOf(part.outside)))
	}
	return found
}

// permitted returns the names of the entries of within, or the reason why there are none.
func (d *documentGuardrails) permitted() string {
	const maxShown = 5
	var names []string
	for i, entry := range d.Guardrails.Within {
		if i == maxShown {
			names = append(names, fmt.Sprintf("%d more", len(d.Guardrails.Within)-maxShown))
			break
		}
		names = append(names, entry.Name)
	}
	return cmp.Or(strings.Join(names, ", "), d.Guardrails.Reason)
}

func inParentheses(text string) string {
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}

// firstOf returns the first prefix of a set that is not empty, and its ports, such as "10.0.0.0/8 on TCP 443". It adds
// the number of further prefixes.
func firstOf(set prefixes.Set) string {
	block, count := set.First()
	if count == 0 {
		return "too many addresses to list"
	}
	text := block.Prefix.String() + " on " + formatPorts(block.Ports)
	if count > 1 {
		text += fmt.Sprintf(" and %d more", count-1)
	}
	return text
}

// formatPorts returns the first ports of a set, such as "TCP 443, UDP 53".
func formatPorts(ports prefixes.PortSet) string {
	const maxShown = 3
	if ports.IsEveryPort() {
		return "every port"
	}
	var texts []string
	for _, r := range ports.Ranges() {
		if r.Protocol == prefixes.OtherProtocols {
			continue
		}
		if len(texts) == maxShown {
			texts = append(texts, "…")
			break
		}
		texts = append(texts, policy.Port{Protocol: policy.Protocol(r.Protocol), First: r.First, Last: r.Last}.String())
	}
	return cmp.Or(strings.Join(texts, ", "), "protocols without ports")
}
