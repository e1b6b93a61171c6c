package page

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/policy"
	"egress-agent/pkg/status"
)

func opens(cidrs ...string) networkingv1.NetworkPolicyEgressRule {
	return networkingv1.NetworkPolicyEgressRule{To: peers(cidrs...)}
}

// onlyPolicy returns the view of a policy that is alone in its namespace.
func onlyPolicy(t *testing.T, v *view, namespace string) policyView {
	for _, n := range v.namespaces {
		if n.name == namespace {
			require.Len(t, n.policies, 1)
			return n.policies[0]
		}
	}
	require.Fail(t, "the view has no namespace "+namespace)
	return policyView{}
}

func TestViewOfPolicy(t *testing.T) {
	table := readTable(t)
	three := 3
	report := &status.Report{Policies: []status.Policy{
		{
			Namespace: "tenant-a", Name: "egress", State: status.Applied, DefaultAction: policy.Deny, NetworkPolicy: "egress", CIDRs: 1, PortSlots: 3, MaxPortSlots: 24,
			Destinations: []status.Destination{
				{Name: "s3", Service: "S3", Regions: []string{"us-east-1", "us-west-2"}, Ports: []string{"TCP 443"}, CIDRs: &three},
				{Name: "db", CIDR: "10.1.0.0/24"},
			},
			Current: networkPolicy(opens("10.1.0.0/24")),
		},
		{
			Namespace: "tenant-b", Name: "egress", State: status.Pending, DefaultAction: policy.Deny, NetworkPolicy: "egress",
			Current: networkPolicy(
				networkingv1.NetworkPolicyEgressRule{To: []networkingv1.NetworkPolicyPeer{{}}},
				networkingv1.NetworkPolicyEgressRule{To: append(peers("10.1.0.0/24"), networkingv1.NetworkPolicyPeer{})},
				opens("10.2.0.0/24", "10.3.0.0/24"),
			),
		},
		{Namespace: "tenant-c", Name: "open", DefaultAction: policy.Allow, State: status.Applied, Current: networkPolicy(networkingv1.NetworkPolicyEgressRule{})},
		{Namespace: "tenant-d", Name: "closed", State: status.Invalid, Current: networkPolicy()},
	}}
	v := newView(report, table)

	a := onlyPolicy(t, v, "tenant-a")
	require.Equal(t, "s3, db", a.summary)
	require.Equal(t, "1 CIDR in force: 256 IPv4 addresses", a.inForceText)
	require.Equal(t, "NetworkPolicy egress. Most port slots that a CIDR uses: 3/24", a.usage)
	require.Equal(t, []destinationView{
		{name: "s3", ports: "TCP 443", cidrCount: "3", ipv4: "768", ipv6: "0",
			where: []phrase{{text: "S3 us-east-1", listID: "ranges-1"}, {text: ", "}, {text: "S3 us-west-2", listID: "ranges-2"}}},
		{name: "db", where: []phrase{{text: "10.1.0.0/24", isCIDR: true}}, belongs: "private", ports: "every port", cidrCount: "unknown", ipv4: "256", ipv6: "0"},
	}, a.destinations)
	require.Empty(t, a.inForce, "the destinations show what is in force")
	require.Equal(t, "In force: 2 CIDRs", v.lists[0].title)
	require.Equal(t, "S3 us-east-1: 2 CIDRs", v.lists[1].title)

	b := onlyPolicy(t, v, "tenant-b")
	require.Equal(t, []ruleView{
		{[]phrase{{text: "selected Pods"}}, "every port"},
		{[]phrase{{text: "selected Pods, "}, {text: "10.1.0.0/24", isCIDR: true}}, "every port"},
		{[]phrase{{text: "2 CIDRs", listID: "ranges-3"}}, "every port"},
	}, b.inForce)
	require.True(t, b.onlyDNS)

	c := onlyPolicy(t, v, "tenant-c")
	require.True(t, c.allowsEverything && c.isWide)
	require.Equal(t, "every destination", c.summary, "it must not look like a policy that opens nothing")
	require.Equal(t, "every destination is open", c.inForceText)
	require.Equal(t, "nothing", textOf(onlyPolicy(t, v, "tenant-d").inForce[0].where))
	require.Equal(t, "unreadable", onlyPolicy(t, v, "tenant-d").summary)

	without := onlyPolicy(t, newView(report, nil), "tenant-a")
	require.Equal(t, []phrase{{text: "S3 us-east-1"}, {text: ", "}, {text: "S3 us-west-2"}}, without.destinations[0].where, "no table, no links")
	require.Equal(t, "unknown", without.destinations[0].ipv4)
	require.NotEmpty(t, without.inForce, "without a table the destinations do not show the prefixes")
}

func TestHeaderInPlainWords(t *testing.T) {
	confirmed := time.Date(2026, 11, 24, 7, 30, 0, 0, time.UTC)
	ranges := &status.Ranges{Source: "ConfigMap egress-system/egress-ranges", SyncToken: "1700000000", Published: time.Unix(1700000000, 0), Confirmed: &confirmed, Held: 1, Refused: "it has no IPv4 rows"}
	v := newView(&status.Report{MadeAt: confirmed.Add(time.Hour), Ranges: ranges}, nil)
	require.Equal(t, "24 November 2026, 08:30 UTC", v.madeAt)
	require.Equal(t, "of 14 November 2023; still the latest on 24 November 2026, 07:30 UTC", v.list)
	require.Contains(t, v.refused, "it has no IPv4 rows")
	require.Contains(t, v.technical, fact{"syncToken", "1700000000"})
	require.Contains(t, v.technical, fact{"Held", "1 prefix that AWS removed, still open for a time"})

	ranges.Confirmed = nil
	require.Equal(t, "of 14 November 2023", newView(&status.Report{Ranges: ranges}, nil).list)
	require.Equal(t, "of an unknown date", newView(&status.Report{Ranges: &status.Ranges{}}, nil).list)
	require.Contains(t, newView(&status.Report{}, nil).list, "unknown")
}

// mixedReport has two namespaces for each rule of the order, with names against the order.
func mixedReport() *status.Report {
	everything := networkingv1.NetworkPolicyEgressRule{}
	leak := func(name string, rule networkingv1.NetworkPolicyEgressRule, isEverything bool) []status.OtherPolicy {
		return []status.OtherPolicy{{Name: name, Spec: &networkPolicy(rule).Spec, AllowsEverything: isEverything}}
	}
	p := func(namespace, name string, state status.State, others []status.OtherPolicy, rules ...networkingv1.NetworkPolicyEgressRule) status.Policy {
		result := status.Policy{Namespace: namespace, Name: name, State: state, DefaultAction: policy.Deny, NetworkPolicy: name,
			CIDRs: len(rules), OtherPolicies: others, Current: networkPolicy(rules...)}
		for _, rule := range rules {
			for _, peer := range rule.To {
				result.Destinations = append(result.Destinations, status.Destination{Name: "to", CIDR: peer.IPBlock.CIDR})
			}
		}
		return result
	}
	report := &status.Report{Policies: []status.Policy{
		p("a-narrow", "one", status.Applied, nil, opens("10.1.0.0/24")),
		p("b-narrow", "one", status.Applied, nil, opens("10.1.0.0/24")),
		p("c-wide", "one", status.Applied, nil, opens("10.0.0.0/7"), opens("10.1.0.0/16")),
		p("d-six", "one", status.Applied, nil, opens("2000::/3")),
		p("e-open", "one", status.Applied, nil, everything),
		p("f-leak", "one", status.Applied, leak("legacy", opens("10.0.0.0/8"), false), opens("10.0.0.0/8")),
		p("g-leaks-all", "one", status.Applied, leak("all", everything, true), opens("10.1.0.0/24")),
		p("h-pending", "one", status.Pending, nil),
		p("i-unknown", "one", status.RangesUnavailable, nil),
		p("j-exempt", "one", status.NamespaceExempt, nil),
		{Namespace: "k-conflict", Name: "one", State: status.NameConflict, OtherPolicies: leak("one", opens("192.0.2.0/24"), false)},
		p("l-invalid", "fine", status.Applied, nil, opens("10.1.0.0/24")),
		p("l-invalid", "typo", status.Invalid, nil),
		p("l-invalid", "wide", status.Applied, nil, opens("10.1.0.0/16")),
	}}
	for i := range report.Policies[11:] { // each policy lists the NetworkPolicies of the others
		for _, name := range []string{"fine", "typo", "wide"} {
			if p := &report.Policies[11+i]; p.Name != name {
				p.OtherPolicies = append(p.OtherPolicies, status.OtherPolicy{Name: name, IsFromPolicy: true})
			}
		}
	}
	return report
}

func TestNamespacesWorstFirst(t *testing.T) {
	v := newView(mixedReport(), nil)
	var names []string
	for _, n := range v.namespaces {
		names = append(names, n.name)
	}
	require.Equal(t, []string{"l-invalid", "k-conflict", "j-exempt", "i-unknown", "h-pending", "g-leaks-all", "f-leak", "e-open", "d-six", "c-wide", "a-narrow", "b-narrow"}, names)

	invalid := v.namespaces[0]
	require.Equal(t, status.Invalid, invalid.state)
	require.Equal(t, "1 of 3", invalid.stateNote)
	require.Equal(t, "typo, wide, fine", invalid.summary, "the worst policy first, and then the widest")
	require.Equal(t, "65,536", invalid.addresses.ipv4, "10.1.0.0/24 lies inside 10.1.0.0/16")
	require.Equal(t, "10.1.0.0/16, every port", invalid.widest)
	require.Empty(t, invalid.leaks, "the NetworkPolicies of its own policies are no leaks")

	require.Equal(t, "one", v.namespaces[1].leaks[0].name, "the NetworkPolicy in conflict belongs to no policy")
	require.True(t, v.namespaces[5].leaksEverything)
	require.Equal(t, addressCount{ipv4: "every", ipv6: "every", share: 1, lesserShare: 1}, v.namespaces[7].addresses)
	require.Equal(t, "33,554,432", v.namespaces[9].addresses.ipv4)
	require.Equal(t, "2^125", v.namespaces[8].addresses.ipv6)
}

// TestTilesCountWhatTheyFilter compares each number of the summary with the items that have its tag in the page.
func TestTilesCountWhatTheyFilter(t *testing.T) {
	report := mixedReport()
	counts := map[string]int{}
	for _, tile := range newView(report, nil).tiles {
		counts[tile.label] = tile.count
	}
	require.Equal(t, map[string]int{"Namespaces": 12, "Policies": 14, "Invalid": 1, "Name conflict": 1, "Wide": 3, "Leaks": 3,
		"Exempt namespace": 1, "AWS ranges missing": 1, "Pending": 1, "Applied": 9}, counts, "a /8 is not wide")

	page := written(t, report, nil)
	require.Equal(t, 17, strings.Count(page, ` class="item `), "14 policies and 3 leaks")
	for tag, count := range map[string]int{"policy": 14, "leak": 3, "Invalid": 1, "NameConflict": 1, "wide": 3, "Applied": 9} {
		items := 0
		for _, rest := range strings.Split(page, ` class="item `)[1:] {
			classes, _, _ := strings.Cut(rest, `"`)
			items += strings.Count(" "+classes+" ", " "+tag+" ")
		}
		require.Equal(t, count, items, tag)
	}
	require.Contains(t, page, `<li data-tag="wide"`)

	empty := written(t, &status.Report{}, nil)
	require.NotContains(t, empty, "<li data-tag", "a 0 filters nothing")
	require.Contains(t, empty, "There are no policies.")
}

func TestRankings(t *testing.T) {
	v := newView(mixedReport(), nil)
	var openings []string
	for _, o := range v.openings.items {
		var policies []string
		for _, p := range o.policies {
			policies = append(policies, p.name)
		}
		openings = append(openings, fmt.Sprintf("%s %s %d", textOf(o.where), policies, o.more))
	}
	require.Equal(t, []string{
		"every destination [e-open/one] 0",
		"2000::/3 [d-six/one] 0",
		"10.0.0.0/7 [c-wide/one] 0",
		"10.0.0.0/8 [f-leak/one] 0",
		"10.1.0.0/16 [l-invalid/wide c-wide/one] 0",
		"10.1.0.0/24 [l-invalid/fine g-leaks-all/one a-narrow/one] 1",
	}, openings, "equal openings are one item")

	var leaks []string
	for _, l := range v.leaks.items {
		leaks = append(leaks, l.namespace+"/"+l.name+" "+l.opens)
	}
	require.Equal(t, []string{"g-leaks-all/all every destination: every port", "f-leak/legacy 10.0.0.0/8: every port", "k-conflict/one 192.0.2.0/24: every port"}, leaks)

	many := &status.Report{}
	for i := range 50 {
		name := fmt.Sprintf("tenant-%02d", i)
		many.Policies = append(many.Policies, status.Policy{Namespace: name, Name: "egress", State: status.Pending, NetworkPolicy: "egress",
			Current:       networkPolicy(opens(fmt.Sprintf("10.%d.0.0/16", i))),
			OtherPolicies: []status.OtherPolicy{{Name: "legacy", Spec: &networkPolicy(opens("10.0.0.0/8")).Spec}}})
	}
	v = newView(many, nil)
	require.Len(t, v.openings.items, maxRanked)
	require.Equal(t, 30, v.openings.more)
	require.Equal(t, 30, v.leaks.more)
	require.Contains(t, written(t, many, nil), "30 narrower openings are not in this table.")
}

// TestLinksHaveTargets requires that each link of the page leads to an element of the page.
func TestLinksHaveTargets(t *testing.T) {
	for name, report := range map[string]*status.Report{"full": fullReport("text"), "mixed": mixedReport(), "empty": {}} {
		page := written(t, report, readTable(t))
		links := strings.Split(page, ` href="#`)[1:]
		require.NotEmpty(t, links)
		for _, rest := range links {
			id, _, _ := strings.Cut(rest, `"`)
			require.Equal(t, 1, strings.Count(page, ` id="`+id+`"`), "%s: %s", name, id)
		}
	}
}
