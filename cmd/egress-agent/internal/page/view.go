package page

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/status"
)

// view is the content of the page. Its strings are plain text. An empty string or list means that the page leaves the
// element out.
type view struct {
	cluster string
	madeAt  string
	list    string // the date of AWS's list, in a sentence
	refused string // why the agent refused a later list
	tiles   []tile

	namespaces []namespaceView // the worst first
	openings   ranking[*openingView]
	leaks      ranking[leakView]
	lists      []prefixList // the lists that the page links to, by title
	technical  []fact
}

// tile is a number of the summary. If count is not 0, the tile filters the page: it shows the items with the tag.
type tile struct {
	count            int
	label, note, tag string
}

// The tags of items, which are policies and other NetworkPolicies. Each policy also has its state as a tag. In the page,
// tags are classes. Every item has tagAll.
const (
	tagAll      = "all"
	tagWide     = "wide"
	tagLeak     = "leak"
	tagExpiring = "expiring"
	tagLacking  = "lacking"
	tagUnused   = "unused"
)

// fact is a line of technical detail.
type fact struct{ name, value string }

// prefixList is a list of prefixes at the end of the page.
type prefixList struct {
	id, title string
	prefixes  []string
}

// builder builds a view. Policies share the lists: a thousand policies may name AMAZON, and the page has the prefixes
// of AMAZON once.
type builder struct {
	table    *awsranges.Table // nil if unknown
	madeAt   time.Time
	owners   *owners
	families map[int]bool // the address lengths of the CIDRs in force, in bits
	lists    []prefixList
	listIDs  map[string]string // by the title and the prefixes of a list

	// The results of service and of owners.describe.
	services     map[string]*serviceView
	descriptions map[netip.Prefix]string
}

// newView returns the view of a report. table may be nil.
func newView(report *status.Report, table *awsranges.Table) *view {
	b := &builder{
		table: table, madeAt: report.MadeAt, owners: newOwners(table), listIDs: make(map[string]string),
		services: make(map[string]*serviceView), descriptions: make(map[netip.Prefix]string),
	}
	inForce := make([]extent, len(report.Policies))
	for i, p := range report.Policies {
		if p.Current != nil {
			inForce[i] = extentOf(p.Current.Spec.Egress...)
		}
	}
	b.families = familiesOf(inForce)
	v := &view{cluster: report.Cluster, madeAt: formatTime(report.MadeAt), list: listText(report.Ranges), technical: technicalFacts(report)}
	if report.Ranges != nil && report.Ranges.Refused != "" {
		v.refused = "The agent refused a later list, so the addresses of this list stay open. The reason: " + report.Ranges.Refused
	}
	v.namespaces = b.namespaces(report.Policies, inForce)
	v.tiles = tiles(v.namespaces)
	v.openings, v.leaks = rankOpenings(v.namespaces), rankLeaks(v.namespaces)
	v.lists = b.lists
	slices.SortStableFunc(v.lists, func(a, b prefixList) int { return strings.Compare(a.title, b.title) })
	return v
}

// listText says in plain words which list of addresses the policies use.
func listText(ranges *status.Ranges) string {
	switch {
	case ranges == nil:
		return "unknown, so this page lacks the addresses of AWS services"
	case ranges.Published.IsZero():
		return "of an unknown date"
	}
	text := "of " + ranges.Published.UTC().Format("2 January 2006")
	if ranges.Confirmed != nil {
		text += "; still the latest on " + formatTime(*ranges.Confirmed)
	}
	return text
}

func formatTime(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04 UTC") }

// technicalFacts returns what identifies the ranges for a program.
func technicalFacts(report *status.Report) []fact {
	ranges := report.Ranges
	facts := []fact{{"Report made", report.MadeAt.UTC().Format(time.RFC3339)}}
	if ranges == nil {
		return append(facts, fact{"AWS ranges", "unknown"})
	}
	facts = append(facts, fact{"AWS ranges", "from " + ranges.Source}, fact{"syncToken", ranges.SyncToken}, fact{"Published", ranges.Published.UTC().Format(time.RFC3339)})
	if ranges.Confirmed != nil {
		facts = append(facts, fact{"Confirmed as the latest", ranges.Confirmed.UTC().Format(time.RFC3339)})
	}
	return append(facts, fact{"Held", formatCount(ranges.Held, "prefix", "prefixes") + " that AWS removed, still open for a time"})
}

// tiles returns the numbers of the summary: first the totals, then what needs a person, and then the other states that
// occur.
func tiles(namespaces []namespaceView) []tile {
	var policyCount, wideCount, leakCount int
	states, tags := make(map[status.State]int), make(map[string]int)
	for _, n := range namespaces {
		policyCount += len(n.policies)
		leakCount += len(n.leaks)
		for _, p := range n.policies {
			states[p.state]++
			if p.isWide {
				wideCount++
			}
			for _, tag := range p.tags {
				tags[tag]++
			}
		}
	}
	all := []tile{
		{count: len(namespaces), label: nounOf(len(namespaces), "Namespace", "Namespaces"), note: "that have policies", tag: tagAll},
		{count: policyCount, label: nounOf(policyCount, "Policy", "Policies"), note: "in these namespaces", tag: tagAll},
	}
	for _, state := range []status.State{status.Invalid, status.NameConflict} {
		all = append(all, stateTile(state, states[state]))
	}
	all = append(all,
		tile{count: wideCount, label: "Wide", note: "open more than a /8", tag: tagWide},
		tile{count: leakCount, label: nounOf(leakCount, "Leak", "Leaks"), note: "other NetworkPolicies that open egress", tag: tagLeak},
	)
	for _, t := range []tile{
		{label: "Fields missing", note: "that the platform requires", tag: tagLacking},
		{label: "Expiring", note: "expired, or within 30 days", tag: tagExpiring},
		{label: "Unused", note: "with an entry that no connection used", tag: tagUnused},
	} {
		if t.count = tags[t.tag]; t.count > 0 {
			all = append(all, t)
		}
	}
	for _, state := range []status.State{status.NamespaceExempt, status.RangesUnavailable, status.Guarded, status.Pending, status.Applied} {
		if states[state] > 0 {
			all = append(all, stateTile(state, states[state]))
		}
	}
	return all
}

func stateTile(state status.State, count int) tile {
	return tile{count: count, label: stateLabel(state), note: stateNotes[state], tag: string(state)}
}

// stateNotes says in a few words what a state means. page.html explains the states.
var stateNotes = map[status.State]string{
	status.Invalid:           "not applied as written",
	status.NameConflict:      "not applied",
	status.NamespaceExempt:   "nothing is written there",
	status.RangesUnavailable: "the addresses of a service are unknown",
	status.Guarded:           "cut by the platform's guardrails",
	status.Pending:           "not applied yet",
	status.Applied:           "in force as written",
}

// stateLabel returns a state in words.
func stateLabel(state status.State) string {
	switch state {
	case status.NameConflict:
		return "Name conflict"
	case status.NamespaceExempt:
		return "Exempt namespace"
	case status.RangesUnavailable:
		return "AWS ranges missing"
	}
	return string(state)
}

func nounOf(count int, singular, plural string) string {
	if count == 1 {
		return singular
	}
	return plural
}

// formatCount returns the count with the noun, in the plural unless the count is 1.
func formatCount(count int, singular, plural string) string {
	return groupDigits(strconv.Itoa(count)) + " " + nounOf(count, singular, plural)
}

func formatCIDRs(count int) string { return formatCount(count, "CIDR", "CIDRs") }

// formatAddressCounts returns the addresses of both families in words. It leaves out a family without addresses.
func formatAddressCounts(c addressCount) string {
	var families []string
	for _, family := range []struct{ count, name string }{{c.ipv4, "IPv4"}, {c.ipv6, "IPv6"}} {
		switch family.count {
		case "0":
		case "1", every:
			families = append(families, family.count+" "+family.name+" address")
		default:
			families = append(families, family.count+" "+family.name+" addresses")
		}
	}
	return cmp.Or(strings.Join(families, " and "), "no addresses")
}
