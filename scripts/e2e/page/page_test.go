// Package page checks the output of "egress-agent status -o html" in a real browser. "make test-page" runs it: it needs
// Chromium, and axe-core in the file that AXE names.
package page

import (
	"fmt"
	"os"
	"testing"
	"time"

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
	c.addOther("tenant-f", "taken", "10.1.0.0/24")
	return c.page(t)
}

func TestSearch(t *testing.T) {
	page := open(t, sample(t))
	for _, test := range []struct {
		query, found string
		shown        []string
	}{
		{"tenant-c", "Showing 2 of 8 policies and 0 of 2 other NetworkPolicies, in 1 of 6 namespaces, with tenant-c", []string{"tenant-c/waits", "tenant-c/aws"}},
		{"S3", "Showing 1 of 8 policies and 0 of 2 other NetworkPolicies, in 1 of 6 namespaces, with S3", []string{"tenant-a/egress"}},
		{"tenant_a", "Showing 2 of 8 policies and 1 of 2 other NetworkPolicies, in 1 of 6 namespaces, with tenant_a", []string{"tenant-a/egress", "tenant-a/hostile", "tenant-a/legacy-allow-all"}},
		{"tenant-a/egress", "Showing 1 of 8 policies and 0 of 2 other NetworkPolicies, in 1 of 6 namespaces, with tenant-a/egress", []string{"tenant-a/egress"}},
		{"10.1.0.5", "Showing 2 of 8 policies and 2 of 2 other NetworkPolicies, in 3 of 6 namespaces, with address 10.1.0.5", []string{"tenant-f/taken", "tenant-a/egress", "tenant-a/legacy-allow-all", "tenant-b/open"}},
		{"10.2.3.0/24", "Showing 2 of 8 policies and 1 of 2 other NetworkPolicies, in 3 of 6 namespaces, with address 10.2.3.0/24", []string{"tenant-c/waits", "tenant-a/legacy-allow-all", "tenant-b/open"}},
		{"10.0.0.0/7", "Showing 1 of 8 policies and 1 of 2 other NetworkPolicies, in 2 of 6 namespaces, with address 10.0.0.0/7", []string{"tenant-a/legacy-allow-all", "tenant-b/open"}},
		{"52.217.255.255", "Showing 3 of 8 policies and 1 of 2 other NetworkPolicies, in 3 of 6 namespaces, with address 52.217.255.255", []string{"tenant-c/aws", "tenant-a/egress", "tenant-a/legacy-allow-all", "tenant-b/open"}},
		{"2001:db8:7:ffff::1", "Showing 2 of 8 policies and 1 of 2 other NetworkPolicies, in 2 of 6 namespaces, with address 2001:db8:7:ffff::1", []string{"tenant-a/egress", "tenant-a/legacy-allow-all", "tenant-b/open"}},
		{"2600:1fa0:8100::", "Showing 3 of 8 policies and 1 of 2 other NetworkPolicies, in 3 of 6 namespaces, with address 2600:1fa0:8100::", []string{"tenant-c/aws", "tenant-a/egress", "tenant-a/legacy-allow-all", "tenant-b/open"}},
		{"10.1.9.5", "Showing 1 of 8 policies and 1 of 2 other NetworkPolicies, in 2 of 6 namespaces, with address 10.1.9.5", []string{"tenant-a/legacy-allow-all", "tenant-b/open"}},
		{"no such thing", "Showing 0 of 8 policies and 0 of 2 other NetworkPolicies, in 0 of 6 namespaces, with no such thing", []string{}},
	} {
		found, shown := page.search(t, test.query)
		require.Equal(t, test.found, found)
		require.Equal(t, test.shown, shown, test.query)
	}
	page.isQuiet(t)
}

// TestFilter presses the numbers of the summary, by click and by keyboard.
func TestFilter(t *testing.T) {
	page := open(t, sample(t))
	const everything = "8 policies in 6 namespaces"
	require.Equal(t, everything, page.found(t))
	require.Equal(t, "true", eval[string](t, page, `document.querySelector('`+tile("all")+`').getAttribute("aria-pressed")`))
	require.False(t, eval[bool](t, page, `document.getElementById("clear").checkVisibility()`), "there is nothing to clear")

	page.do(t, chromedp.Click(chromedp.CSS(tile("Invalid"))))
	require.Equal(t, "Showing 1 of 8 policies and 0 of 2 other NetworkPolicies, in 1 of 6 namespaces: invalid", page.found(t))
	require.Equal(t, []string{"tenant-d/typo"}, page.shown(t))
	require.Equal(t, "true false", eval[string](t, page, `['`+tile("Invalid")+`', '`+tile("all")+`'].map(b => document.querySelector(b).getAttribute("aria-pressed")).join(" ")`))

	page.do(t, chromedp.Focus(chromedp.CSS(tile("leak"))), chromedp.KeyEvent(" "))
	require.Equal(t, "Showing 1 of 8 policies and 2 of 2 other NetworkPolicies, in 3 of 6 namespaces: invalid or leaks", page.found(t))
	require.Equal(t, []string{"tenant-d/typo", "tenant-f/taken", "tenant-a/legacy-allow-all"}, page.shown(t), "two filters add up")

	found, shown := page.search(t, "tenant-a")
	require.Equal(t, "Showing 0 of 8 policies and 1 of 2 other NetworkPolicies, in 1 of 6 namespaces: invalid or leaks, with tenant-a", found)
	require.Equal(t, []string{"tenant-a/legacy-allow-all"}, shown, "the search narrows the filters")

	page.do(t, chromedp.Focus(chromedp.CSS("#clear")), chromedp.KeyEvent("\r"))
	require.Equal(t, everything, page.found(t))
	require.Equal(t, "search", eval[string](t, page, "document.activeElement.id"), "the button that cleared is gone")

	page.do(t, chromedp.Click(chromedp.CSS(tile("wide"))))
	require.Equal(t, []string{"tenant-b/open"}, page.shown(t))
	page.do(t, chromedp.Click(chromedp.CSS(tile("wide"))))
	require.Equal(t, everything, page.found(t), "a second click releases the button")

	require.Equal(t, "Namespaces Policies Invalid Name conflict Wide Leaks Pending Applied",
		eval[string](t, page, `Array.from(document.querySelectorAll(".tiles .label")).map(b => b.textContent).join(" ")`))
	page.isQuiet(t)
}

// TestZeroIsNoButton has a cluster without anything to filter but applied policies.
func TestZeroIsNoButton(t *testing.T) {
	c := newCluster(t)
	c.add(t, "tenant-a", "egress", `{"allowedDestinations": []}`, true)
	page := open(t, c.page(t))
	require.Equal(t, "Namespace Policy Applied", eval[string](t, page, `Array.from(document.querySelectorAll(".tiles button .label")).map(b => b.textContent).join(" ")`))
	require.Equal(t, "0 Invalid", eval[string](t, page, `document.querySelector(".tiles .none strong").textContent + " " + document.querySelector(".tiles .none .label").textContent`))
}

// TestRead requires that links lead to what they name, and that the browser does not interpret markup in texts.
func TestRead(t *testing.T) {
	page := open(t, sample(t))
	require.Equal(t, "tenant-d tenant-f tenant-c tenant-a tenant-b tenant-e", eval[string](t, page, `Array.from(document.querySelectorAll(".facts th")).map(h => h.textContent).join(" ")`), "the worst come first")
	require.Zero(t, eval[int](t, page, `document.querySelectorAll("main script, main b").length`))
	require.True(t, eval[bool](t, page, `document.querySelector("main").textContent.includes("</td><script>alert(1)</scr" + "ipt><b onclick='x'>\"")`))

	isOpen := `document.querySelector(":target").checkVisibility({contentVisibilityAuto: true}) && document.querySelector(":target").closest("details").open`
	page.do(t, chromedp.Click(chromedp.CSS("tbody:nth-of-type(4) summary")), chromedp.Click(chromedp.CSS("tbody:nth-of-type(4) a.list")))
	require.True(t, eval[bool](t, page, isOpen), "a link opens the prefixes")
	require.Equal(t, "52.216.0.0/15\n2600:1fa0:8000::/39", eval[string](t, page, `document.querySelector(":target").textContent`))

	page.search(t, "tenant-d")
	page.do(t, chromedp.Click(chromedp.CSS(".leaks a")))
	require.True(t, eval[bool](t, page, isOpen), "a link shows an item that a filter hid")
	require.Equal(t, "legacy-allow-all", eval[string](t, page, `document.querySelector(":target h3").textContent`))

	page.do(t, chromedp.Click(chromedp.CSS("#close")))
	require.Zero(t, eval[int](t, page, `document.querySelectorAll("tbody details[open]").length`))
	page.do(t, chromedp.Click(chromedp.CSS(".facts th")))
	require.Equal(t, "tenant-d", eval[string](t, page, `document.querySelector("tbody:has(details[open]) th").textContent`), "a click on a row opens it")
	page.do(t, chromedp.Click(chromedp.CSS("#open")))
	require.Equal(t, 6, eval[int](t, page, `document.querySelectorAll("tbody details[open]").length`))
	page.isQuiet(t)
}

func TestAccessible(t *testing.T) {
	file := sample(t)
	for _, test := range []struct {
		name, scheme string
		width        int64
	}{{"light", "light", 1280}, {"dark", "dark", 1280}, {"narrow", "light", phone}, {"narrow-dark", "dark", phone}} {
		t.Run(test.name, func(t *testing.T) {
			page := open(t, file, scheme(test.scheme), chromedp.EmulateViewport(test.width, 900))
			eval[int](t, page, openNamespaces)
			page.picture(t, test.name)
			eval[int](t, page, openAll)
			require.LessOrEqual(t, eval[int64](t, page, "document.documentElement.scrollWidth"), test.width, "the page fits into the width")
			require.Empty(t, page.axe(t))
			page.do(t, chromedp.Click(chromedp.CSS(tile("Invalid"))))
			require.Empty(t, page.axe(t), "with a filter")
			page.isQuiet(t)
		})
	}
}

// phone is the width of a telephone, in CSS pixels.
const phone = 390

// TestPrint requires that paper has everything that a reader can open on the screen, and no controls.
func TestPrint(t *testing.T) {
	for name, before := range map[string][]chromedp.Action[chromedp.Void]{"with scripts": nil, "without scripts": {withoutScripts()}} {
		t.Run(name, func(t *testing.T) {
			page := open(t, sample(t), before...)
			page.do(t, emulate(emulation.SetEmulatedMediaParams{Media: "print"}), chromedp.EmulateViewport(794, 1123)) // A4
			page.picture(t, "print")
			// The accessibility tree has what is visible. The page runs no scripts here.
			names := page.names(t)
			for _, text := range []string{"tenant-a", "Invalid region: us-esat-1", "10.1.0.0/24", "legacy-allow-all", "52.216.0.0/15", "syncToken", "The agent is behind or not running."} {
				require.Contains(t, names, text)
			}
			for _, control := range []string{"Search by namespace", "Open all", "Clear filters"} {
				require.NotContains(t, names, control)
			}
		})
	}
	page := open(t, sample(t))
	page.do(t, chromedp.Click(chromedp.CSS(tile("Invalid"))), emulate(emulation.SetEmulatedMediaParams{Media: "print"}))
	require.Contains(t, page.names(t), "Showing 1 of 8 policies", "paper says that it has only a part")
	require.Equal(t, "static", eval[string](t, page, `getComputedStyle(document.querySelector(".filter")).position`))
}

// TestWithoutScripts reads the page from the accessibility tree of a browser that runs no scripts.
func TestWithoutScripts(t *testing.T) {
	page := open(t, sample(t), withoutScripts())
	names := page.names(t)
	require.Contains(t, names, "tenant-a")
	require.Contains(t, names, "S3 us-east-1, TCP 443", "the widest opening of tenant-a")
	for _, control := range []string{"Search by namespace", "Open all", "Clear filters"} {
		require.NotContains(t, names, control, "the page hides what needs a script")
	}
	require.NotContains(t, names, "</td><script>")
	document := call(t, page, dom.GetDocument, dom.GetDocumentParams{})
	require.Zero(t, call(t, page, dom.QuerySelector, dom.QuerySelectorParams{NodeID: document.Root.NodeID, Selector: ".tiles button"}).NodeID)
	summary := call(t, page, dom.QuerySelector, dom.QuerySelectorParams{NodeID: document.Root.NodeID, Selector: "tbody:nth-of-type(4) summary"})
	call(t, page, dom.ScrollIntoViewIfNeeded, dom.ScrollIntoViewIfNeededParams{NodeID: summary.NodeID})
	box := call(t, page, dom.GetBoxModel, dom.GetBoxModelParams{NodeID: summary.NodeID}).Model.Content
	page.do(t, chromedp.MouseClickXY(box[0]+5, box[1]+5))
	require.Contains(t, page.names(t), "</td><script>", "a namespace opens without a script")
}

// TestMany has 5,000 policies. Each fifth has a service of thousands of prefixes, and each hundredth waits. The test logs
// the times, which depend on the machine, and sets them no limit.
func TestMany(t *testing.T) {
	const policies = 5000
	c := newCluster(t)
	for i := range policies {
		service := "s3"
		if i%5 == 0 {
			service = "amazon"
		}
		c.add(t, fmt.Sprintf("tenant-%04d", i), "egress", fmt.Sprintf(`{"allowedDestinations": [{"name": "aws", "awsService": %q, "ports": [443]}, {"name": "db", "cidr": "10.%d.%d.0/24", "ports": [5432]}]}`, service, i/250, i%250), i%100 != 0)
	}
	start := time.Now()
	file := c.page(t)
	made := time.Since(start)
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Less(t, info.Size(), int64(policies*1500), "bytes")
	page := open(t, file)
	require.Equal(t, "5000 policies in 5000 namespaces", page.found(t))
	paint := eval[float64](t, page, `performance.getEntriesByName("first-contentful-paint")[0].startTime`)
	filter := eval[float64](t, page, measured(`document.querySelector('`+tile("Pending")+`').click()`))
	require.Equal(t, "Showing 50 of 5000 policies, in 50 of 5000 namespaces: pending", page.found(t))
	clear := eval[float64](t, page, measured(`document.getElementById("clear").click()`))
	search := eval[float64](t, page, measured(`document.getElementById("search").value = "10.2.7.9"; document.getElementById("search").dispatchEvent(new Event("input"))`))
	require.Equal(t, []string{"tenant-0507/egress"}, page.shown(t))
	t.Logf("%d policies: %d bytes, made in %v; milliseconds to the first paint: %.0f, to filter: %.0f, to clear: %.0f, to search: %.0f", policies, info.Size(), made.Round(time.Millisecond), paint, filter, clear, search)

	found, shown := page.search(t, "3.5.4.9")
	require.Equal(t, "Showing 1000 of 5000 policies, in 1000 of 5000 namespaces, with address 3.5.4.9", found)
	require.Len(t, shown, policies/5)
	_, shown = page.search(t, "tenant-099")
	require.Len(t, shown, 10)
	page.isQuiet(t)
}

// measured is an expression for the milliseconds from an action to the frame that shows its result.
func measured(action string) string {
	return `new Promise(resolve => { const start = performance.now(); ` + action + `; requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - start))); })`
}
