package page

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
	"egress-agent/pkg/status"
)

// view is the content of the page. Its strings are plain text. An empty string or list means that the page leaves the
// element out.
type view struct {
	scope    string // the cluster and the time
	ranges   string // the AWS ranges that the policies use
	refused  string // why the agent refused a later document
	states   []stateCount
	policies []policyView
	lists    []prefixList // the lists that the page links to, in the order of the first link
}

type stateCount struct {
	state status.State
	count int
}

type policyView struct {
	name             string // NAMESPACE/NAME
	state            status.State
	allowsEverything bool
	summary          string // the destinations, in a few words
	messages         []string
	defaultAllow     bool
	onlyDNS          bool
	destinations     []destinationView
	inForce          [][]phrase // one item for each rule of the NetworkPolicy
	othersTitle      string
	others           []otherView
	usage            string // the NetworkPolicy's CIDRs and port slots
}

// destinationView is a row of the table of destinations. It has either cidr or service.
type destinationView struct {
	name, cidr, ports, cidrCount string
	service                      []phrase
}

type otherView struct {
	text       string
	everything bool
}

// phrase is a part of a line. If listID is not empty, the phrase links to the prefixList with this id.
type phrase struct{ text, listID string }

// prefixList is a list of prefixes at the end of the page.
type prefixList struct {
	id, title string
	prefixes  []string
}

// builder builds a view. Policies share the lists: a thousand policies may name AMAZON, and the page has the prefixes
// of AMAZON once.
type builder struct {
	table    *awsranges.Table // nil if unknown
	families map[int]bool     // the address lengths of the CIDRs in force, in bits
	lists    []prefixList
	listIDs  map[string]string // by the title and the prefixes of a list
}

// newView returns the view of a report. table may be nil.
func newView(report *status.Report, table *awsranges.Table) *view {
	b := &builder{table: table, families: familiesOf(report.Policies), listIDs: make(map[string]string)}
	v := &view{
		scope:  fmt.Sprintf("Egress policies of %s, as of %s", report.Cluster, formatTime(report.MadeAt)),
		ranges: rangesText(report.Ranges),
		states: stateCounts(report.Policies),
	}
	if report.Ranges != nil && report.Ranges.Refused != "" {
		v.refused = "The agent refused a later document: " + report.Ranges.Refused
	}
	for i := range report.Policies {
		v.policies = append(v.policies, b.policy(&report.Policies[i]))
	}
	v.lists = b.lists
	return v
}

func rangesText(ranges *status.Ranges) string {
	if ranges == nil {
		return "The AWS ranges are unknown."
	}
	text := fmt.Sprintf("AWS ranges: syncToken %s, published %s", ranges.SyncToken, formatTime(ranges.Published))
	if ranges.Confirmed != nil {
		text += fmt.Sprintf(", confirmed as the latest document %s before this report", duration.HumanDuration(ranges.Age()))
	}
	return text + "; from " + ranges.Source
}

func formatTime(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// stateCounts returns the number of policies in each state, in the order of status.States. It includes states without
// policies.
func stateCounts(policies []status.Policy) []stateCount {
	counts := make(map[status.State]int)
	for _, p := range policies {
		counts[p.State]++
	}
	var ordered []stateCount
	for _, state := range status.States {
		ordered = append(ordered, stateCount{state, counts[state]})
	}
	return ordered
}

func (b *builder) policy(p *status.Policy) policyView {
	v := policyView{
		name:             p.Namespace + "/" + p.Name,
		state:            p.State,
		allowsEverything: p.Current != nil && netpol.AllowsEverything(p.Current.Spec),
		messages:         p.Messages,
		defaultAllow:     p.DefaultAction == policy.Allow,
		onlyDNS:          p.DefaultAction == policy.Deny && len(p.Destinations) == 0,
	}
	if !v.allowsEverything {
		v.summary = summaryOf(p)
	}
	for _, d := range p.Destinations {
		v.destinations = append(v.destinations, b.destination(d))
	}
	if b.showsInForce(p) {
		v.inForce = b.inForce(p.Current.Spec)
	}
	if len(p.OtherPolicies) > 0 {
		v.othersTitle = "Other NetworkPolicies that allow egress in " + p.Namespace
	}
	for _, other := range p.OtherPolicies {
		v.others = append(v.others, otherView{otherText(other), other.AllowsEverything})
	}
	if p.NetworkPolicy != "" {
		v.usage = fmt.Sprintf("NetworkPolicy %s: %s, most port slots that a CIDR uses: %s",
			p.NetworkPolicy, formatCount(p.CIDRs, "CIDR"), p.FormatPortSlots())
	}
	return v
}

// summaryOf names the first destinations of a policy, and counts the CIDRs in force.
func summaryOf(p *status.Policy) string {
	const shownCount = 5
	var names []string
	switch {
	case p.DefaultAction == "":
		names = append(names, "unreadable")
	case len(p.Destinations) == 0:
		names = append(names, "only DNS")
	}
	for _, d := range p.Destinations[:min(shownCount, len(p.Destinations))] {
		names = append(names, d.Name)
	}
	if more := len(p.Destinations) - shownCount; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ") + "; " + formatCount(p.CIDRs, "CIDR") + " in force"
}

// formatCount returns the count with the noun, in the plural unless the count is 1.
func formatCount(count int, noun string) string {
	if count == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", count, noun)
}

func (b *builder) destination(d status.Destination) destinationView {
	v := destinationView{name: d.Name, ports: portsText(d.Ports), cidrCount: "unknown"}
	if d.CIDRs != nil {
		v.cidrCount = fmt.Sprint(*d.CIDRs)
	}
	if d.Service == "" {
		v.cidr = d.CIDR
	} else {
		v.service = b.service(d)
	}
	return v
}

func portsText(ports []string) string { return cmp.Or(strings.Join(ports, ", "), "every port") }

func otherText(other status.OtherPolicy) string {
	text := "NetworkPolicy " + other.Name
	if other.IsFromPolicy {
		text += ", made from another policy"
	}
	if other.PodSelector != "" {
		text += ", for Pods with " + other.PodSelector
	}
	return text
}
