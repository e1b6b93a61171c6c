// Package page checks the output of "egress-agent status -o html" in a real browser. "make test-page" runs it: it needs
// Chromium, and axe-core in the file that AXE names.
package page

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/dom"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	if os.Getenv("AXE") == "" {
		fmt.Println("the page is checked by 'make test-page'")
		return
	}
	os.Exit(m.Run())
}

// sample returns a page with policies in several states, and with texts that look like markup.
func sample(t *testing.T) string {
	c := newCluster(t)
	c.add(t, "tenant-a", "egress", `{"allowedDestinations": [{"name": "s3", "awsService": "s3", "regions": ["us-east-1"], "ports": [443]}, {"name": "database", "cidr": "10.1.0.0/24", "ports": [5432]}, {"name": "six", "cidr": "2001:db8:7::/48", "ports": [443, {"port": 8000, "endPort": 8100}]}]}`, true)
	c.add(t, "tenant-a", "hostile", `{"allowedDestinations": [{"name": "</td><script>alert(1)</script><b onclick='x'>\"", "cidr": "10.3.0.0/16", "ports": [{"port": 53, "protocol": "UDP"}]}]}`, true)
	c.addOther("tenant-a", "legacy-allow-all")
	c.add(t, "tenant-b", "open", `{"defaultAction": "allow", "allowedDestinations": []}`, true)
	c.add(t, "tenant-c", "aws", `{"allowedDestinations": [{"name": "everything-aws", "awsService": "amazon"}]}`, true)
	c.add(t, "tenant-c", "waits", `{"allowedDestinations": [{"name": "partners", "cidr": "10.2.0.0/16", "ports": [443]}]}`, false)
	c.add(t, "tenant-d", "typo", `{"allowedDestinations": [{"name": "s3", "awsService": "s3", "regions": ["us-esat-1"]}, {"name": "db", "cidr": "10.1.0.5/24"}]}`, false)
	c.add(t, "tenant-e", "nothing", `{"allowedDestinations": []}`, true)
	c.add(t, "tenant-f", "taken", `{"allowedDestinations": []}`, false)
	c.addOther("tenant-f", "taken")
	return c.page(t)
}

func TestSearch(t *testing.T) {
	page := open(t, sample(t))
	for _, test := range []struct {
		query, found string
		policies     []string
	}{
		{"tenant-c", "2 of 8 policies match", []string{"tenant-c/aws", "tenant-c/waits"}},
		{"S3", "1 of 8 policies match", []string{"tenant-a/egress"}},
		{"tenant_a", "2 of 8 policies match", []string{"tenant-a/egress", "tenant-a/hostile"}},
		{"10.1.0.5", "2 of 8 policies reach 10.1.0.5", []string{"tenant-a/egress", "tenant-b/open"}},
		{"10.2.3.0/24", "2 of 8 policies reach 10.2.3.0/24", []string{"tenant-b/open", "tenant-c/waits"}},
		{"10.0.0.0/7", "1 of 8 policies reach 10.0.0.0/7", []string{"tenant-b/open"}},
		{"52.217.255.255", "3 of 8 policies reach 52.217.255.255", []string{"tenant-a/egress", "tenant-b/open", "tenant-c/aws"}},
		{"2001:db8:7:ffff::1", "2 of 8 policies reach 2001:db8:7:ffff::1", []string{"tenant-a/egress", "tenant-b/open"}},
		{"2600:1fa0:8100::", "3 of 8 policies reach 2600:1fa0:8100::", []string{"tenant-a/egress", "tenant-b/open", "tenant-c/aws"}},
		{"9.9.9.9", "1 of 8 policies reach 9.9.9.9", []string{"tenant-b/open"}},
		{"no such thing", "0 of 8 policies match", []string{}},
	} {
		found, policies := page.search(t, test.query)
		require.Equal(t, test.found, found)
		require.Equal(t, test.policies, policies, test.query)
	}
	page.isQuiet(t)
}

// TestRead requires that links lead to the prefixes, and that the browser does not interpret markup in texts.
func TestRead(t *testing.T) {
	page := open(t, sample(t))
	require.Zero(t, eval[int](t, page, `document.querySelectorAll("main script, main b").length`))
	require.True(t, eval[bool](t, page, `document.querySelector("main").textContent.includes("</td><script>alert(1)</scr" + "ipt><b onclick='x'>\"")`))
	page.do(t, chromedp.Click(chromedp.CSS("details.policy > summary")), chromedp.Click(chromedp.CSS("a.list")))
	require.True(t, eval[bool](t, page, `document.querySelector(":target").checkVisibility({contentVisibilityAuto: true}) && document.querySelector(":target").closest("details").open`), "a link opens the prefixes")
	require.Equal(t, "52.216.0.0/15\n2600:1fa0:8000::/39", eval[string](t, page, `document.querySelector(":target").textContent`))
	page.isQuiet(t)
}

func TestAccessible(t *testing.T) {
	file := sample(t)
	for _, name := range []string{"light", "dark"} {
		t.Run(name, func(t *testing.T) {
			page := open(t, file, scheme(name))
			eval[int](t, page, openPolicies)
			page.picture(t, name)
			eval[int](t, page, openAll)
			require.Empty(t, page.axe(t))
			page.isQuiet(t)
		})
	}
}

// TestNarrow opens the page at the width of a telephone.
func TestNarrow(t *testing.T) {
	page := open(t, sample(t), chromedp.EmulateViewport(400, 800))
	eval[int](t, page, openPolicies)
	page.picture(t, "narrow")
	require.Positive(t, eval[int](t, page, openAll))
	require.LessOrEqual(t, eval[int](t, page, "document.documentElement.scrollWidth"), 400, "the page fits into the width")
}

// TestWithoutScripts reads the page from the accessibility tree of a browser that runs no scripts.
func TestWithoutScripts(t *testing.T) {
	page := open(t, sample(t), chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		return err
	}))
	names := func() string {
		var all []string
		for _, node := range call(t, page, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{}).Nodes {
			if node.Name != nil && !node.Ignored {
				all = append(all, string(node.Name.Value))
			}
		}
		return strings.Join(all, "\n")
	}
	require.Contains(t, names(), "tenant-a/egress")
	require.NotContains(t, names(), "Search by namespace", "the page hides what needs a script")
	require.NotContains(t, names(), "10.1.0.0/24")
	document := call(t, page, dom.GetDocument, dom.GetDocumentParams{})
	summary := call(t, page, dom.QuerySelector, dom.QuerySelectorParams{NodeID: document.Root.NodeID, Selector: "details.policy > summary"})
	box := call(t, page, dom.GetBoxModel, dom.GetBoxModelParams{NodeID: summary.NodeID}).Model.Content
	page.do(t, chromedp.MouseClickXY(box[0]+5, box[1]+5))
	require.Contains(t, names(), "10.1.0.0/24", "a policy opens without a script")
	require.Contains(t, names(), "legacy-allow-all")
}

// TestMany has 1,000 policies, each with a service of thousands of prefixes.
func TestMany(t *testing.T) {
	c := newCluster(t)
	for i := range 1000 {
		c.add(t, fmt.Sprintf("tenant-%03d", i), "egress", fmt.Sprintf(`{"allowedDestinations": [{"name": "aws", "awsService": "amazon", "ports": [443]}, {"name": "db", "cidr": "10.%d.%d.0/24", "ports": [5432]}]}`, i/250, i%250), true)
	}
	file := c.page(t)
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Less(t, info.Size(), int64(1_500_000), "bytes")
	page := open(t, file)
	found, policies := page.search(t, "10.2.7.9")
	require.Equal(t, "1 of 1000 policies reach 10.2.7.9", found)
	require.Equal(t, []string{"tenant-507/egress"}, policies)
	found, _ = page.search(t, "3.5.4.9")
	require.Equal(t, "1000 of 1000 policies reach 3.5.4.9", found)
	found, policies = page.search(t, "tenant-99")
	require.Equal(t, "10 of 1000 policies match", found)
	require.Len(t, policies, 10)
	page.isQuiet(t)
}
