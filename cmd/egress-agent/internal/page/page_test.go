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
				OtherPolicies: []status.OtherPolicy{
					{Name: "all" + text, PodSelector: text, IsFromPolicy: true, AllowsEverything: true},
					{Name: "some" + text, PodSelector: text, Spec: &networkPolicy(networkingv1.NetworkPolicyEgressRule{To: peers("10.0.0.0/8", text)}).Spec},
				},
				Current: networkPolicy(networkingv1.NetworkPolicyEgressRule{To: peers(text)}),
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
