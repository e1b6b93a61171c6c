package page

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// tab is a page in a real browser. It records requests and errors.
type tab struct {
	ctx context.Context

	mu       sync.Mutex
	requests []string // without the page itself
	errors   []string
}

// open opens a file in a new browser, after some actions.
func open(t *testing.T, file string, before ...chromedp.Action[chromedp.Void]) *tab {
	t.Helper()
	browser := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			browser = path
			break
		}
	}
	require.NotEmpty(t, browser, "there is no Chromium here: install the package chromium")
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(browser), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	bounded, cancelAll := context.WithTimeout(t.Context(), 2*time.Minute) // a browser that hangs fails the test
	ctx, cancelBrowser := chromedp.NewExecAllocator(bounded, options...)
	ctx, cancel := chromedp.NewContext(ctx)
	t.Cleanup(func() { cancel(); cancelBrowser(); cancelAll() })
	page, url := &tab{ctx: ctx}, "file://"+file
	require.NoError(t, chromedp.Listen(ctx, func(event any) {
		page.mu.Lock()
		defer page.mu.Unlock()
		switch event := event.(type) {
		case *network.EventRequestWillBeSent:
			if address, _, _ := strings.Cut(event.Request.URL, "#"); address != url {
				page.requests = append(page.requests, event.Request.URL)
			}
		case *log.EventEntryAdded:
			page.errors = append(page.errors, fmt.Sprintf("%+v", event.Entry))
		case *runtime.EventExceptionThrown:
			page.errors = append(page.errors, fmt.Sprintf("%+v", event.ExceptionDetails))
		case *runtime.EventConsoleAPICalled:
			page.errors = append(page.errors, fmt.Sprintf("%+v", event))
		}
	}))
	call(t, page, log.Enable, cdp.Empty{})
	call(t, page, network.Enable, network.EnableParams{})
	page.do(t, chromedp.EmulateViewport(1200, 900))
	page.do(t, before...)
	page.do(t, chromedp.Navigate(url))
	return page
}

func (page *tab) do(t *testing.T, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	require.NoError(t, chromedp.Do(page.ctx, actions...))
}

// call runs a command of the browser's protocol.
func call[P, R any](t *testing.T, page *tab, command cdp.Command[P, R], params P) R {
	t.Helper()
	result, err := chromedp.Call(page.ctx, command, params)
	require.NoError(t, err)
	return result
}

// eval returns the value of an expression in the page.
func eval[T any](t *testing.T, page *tab, expression string) T {
	t.Helper()
	value, err := chromedp.Run(page.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	require.NoError(t, err)
	return value
}

// isQuiet requires that the page has sent no request and reported no error.
func (page *tab) isQuiet(t *testing.T) {
	t.Helper()
	page.mu.Lock()
	defer page.mu.Unlock()
	require.Empty(t, page.requests, "it needs no network")
	require.Empty(t, page.errors)
}

// search types into the search box. It returns the text that says how much the page shows, and what it shows.
func (page *tab) search(t *testing.T, query string) (found string, shown []string) {
	t.Helper()
	page.do(t, chromedp.KeyEvent("/"))
	require.Equal(t, "search", eval[string](t, page, "document.activeElement.id"), "/ goes to the search box")
	page.do(t, chromedp.KeyEvent("\x1b")) // Escape
	require.Empty(t, eval[string](t, page, `document.getElementById("search").value`), "Escape empties it")
	page.do(t, chromedp.KeyEvent(query))
	return page.found(t), page.shown(t)
}

// shown returns the policies and the other NetworkPolicies that the filters show, as NAMESPACE/NAME, in the order of the
// page.
func (page *tab) shown(t *testing.T) []string {
	t.Helper()
	return eval[[]string](t, page, `Array.from(document.querySelectorAll(".item")).filter(item => item.closest("[hidden]") === null)
		.map(item => item.closest("tbody").querySelector("th").textContent + "/" + item.querySelector("h3").textContent)`)
}

// found returns the text that says how much the page shows.
func (page *tab) found(t *testing.T) string {
	t.Helper()
	return eval[string](t, page, `document.getElementById("found").textContent`)
}

// tile returns the CSS selector of a number of the summary, by its tag.
func tile(tag string) string { return `.tiles button[data-tag="` + tag + `"]` }

// scheme sets the reader's preference for light or dark.
func scheme(value string) chromedp.Action[chromedp.Void] {
	return emulate(emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: value}}})
}

// emulate sets the medium, such as print, or its features.
func emulate(media emulation.SetEmulatedMediaParams) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, media)
		return err
	})
}

// withoutScripts runs no scripts of the page.
func withoutScripts() chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		return err
	})
}

// openAll opens everything that can be, so that it is checked too, and openNamespaces what a picture has room for.
const (
	openAll        = `document.querySelectorAll("details").forEach(d => { d.open = true; }); document.querySelectorAll("details").length`
	openNamespaces = `document.querySelectorAll("tbody details").forEach(d => { d.open = true; }); document.querySelectorAll("tbody details").length`
)

// axe runs all checks of axe-core, including contrast, and returns what they find wrong.
func (page *tab) axe(t *testing.T) []string {
	t.Helper()
	source, err := os.ReadFile(os.Getenv("AXE"))
	require.NoError(t, err)
	page.do(t, chromedp.Evaluate[chromedp.Void](string(source)))
	result := eval[string](t, page, `axe.run(document, {resultTypes: ["violations", "incomplete", "passes"]}).then(r => JSON.stringify({passes: r.passes.map(p => p.id),
		wrong: r.violations.concat(r.incomplete).map(v => v.id + ": " + v.help + ": " + v.nodes.map(n => n.html + " " + n.failureSummary).join(" | "))}))`)
	var checked struct{ Passes, Wrong []string }
	require.NoError(t, json.Unmarshal([]byte(result), &checked))
	for _, check := range []string{"color-contrast", "html-has-lang", "document-title", "label", "region", "heading-order"} {
		require.Contains(t, checked.Passes, check, "axe-core did not check everything: %s", strings.Join(checked.Wrong, "\n"))
	}
	return checked.Wrong
}

// names returns the names in the accessibility tree: the text that a reader can perceive. It runs no script in the page.
func (page *tab) names(t *testing.T) string {
	t.Helper()
	var all []string
	for _, node := range call(t, page, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{}).Nodes {
		if node.Name != nil && !node.Ignored {
			all = append(all, string(node.Name.Value))
		}
	}
	return strings.Join(all, "\n")
}

// picture saves a picture of the page in bin/page.
func (page *tab) picture(t *testing.T, name string) {
	t.Helper()
	png, err := chromedp.Run(page.ctx, chromedp.FullScreenshot(100))
	require.NoError(t, err)
	dir := "../../../bin/page"
	require.NoError(t, os.MkdirAll(dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644))
}
