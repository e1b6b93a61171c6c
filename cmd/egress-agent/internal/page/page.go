// Package page writes the report of "egress-agent status" as one HTML page. The page works without a network and
// without scripts.
//
// newView turns a report into a view: strings and lists without markup. All markup is in page.html. fill copies a view
// into the nodes of page.html. A tenant's text can only become a text node, which html.Render escapes.
//
// The package belongs to the command, as the command's tables do. It uses the escapes of cmd/internal/cli, and packages
// in pkg must not import cmd.
//
// The package does not use html/template, which would make the agent 50 % larger. html/template calls methods by name,
// so the linker would keep all exported methods of client-go.
package page

import (
	"cmp"
	"fmt"
	"io"
	"strconv"

	"golang.org/x/net/html"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/status"
)

// Write writes the report to w. table has the AWS ranges of the report, to list the prefixes of services; it may be
// nil. Equal arguments give equal bytes.
func Write(w io.Writer, report *status.Report, table *awsranges.Table) error {
	page := parseTemplate()
	fill(page, newView(report, table))
	if err := html.Render(w, page.Node); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func fill(page element, v *view) {
	page.slot("content-security-policy").setAttribute("content", contentSecurityPolicy(page))
	page.setText("cluster", v.cluster)
	page.setText("made-at", v.madeAt)
	page.setText("list-date", v.list)
	page.setOptionalText("refused", v.refused)
	repeat(page, "tile", v.tiles, fillTile)
	page.keepIf("lists-link", len(v.lists) > 0)

	page.keepIf("no-policies", len(v.namespaces) == 0)
	namespaces := page.slot("namespaces")
	repeat(namespaces, "namespace", v.namespaces, fillNamespace)
	removeIfEmpty(namespaces, v.namespaces)

	fillOpenings(page, v.openings)
	fillLeaks(page, v.leaks)

	page.keepIf("lists-title", len(v.lists) > 0)
	repeat(page, "prefix-list", v.lists, func(item element, list prefixList) {
		item.setText("title", list.title)
		prefixes := item.slot("prefixes")
		prefixes.setAttribute("id", list.id)
		prefixes.setLines(list.prefixes...)
	})
	repeat(page.slot("technical"), "fact", v.technical, func(item element, f fact) {
		item.setText("fact-name", f.name)
		item.setText("fact-value", f.value)
	})
}

// fillTile marks a tile that filters; the script of the page makes the tile a button. A count of 0 filters nothing.
func fillTile(item element, t tile) {
	if t.count > 0 {
		item.setAttribute("data-tag", t.tag)
		item.addClass(t.tag)
	} else {
		item.addClass("none")
	}
	item.setText("count", groupDigits(strconv.Itoa(t.count)))
	item.setText("label", t.label)
	item.setText("note", t.note)
}

func fillState(badge element, state status.State) {
	badge.addClass(string(state))
	badge.setLines(stateLabel(state))
}

func fillNamespace(body element, n namespaceView) {
	body.setText("namespace-name", n.name)
	fillState(body.slot("worst"), n.state)
	body.setOptionalText("worst-note", n.stateNote)
	body.setText("policy-count", strconv.Itoa(len(n.policies)))
	body.setText("cidrs", groupDigits(strconv.Itoa(n.cidrCount)))
	fillAddresses(body, n.addresses)
	widest := body.slot("widest")
	widest.setLines(cmp.Or(n.widest, "nothing"))
	if n.addresses.isEvery() {
		widest.addClass("bad")
	}
	body.setText("leak-count", strconv.Itoa(len(n.leaks)))
	body.keepIf("leaks-everything", n.leaksEverything)
	body.setText("summary", n.summary)
	body.setOptionalText("governed", n.governed)
	repeat(body, "policy", n.policies, fillPolicy)
	repeat(body, "leak", n.leaks, fillLeak)
}

func fillAddresses(row element, count addressCount) {
	row.setText("ipv4", count.ipv4)
	row.setText("ipv6", count.ipv6)
}

func fillPolicy(item element, p policyView) {
	item.setAttribute("id", p.id)
	item.addClass(string(p.state))
	if p.isWide {
		item.addClass(tagWide)
	}
	for _, tag := range p.tags {
		item.addClass(tag)
	}
	if p.allowsEverything {
		item.setAttribute("data-everything", "") // for the search by address
	}
	item.setText("name", p.name)
	fillState(item.slot("state"), p.state)
	item.keepIf("wide", p.isWide)
	item.setOptionalText("in-force-text", p.inForceText)

	messages := item.slot("messages")
	repeat(messages, "message", p.messages, func(item element, message string) { item.setLines(message) })
	removeIfEmpty(messages, p.messages)

	findings := item.slot("findings")
	repeat(findings, "finding", p.findings, func(item element, finding string) { item.setLines(finding) })
	removeIfEmpty(findings, p.findings)

	item.keepIf("default-allow", p.defaultAllow)
	item.keepIf("only-dns", p.onlyDNS)
	destinations := item.slot("destinations")
	destinations.keepIf("destinations-title", len(p.inForce) > 0)
	repeat(destinations, "destination", p.destinations, fillDestination)
	removeIfEmpty(destinations, p.destinations)

	item.keepIf("in-force-title", len(p.inForce) > 0)
	fillRules(item.slot("in-force"), p.inForce)
	item.setOptionalText("usage", p.usage)
}

func fillDestination(row element, d destinationView) {
	row.setText("destination-name", d.name)
	fillPhrases(row.slot("where"), d.where)
	row.setOptionalText("belongs", d.belongs)
	row.setText("ports", d.ports)
	row.setText("cidr-count", d.cidrCount)
	row.setText("destination-ipv4", d.ipv4)
	row.setText("destination-ipv6", d.ipv6)
}

func fillLeak(item element, l leakView) {
	item.setAttribute("id", l.id)
	if l.addresses.isEvery() {
		item.setAttribute("data-everything", "")
	}
	item.setText("leak-name", l.name)
	item.keepIf("leak-everything", l.addresses.isEvery())
	item.setText("leak-text", "another NetworkPolicy that opens egress, "+l.pods+": "+formatAddressCounts(l.addresses))
	fillRules(item.slot("leak-rules"), l.rules)
}

func fillRules(list element, rules []ruleView) {
	repeat(list, "rule", rules, func(item element, rule ruleView) {
		fillPhrases(item.slot("rule-where"), rule.where)
		item.setOptionalText("rule-ports", rule.portsAfterWhere())
	})
	removeIfEmpty(list, rules)
}

func fillOpenings(page element, ranked ranking[*openingView]) {
	page.keepIf("no-openings", len(ranked.items) == 0)
	table := page.slot("openings")
	repeat(table, "opening", ranked.items, func(row element, o *openingView) {
		fillPhrases(row.slot("where"), o.where)
		row.setText("ports", o.ports)
		fillAddresses(row, o.addresses)
		repeat(row.slot("opened-by"), "opener", o.policies, fillReference)
		row.setOptionalText("more-openers", moreText(o.more, "and %s more"))
	})
	removeIfEmpty(table, ranked.items)
	page.setOptionalText("more-openings", moreText(ranked.more, "%s narrower openings are not in this table."))
}

func fillLeaks(page element, ranked ranking[leakView]) {
	page.keepIf("no-leaks", len(ranked.items) == 0)
	table := page.slot("leak-ranking")
	repeat(table, "ranked-leak", ranked.items, func(row element, l leakView) {
		fillReference(row.slot("leak-link"), reference{l.id, l.namespace + "/" + l.name})
		row.setText("leak-opens", l.opens)
		row.setText("leak-pods", l.pods)
		fillAddresses(row, l.addresses)
	})
	removeIfEmpty(table, ranked.items)
	page.setOptionalText("more-leaks", moreText(ranked.more, "%s narrower NetworkPolicies are not in this table."))
}

// fillReference makes a link of page.html a link to an item.
func fillReference(link element, r reference) {
	link.setAttribute("href", "#"+r.id)
	link.setLines(r.name)
}

// moreText returns the text with the count, or "" if count is 0.
func moreText(count int, format string) string {
	if count == 0 {
		return ""
	}
	return fmt.Sprintf(format, groupDigits(strconv.Itoa(count)))
}

// fillPhrases replaces the content of e by phrases. In page.html, e has a sample CIDR and a sample link, which
// fillPhrases copies.
func fillPhrases(e element, phrases []phrase) {
	cidr, link := e.slot("cidr"), e.slot("list")
	for e.FirstChild != nil {
		e.RemoveChild(e.FirstChild)
	}
	for _, p := range phrases {
		switch {
		case p.isCIDR:
			code := element{cloneNode(cidr.Node)}
			code.setLines(p.text)
			e.AppendChild(code.Node)
		case p.listID != "":
			copied := element{cloneNode(link.Node)}
			fillReference(copied, reference{p.listID, p.text})
			e.AppendChild(copied.Node)
		default:
			e.appendLines(p.text)
		}
	}
}

func removeIfEmpty[T any](e element, items []T) {
	if len(items) == 0 {
		e.remove()
	}
}
