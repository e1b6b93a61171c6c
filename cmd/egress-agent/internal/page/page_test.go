package page

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/policy"
	"egress-agent/pkg/status"
)

// markup ends every element and attribute in which the page could have text.
const markup = `</td></script></style>--><script>alert(1)</script><img src=x onerror=alert(1)> " onclick="alert(1)" '&lt;`

func readTable(t *testing.T) *awsranges.Table {
	table, err := awsranges.ReadFile("../../../../testdata/ranges/ip-ranges.json")
	require.NoError(t, err)
	return table
}

func networkPolicy(rules ...networkingv1.NetworkPolicyEgressRule) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{Spec: networkingv1.NetworkPolicySpec{Egress: rules}}
}

func peers(cidrs ...string) []networkingv1.NetworkPolicyPeer {
	var list []networkingv1.NetworkPolicyPeer
	for _, cidr := range cidrs {
		list = append(list, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: cidr}})
	}
	return list
}

// fullReport fills every slot of the page with the text.
func fullReport(text string) *status.Report {
	confirmed := time.Unix(1700000000, 0)
	return &status.Report{
		Cluster: text,
		Ranges:  &status.Ranges{Source: text, SyncToken: text, Refused: text, Confirmed: &confirmed},
		Policies: []status.Policy{
			{
				Namespace: text, Name: text, State: status.Pending, Messages: []string{text}, NetworkPolicy: text, DefaultAction: policy.Deny,
				Destinations: []status.Destination{
					{Name: text, CIDR: text, Ports: []string{text}},
					{Name: text, Service: text, Regions: []string{text}},
					{Name: text, Service: "S3", Regions: []string{text, "us-east-1"}},
				},
				OtherPolicies: []status.OtherPolicy{{Name: text, PodSelector: text, IsFromPolicy: true, AllowsEverything: true}},
				Current:       networkPolicy(networkingv1.NetworkPolicyEgressRule{To: peers(text)}),
			},
			{Namespace: text, Name: text, State: status.Applied, DefaultAction: policy.Allow, Current: networkPolicy(networkingv1.NetworkPolicyEgressRule{})},
			{Namespace: text, Name: text, State: status.State(text), DefaultAction: policy.Deny},
		},
	}
}

func written(t *testing.T, report *status.Report, table *awsranges.Table) string {
	var b bytes.Buffer
	require.NoError(t, Write(&b, report, table))
	return b.String()
}

// outline returns the elements of a page and the names of their attributes, in order.
func outline(t *testing.T, page string) []string {
	root, err := html.Parse(strings.NewReader(page))
	require.NoError(t, err)
	var lines []string
	for node := range root.Descendants() {
		if node.Type == html.TextNode {
			continue
		}
		line := node.Data
		for _, attribute := range node.Attr {
			line += " " + attribute.Key
		}
		lines = append(lines, line)
	}
	return lines
}

func TestWriteNeverMakesMarkupOfText(t *testing.T) {
	table := readTable(t)
	page := written(t, fullReport(markup), table)
	require.Equal(t, outline(t, written(t, fullReport("text"), table)), outline(t, page), "the text changes no element and no attribute")
	require.GreaterOrEqual(t, strings.Count(page, html.EscapeString(markup)), 20, "the text is in the page")
	require.NotContains(t, page, markup)
}

func TestWriteFillsEverySlot(t *testing.T) {
	for name, report := range map[string]*status.Report{"full": fullReport("text"), "empty": {}} {
		page := written(t, report, readTable(t))
		require.NotContains(t, page, slotAttribute, name)
		require.NotContains(t, page, "tenant-a/egress", "%s: sample content of page.html is left", name)
	}
	require.Contains(t, source, "tenant-a/egress", "page.html has sample content")
}

// TestContentSecurityPolicyAllowsOwnCode computes the digests from the written text, as a browser does.
func TestContentSecurityPolicyAllowsOwnCode(t *testing.T) {
	page := written(t, fullReport("text"), nil)
	for _, element := range []string{"style", "script"} {
		_, rest, _ := strings.Cut(page, "<"+element+">")
		content, _, ok := strings.Cut(rest, "</"+element+">")
		require.True(t, ok)
		digest := sha256.Sum256([]byte(content))
		require.Contains(t, html.UnescapeString(page), element+"-src 'sha256-"+base64.StdEncoding.EncodeToString(digest[:])+"'")
	}
	require.Contains(t, html.UnescapeString(page), `content="default-src 'none'; `)
}

func TestTextPanicsWhereHTMLIsNotEscaped(t *testing.T) {
	root := parseTemplate()
	for node := range root.Descendants() {
		if node.DataAtom == atom.Script || node.DataAtom == atom.Style {
			require.Panics(t, func() { element{node}.setLines("text") }, node.Data)
		}
	}
	require.Panics(t, func() { root.slot("no-such-slot") })
}

// TestNoHTMLInGo reads the package's own code: page.html holds all markup.
func TestNoHTMLInGo(t *testing.T) {
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		code, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NotRegexp(t, `["`+"`"+`][^"`+"`"+`\n]*</?[a-z]+[ >]`, string(code), file)
	}
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
			Current: networkPolicy(networkingv1.NetworkPolicyEgressRule{To: peers("10.1.0.0/24")}),
		},
		{
			Namespace: "tenant-b", Name: "egress", State: status.Pending, DefaultAction: policy.Deny, NetworkPolicy: "egress",
			Current: networkPolicy(
				networkingv1.NetworkPolicyEgressRule{To: []networkingv1.NetworkPolicyPeer{{}}},
				networkingv1.NetworkPolicyEgressRule{To: append(peers("10.1.0.0/24"), networkingv1.NetworkPolicyPeer{})},
			),
		},
		{Namespace: "tenant-c", Name: "open", DefaultAction: policy.Allow, State: status.Applied, Current: networkPolicy(networkingv1.NetworkPolicyEgressRule{})},
		{Namespace: "tenant-d", Name: "closed", State: status.Invalid, Current: networkPolicy()},
	}}
	v := newView(report, table)
	require.Equal(t, "The AWS ranges are unknown.", v.ranges)

	first := v.policies[0]
	require.Equal(t, "s3, db; 1 CIDR in force", first.summary)
	require.Equal(t, "NetworkPolicy egress: 1 CIDR, most port slots that a CIDR uses: 3/24", first.usage)
	require.Equal(t, []destinationView{
		{name: "s3", ports: "TCP 443", cidrCount: "3", service: []phrase{{"S3 us-east-1", "ranges-1"}, {text: ", "}, {"S3 us-west-2", "ranges-2"}}},
		{name: "db", cidr: "10.1.0.0/24", ports: "every port", cidrCount: "unknown"},
	}, first.destinations)
	require.Empty(t, first.inForce, "the destinations show what is in force")
	require.Equal(t, "S3 us-east-1: 2 CIDRs", v.lists[0].title)

	require.Equal(t, [][]phrase{
		{{text: "selected Pods"}, {text: ": every port"}},
		{{text: "selected Pods, "}, {"1 CIDR", "ranges-3"}, {text: ": every port"}},
	}, v.policies[1].inForce)
	require.True(t, v.policies[1].onlyDNS)

	require.True(t, v.policies[2].allowsEverything)
	require.Empty(t, v.policies[2].summary, "it must not look like a policy that opens nothing")
	require.Equal(t, [][]phrase{{{text: "nothing"}}}, v.policies[3].inForce)
	require.Equal(t, "unreadable; 0 CIDRs in force", v.policies[3].summary)

	without := newView(report, nil)
	require.Equal(t, []phrase{{text: "S3 us-east-1"}, {text: ", "}, {text: "S3 us-west-2"}}, without.policies[0].destinations[0].service, "no table, no links")
	require.NotEmpty(t, without.policies[0].inForce, "without a table the destinations do not show the prefixes")
}
