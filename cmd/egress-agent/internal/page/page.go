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
	page.setText("scope", v.scope)
	page.setText("ranges", v.ranges)
	page.setOptionalText("refused", v.refused)
	page.setText("policy-count", strconv.Itoa(len(v.policies)))
	repeat(page, "state-count", v.states, func(item element, s stateCount) {
		item.setText("count", strconv.Itoa(s.count))
		fillState(item.slot("counted-state"), s.state)
	})
	page.keepIf("no-policies", len(v.policies) == 0)
	repeat(page, "policy", v.policies, fillPolicy)
	page.keepIf("lists-title", len(v.lists) > 0)
	repeat(page, "prefix-list", v.lists, func(item element, list prefixList) {
		item.setText("title", list.title)
		prefixes := item.slot("prefixes")
		prefixes.setAttribute("id", list.id)
		prefixes.setLines(list.prefixes...)
	})
}

func fillState(badge element, state status.State) {
	badge.addClass(string(state))
	badge.setLines(string(state))
}

func fillPolicy(details element, p policyView) {
	details.addClass(string(p.state))
	if p.allowsEverything {
		details.setAttribute("data-everything", "") // for the search by address
	}
	details.setText("name", p.name)
	fillState(details.slot("state"), p.state)
	details.keepIf("everything", p.allowsEverything)
	details.setOptionalText("summary", p.summary)

	messages := details.slot("messages")
	repeat(messages, "message", p.messages, func(item element, message string) { item.setLines(message) })
	removeIfEmpty(messages, p.messages)

	details.keepIf("default-allow", p.defaultAllow)
	details.keepIf("only-dns", p.onlyDNS)
	destinations := details.slot("destinations")
	repeat(destinations, "destination", p.destinations, fillDestination)
	removeIfEmpty(destinations, p.destinations)

	details.keepIf("in-force-title", len(p.inForce) > 0)
	inForce := details.slot("in-force")
	repeat(inForce, "rule", p.inForce, func(item element, rule []phrase) { fillPhrases(item, rule) })
	removeIfEmpty(inForce, p.inForce)

	details.setOptionalText("others-title", p.othersTitle)
	others := details.slot("others")
	repeat(others, "other", p.others, func(item element, other otherView) {
		item.setText("other-name", other.text)
		item.keepIf("other-everything", other.everything)
	})
	removeIfEmpty(others, p.others)
	details.setOptionalText("usage", p.usage)
}

func fillDestination(row element, d destinationView) {
	row.setText("destination-name", d.name)
	row.setOptionalText("cidr", d.cidr)
	service := row.slot("service")
	fillPhrases(service, d.service)
	removeIfEmpty(service, d.service)
	row.setText("ports", d.ports)
	row.setText("cidr-count", d.cidrCount)
}

// fillPhrases replaces the content of e by phrases. In page.html, e has one sample link, which fillPhrases copies for
// each link.
func fillPhrases(e element, phrases []phrase) {
	sample := e.slot("list")
	for e.FirstChild != nil {
		e.RemoveChild(e.FirstChild)
	}
	for _, p := range phrases {
		if p.listID == "" {
			e.appendLines(p.text)
			continue
		}
		link := element{cloneNode(sample.Node)}
		link.setAttribute("href", "#"+p.listID)
		link.setLines(p.text)
		e.AppendChild(link.Node)
	}
}

func removeIfEmpty[T any](e element, items []T) {
	if len(items) == 0 {
		e.remove()
	}
}
