package page

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
	"egress-agent/pkg/status"
)

// namespaceView is a row of the table of namespaces, with the policies that it opens to.
type namespaceView struct {
	name            string
	state           status.State // the worst state of its policies
	stateNote       string       // how many policies have the state; empty if all have it
	cidrCount       int          // of the NetworkPolicies of its policies
	addresses       addressCount // in force; each address counts once
	widest          string       // the opening with the largest share
	leaksEverything bool         // another NetworkPolicy opens every address of a family
	summary         string       // the policies, in a few words
	governed        string       // which platform documents govern it, and their NetworkPolicies
	policies        []policyView // the worst first
	leaks           []leakView   // the widest first
}

type policyView struct {
	id, namespace, name string
	state               status.State
	allowsEverything    bool
	isWide              bool
	addresses           addressCount // in force
	inForceText         string       // the CIDRs and addresses in force; empty if the policy has no NetworkPolicy
	messages            []string
	findings            []string // what a reviewer should see, besides the state and the messages
	tags                []string // of the summary, besides tagWide
	defaultAllow        bool
	onlyDNS             bool
	destinations        []destinationView
	inForce             []ruleView // empty if the destinations show what is in force
	openings            []opening
	usage               string // the NetworkPolicy and its port slots
	summary             string // the destinations, in a few words
}

// destinationView is a row of the table of destinations.
type destinationView struct {
	name       string
	where      []phrase
	belongs    string // where a CIDR belongs
	ports      string
	cidrCount  string
	ipv4, ipv6 string // the number of addresses
}

// leakView is another NetworkPolicy that opens egress in a namespace with policies.
type leakView struct {
	id, namespace, name string
	pods                string // which pods it selects, and who made it
	opens               string // what it opens, in a few words
	addresses           addressCount
	rules               []ruleView
}

// wideShare is the share of an address family above which an opening is wide. A /8 has this share. netpol warns of the
// same CIDRs.
const wideShare = 1.0 / 256

// namespaces returns the rows of the table, the worst first. The policies are sorted by namespace; inForce has the
// addresses of each policy.
func (b *builder) namespaces(policies []status.Policy, inForce []extent) []namespaceView {
	var views []namespaceView
	for start := 0; start < len(policies); {
		end := start + 1
		for end < len(policies) && policies[end].Namespace == policies[start].Namespace {
			end++
		}
		views = append(views, b.namespace(start, policies[start:end], inForce[start:end]))
		start = end
	}
	slices.SortStableFunc(views, compareNamespaces)
	return views
}

// compareNamespaces orders namespaces, the worst first: by the worst state of a policy, in the order of severity; then
// those with a leak of everything, and with any leak; then by the share of the addresses, of which everything is the
// largest; then by name.
func compareNamespaces(a, b namespaceView) int {
	return cmp.Or(
		cmp.Compare(severity(a.state), severity(b.state)),
		trueFirst(a.leaksEverything, b.leaksEverything),
		trueFirst(len(a.leaks) > 0, len(b.leaks) > 0),
		compareWidest(a.addresses, b.addresses),
		strings.Compare(a.name, b.name),
	)
}

// severity orders states, the worst first. status.States lists Applied first, and then the most urgent state.
func severity(state status.State) int {
	if state == status.Applied {
		return len(status.States)
	}
	return slices.Index(status.States, state)
}

func trueFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// namespace returns the row of a namespace. first is the index of its first policy in the report.
func (b *builder) namespace(first int, policies []status.Policy, inForce []extent) namespaceView {
	v := namespaceView{name: policies[0].Namespace}
	v.addresses = union(inForce...).count()
	var widest opening
	for i := range policies {
		p := b.policy(first+i, &policies[i], inForce[i])
		for _, o := range p.openings {
			if widest.label == "" || compareWidest(o.addresses, widest.addresses) < 0 {
				widest, v.widest = o, o.label+", "+o.ports
			}
		}
		v.cidrCount += policies[i].CIDRs
		v.policies = append(v.policies, p)
	}
	slices.SortStableFunc(v.policies, comparePolicies)
	v.state = v.policies[0].state
	if same := countState(v.policies, v.state); same < len(policies) {
		v.stateNote = fmt.Sprintf("%d of %d", same, len(policies))
	}
	v.leaks = b.leaksOf(first, policies)
	v.leaksEverything = slices.ContainsFunc(v.leaks, func(l leakView) bool { return l.addresses.isEvery() })
	v.summary, v.governed = summaryOf(v.policies), governedText(policies[0])
	return v
}

// governedText says which platform documents govern the namespace of a policy, and what their NetworkPolicies there are.
// It returns "" if there are none.
func governedText(p status.Policy) string {
	var texts, made []string
	if len(p.GovernedBy) > 0 {
		texts = append(texts, "Governed by "+nounOf(len(p.GovernedBy), "platform document ", "platform documents ")+strings.Join(p.GovernedBy, ", "))
	}
	for _, other := range p.OtherPolicies {
		if other.IsFromPlatform {
			made = append(made, other.Name)
		}
	}
	if len(made) > 0 {
		texts = append(texts, nounOf(len(made), "NetworkPolicy", "NetworkPolicies")+" of the platform: "+strings.Join(made, ", "))
	}
	return strings.Join(texts, "; ")
}

func comparePolicies(a, b policyView) int {
	return cmp.Or(
		cmp.Compare(severity(a.state), severity(b.state)),
		compareWidest(a.addresses, b.addresses),
		strings.Compare(a.name, b.name),
	)
}

func countState(policies []policyView, state status.State) int {
	count := 0
	for _, p := range policies {
		if p.state == state {
			count++
		}
	}
	return count
}

// summaryOf names the policies of a namespace. For a single policy it also names the destinations.
func summaryOf(policies []policyView) string {
	const shownCount = 5
	if len(policies) == 1 {
		return policies[0].name + ": " + policies[0].summary
	}
	var names []string
	for _, p := range policies {
		names = append(names, p.name)
	}
	return listFirst(names, shownCount)
}

// policy returns the view of a policy; index is its place in the report.
func (b *builder) policy(index int, p *status.Policy, inForce extent) policyView {
	v := policyView{
		id: fmt.Sprintf("policy-%d", index+1), namespace: p.Namespace, name: p.Name, state: p.State,
		allowsEverything: p.Current != nil && netpol.AllowsEverything(p.Current.Spec),
		addresses:        inForce.count(),
		messages:         p.Messages,
		defaultAllow:     p.DefaultAction == policy.Allow,
		onlyDNS:          p.DefaultAction == policy.Deny && len(p.Destinations) == 0,
		summary:          destinationNames(p),
	}
	v.isWide = v.addresses.share > wideShare
	for _, d := range p.Destinations {
		v.destinations = append(v.destinations, b.destination(d))
	}
	v.addFindings(p, b.madeAt)
	if b.showsInForce(p) {
		v.inForce = b.rules("In force", p.Current.Spec.Egress)
	}
	switch {
	case p.Current == nil:
	case v.allowsEverything:
		v.inForceText = everyDestination + " is open"
	default:
		v.inForceText = formatCIDRs(p.CIDRs) + " in force: " + formatAddressCounts(v.addresses)
	}
	v.openings = b.openingsOf(p, v.inForce)
	if p.NetworkPolicy != "" {
		v.usage = fmt.Sprintf("NetworkPolicy %s. Most port slots that a CIDR uses: %s", p.NetworkPolicy, p.FormatPortSlots())
		if p.PodSelector != "" {
			v.usage += ". Only for Pods with " + p.PodSelector
		}
	}
	return v
}

// addFindings adds what a report says about a policy, without what the page shows elsewhere, and the tags of the summary.
func (v *policyView) addFindings(p *status.Policy, now time.Time) {
	alone := *p
	alone.OtherPolicies = nil // the page shows them on their own
	for _, result := range status.Results([]status.Policy{alone}, now) {
		if tag := tagOfRule[result.Rule]; tag != "" && !slices.Contains(v.tags, tag) {
			v.tags = append(v.tags, tag)
		}
		text := result.Message
		if result.Destination != "" {
			text = result.Destination + ": " + text
		}
		switch result.Rule {
		case status.RuleApplied, status.RuleEverything, status.RuleExpiry, status.RuleReason: // the page shows these elsewhere
		default:
			v.findings = append(v.findings, text)
		}
	}
	if slices.ContainsFunc(p.Destinations, func(d status.Destination) bool { return d.Flows != nil && *d.Flows == 0 }) {
		v.tags = append(v.tags, tagUnused)
	}
}

// tagOfRule has the tags of findings.
var tagOfRule = map[string]string{status.RuleExpiry: tagExpiring, status.RuleRequired: tagLacking}

// destinationNames names the first destinations of a policy.
func destinationNames(p *status.Policy) string {
	const shownCount = 5
	switch {
	case p.DefaultAction == "":
		return "unreadable"
	case p.DefaultAction == policy.Allow:
		return everyDestination
	case len(p.Destinations) == 0:
		return "only DNS"
	}
	var names []string
	for _, d := range p.Destinations {
		names = append(names, d.Name)
	}
	return listFirst(names, shownCount)
}

func (b *builder) destination(d status.Destination) destinationView {
	v := destinationView{name: d.Name, where: b.where(d), belongs: b.notes(d), ports: portsText(d.Ports), cidrCount: "unknown", ipv4: "unknown", ipv6: "unknown"}
	switch {
	case d.CIDRs != nil:
		v.cidrCount = groupDigits(fmt.Sprint(*d.CIDRs))
	case d.IsExpired:
		v.cidrCount = "0"
	}
	if d.Source.Entity != "" {
		v.ports = "its own ports"
	}
	if addresses, ok := b.extentOfDestination(d); ok {
		count := addresses.count()
		v.ipv4, v.ipv6 = count.ipv4, count.ipv6
	}
	return v
}

// notes says where a CIDR belongs, when a destination expires, why it is there and whether connections used it, or returns
// "".
func (b *builder) notes(d status.Destination) string {
	notes := []string{b.belongs(d.CIDR), "", d.Reason, ""}
	if d.Expires != nil {
		notes[1] = "until " + policy.FormatExpiry(*d.Expires)
		if d.IsExpired {
			notes[1] = "expired, " + policy.FormatExpiry(*d.Expires) + ": opens nothing"
		}
	}
	switch {
	case d.Flows == nil:
	case *d.Flows == 0:
		notes[3] = "unused: no connection of the logs"
	default:
		notes[3] = "used by " + formatCount(*d.Flows, "connection", "connections") + " of the logs"
	}
	return strings.Join(slices.DeleteFunc(notes, func(note string) bool { return note == "" }), "; ")
}

func portsText(ports []string) string { return cmp.Or(strings.Join(ports, ", "), "every port") }

// leaksOf returns the NetworkPolicies that open egress in a namespace and that belong to no policy of the report. Each
// policy of a namespace lists the same NetworkPolicies, except its own. first is the index of the first policy.
func (b *builder) leaksOf(first int, policies []status.Policy) []leakView {
	made := make(map[string]bool)
	for _, p := range policies {
		made[p.NetworkPolicy] = true
	}
	var views []leakView
	for i, other := range policies[0].OtherPolicies {
		if !made[other.Name] && !other.IsFromPlatform {
			views = append(views, b.leak(fmt.Sprintf("leak-%d-%d", first+1, i+1), policies[0].Namespace, other))
		}
	}
	slices.SortStableFunc(views, compareLeaks)
	return views
}

// compareLeaks orders leaks by the share of the addresses, and then by name.
func compareLeaks(a, b leakView) int {
	return cmp.Or(
		compareWidest(a.addresses, b.addresses),
		strings.Compare(a.namespace, b.namespace),
		strings.Compare(a.name, b.name),
	)
}

func (b *builder) leak(id, namespace string, other status.OtherPolicy) leakView {
	v := leakView{id: id, namespace: namespace, name: other.Name, pods: podsOf(other)}
	var opened extent
	switch {
	case other.AllowsEverything:
		opened, v.rules = everyAddress, []ruleView{{[]phrase{{text: everyDestination}}, portsText(nil)}}
	case other.Spec != nil:
		opened, v.rules = extentOf(other.Spec.Egress...), b.rules("NetworkPolicy "+namespace+"/"+other.Name, other.Spec.Egress)
	}
	v.addresses = opened.count()
	var opens []string
	for _, rule := range v.rules {
		opens = append(opens, textOf(rule.where)+rule.portsAfterWhere())
	}
	v.opens = listFirst(opens, 3)
	return v
}

// podsOf says for which pods a NetworkPolicy is, and who made it.
func podsOf(other status.OtherPolicy) string {
	note := "for every Pod"
	if other.PodSelector != "" {
		note = "for Pods with " + other.PodSelector
	}
	if other.IsFromPolicy {
		note += "; the agent made it from a policy that is gone"
	}
	return note
}
