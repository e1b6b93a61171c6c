package main

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html"
	"io"
	"net/netip"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"egress-agent/cmd/internal/cli"
	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
	"egress-agent/pkg/status"
)

// pageFrame is all of the page but its body.
//
//go:embed page.html
var pageFrame string

// page is one that is being written. Each list of prefixes stands in it once, at its end, however many
// policies have it: a thousand of them may name AMAZON.
type page struct {
	b        strings.Builder
	table    *awsranges.Table // nil for none
	families map[int]bool     // the address lengths of the CIDRs in force, in bits; empty where there is none
	lists    []prefixList
	listed   map[string]string // the id of a list, by its title and prefixes
}

type prefixList struct {
	id, title string
	prefixes  []string
}

// writePage writes a report as one page that needs nothing else: no network, and no script to read it. The
// same report gives the same bytes.
func writePage(w io.Writer, r *report, table *awsranges.Table) error {
	p := &page{table: table, listed: make(map[string]string), families: familiesOf(r.Policies)}
	p.header(r)
	p.write("<main>\n<div class=\"search\" role=\"search\" hidden>\n<label for=\"search\">Search by namespace, service or address</label>\n" +
		"<input id=\"search\" type=\"search\" autocomplete=\"off\" spellcheck=\"false\" placeholder=\"tenant-a, s3 or 10.1.0.5\">\n" +
		"<output id=\"found\" for=\"search\"></output>\n</div>\n<h2>Policies</h2>\n")
	if len(r.Policies) == 0 {
		p.write("<p>There is none.</p>\n")
	}
	for _, each := range r.Policies {
		p.policy(each)
	}
	if len(p.lists) > 0 {
		p.write("<h2>Address ranges</h2>\n")
	}
	for _, list := range p.lists {
		p.write("<details class=\"ranges\"><summary><h3>%s</h3></summary>\n<div class=\"prefixes\" id=\"%s\">", list.title, list.id)
		for i, prefix := range list.prefixes {
			if i > 0 {
				p.write("\n")
			}
			p.write("%s", prefix)
		}
		p.write("</div></details>\n")
	}
	p.write("</main>\n<footer>Written by egress-agent status, which reads the cluster and changes nothing. Policies of a namespace add up: what one allows, another cannot take away.</footer>")
	whole := strings.NewReplacer("CONTENT-SECURITY-POLICY", contentSecurityPolicy(), "BODY", p.b.String()).Replace(pageFrame)
	_, err := io.WriteString(w, whole)
	return err
}

// write is the one way into the page. Arguments are text, and escaped; the format alone is markup.
func (p *page) write(format string, args ...any) {
	escaped := make([]any, len(args))
	for i, arg := range args {
		escaped[i] = html.EscapeString(cli.Printable(fmt.Sprint(arg)))
	}
	fmt.Fprintf(&p.b, format, escaped...)
}

// contentSecurityPolicy lets a browser use what the page itself holds, and load nothing.
func contentSecurityPolicy() string {
	return "default-src 'none'; style-src " + hashOf("style") + "; script-src " + hashOf("script") + "; base-uri 'none'; form-action 'none'"
}

func hashOf(element string) string {
	_, rest, _ := strings.Cut(pageFrame, "<"+element+">")
	content, _, _ := strings.Cut(rest, "</"+element+">")
	digest := sha256.Sum256([]byte(content))
	return "'sha256-" + base64.StdEncoding.EncodeToString(digest[:]) + "'"
}

func (p *page) header(r *report) {
	p.write("<header>\n<h1>Who may reach what</h1>\n<p class=\"faint\">Egress policies of %s, as of %s</p>\n", r.Cluster, moment(r.Made))
	switch {
	case r.Ranges == nil:
		p.write("<p class=\"faint\">The AWS ranges in use are not known.</p>\n")
	default:
		p.write("<p class=\"faint\">AWS ranges: syncToken %s, published %s", r.Ranges.SyncToken, moment(r.Ranges.Published))
		if r.Ranges.Confirmed != nil {
			p.write(", found to be the latest %s before", duration.HumanDuration(r.Ranges.age()))
		}
		p.write("; from %s</p>\n", r.Ranges.Source)
		if r.Ranges.Refused != "" {
			p.write("<p class=\"flag\">A later document was refused: %s</p>\n", r.Ranges.Refused)
		}
	}
	counts := make(map[status.State]int)
	for _, each := range r.Policies {
		counts[each.State]++
	}
	p.write("<ul class=\"counts\">\n<li><strong>%s</strong> policies</li>\n", len(r.Policies))
	for _, state := range status.States {
		p.write("<li><strong>%s</strong> ", counts[state])
		p.state(state)
		p.write("</li>\n")
	}
	p.write("</ul>\n</header>\n")
}

func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

func (p *page) state(state status.State) {
	p.write("<span class=\"state %s\">%s</span>", state, state)
}

func (p *page) policy(each status.Policy) {
	p.write("<details class=\"policy %s\"", each.State)
	if allowsEverything(each) {
		p.write(" data-everything")
	}
	p.write("><summary><h3>%s/%s</h3> ", each.Namespace, each.Name)
	p.state(each.State)
	p.glance(each)
	p.write("</summary>\n")
	if len(each.Messages) > 0 {
		p.write("<ul class=\"messages\">\n")
		for _, message := range each.Messages {
			p.write("<li>%s</li>\n", message)
		}
		p.write("</ul>\n")
	}
	if each.DefaultAction == policy.Allow {
		p.write("<p class=\"flag\">defaultAction is allow: every destination is open, whatever is listed</p>\n")
	}
	p.destinations(each)
	if p.needsInForce(each) {
		p.inForce(each.Current.Spec)
	}
	p.others(each)
	if each.NetworkPolicy != "" {
		p.write("<p class=\"faint\">NetworkPolicy %s: %s, %s port slots of the CIDR with the most</p>\n", each.NetworkPolicy, counted(each.CIDRs, "CIDR"), portSlots(each))
	}
	p.write("</details>\n")
}

// glance says in a few words what a policy opens: what opens everything must not look like what opens nothing.
func (p *page) glance(each status.Policy) {
	if allowsEverything(each) {
		p.write(" <strong class=\"open\">every destination is open</strong>")
		return
	}
	const shown = 5
	names := []string{}
	switch {
	case each.DefaultAction == "":
		names = append(names, "not readable")
	case len(each.Destinations) == 0:
		names = append(names, "nothing but DNS")
	}
	for _, d := range each.Destinations[:min(shown, len(each.Destinations))] {
		names = append(names, d.Name)
	}
	if more := len(each.Destinations) - shown; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	p.write(" <span class=\"faint\">%s; %s in force</span>", strings.Join(names, ", "), counted(each.CIDRs, "CIDR"))
}

func allowsEverything(each status.Policy) bool {
	return each.Current != nil && netpol.AllowsEverything(each.Current.Spec)
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (p *page) destinations(each status.Policy) {
	if len(each.Destinations) == 0 {
		if each.DefaultAction == policy.Deny {
			p.write("<p>It allows nothing but DNS.</p>\n")
		}
		return
	}
	p.write("<table><caption>Destinations of the policy</caption>\n<thead><tr><th scope=\"col\">Name</th><th scope=\"col\">Where</th><th scope=\"col\">Ports</th><th scope=\"col\" class=\"number\">CIDRs in force</th></tr></thead>\n<tbody>\n")
	for _, d := range each.Destinations {
		p.write("<tr><th scope=\"row\">%s</th><td>", d.Name)
		p.where(d)
		p.write("</td><td>%s</td><td class=\"number\">%s</td></tr>\n", portsText(d.Ports), countText(d.CIDRs))
	}
	p.write("</tbody></table>\n")
}

// where links a service to its prefixes, where they are known.
func (p *page) where(d status.Destination) {
	if d.Service == "" {
		p.write("<code class=\"cidr\">%s</code>", d.CIDR)
		return
	}
	regions := d.Regions
	if len(regions) == 0 {
		regions = []string{""}
	}
	for i, region := range regions {
		if i > 0 {
			p.write(", ")
		}
		title := d.Service + " " + orElse(region, "in every region")
		if p.table == nil || p.table.Regions(d.Service) == nil {
			p.write("%s", title)
			continue
		}
		var prefixes []string
		for _, prefix := range p.table.Lookup(d.Service, region) {
			if len(p.families) == 0 || p.families[prefix.Addr().BitLen()] {
				prefixes = append(prefixes, prefix.String())
			}
		}
		p.link(title, title, prefixes)
	}
}

// link links to a list of prefixes.
func (p *page) link(text, title string, prefixes []string) {
	if len(prefixes) == 0 {
		p.write("%s (no addresses)", text)
		return
	}
	content := strings.Join(prefixes, "\n")
	id, known := p.listed[title+"\n"+content]
	if !known {
		id = fmt.Sprintf("ranges-%d", len(p.lists)+1)
		p.listed[title+"\n"+content] = id
		p.lists = append(p.lists, prefixList{id, fmt.Sprintf("%s: %s", title, counted(len(prefixes), "CIDR")), prefixes})
	}
	p.write("<a class=\"list\" href=\"#%s\">%s</a>", id, text)
}

func portsText(ports []string) string { return orElse(strings.Join(ports, ", "), "every port") }

func countText(count *int) string {
	if count == nil {
		return "not known"
	}
	return fmt.Sprint(*count)
}

// needsInForce says whether the destinations do not tell what is in force.
func (p *page) needsInForce(each status.Policy) bool {
	if each.Current == nil {
		return false
	}
	for _, d := range each.Destinations {
		if d.Service != "" && (p.table == nil || p.table.Regions(d.Service) == nil) {
			return true
		}
	}
	return each.State != status.Applied
}

// inForce shows what the NetworkPolicy opens.
func (p *page) inForce(spec networkingv1.NetworkPolicySpec) {
	p.write("<h4>In force</h4>\n<ul class=\"plain\">\n")
	for _, rule := range spec.Egress {
		var cidrs []string
		pods := len(rule.To) == 0
		for _, peer := range rule.To {
			if peer.IPBlock != nil {
				cidrs = append(cidrs, peer.IPBlock.CIDR)
			} else {
				pods = true
			}
		}
		p.write("<li>")
		switch {
		case len(rule.To) == 0:
			p.write("every destination")
		case pods:
			p.write("Pods that a selector names")
		}
		if pods && len(cidrs) > 0 {
			p.write(", ")
		}
		if len(cidrs) > 0 {
			p.link(counted(len(cidrs), "CIDR"), "In force", cidrs)
		}
		p.write(": %s</li>\n", portsText(netpol.PortNames(rule.Ports)))
	}
	if len(spec.Egress) == 0 {
		p.write("<li>nothing</li>\n")
	}
	p.write("</ul>\n")
}

func (p *page) others(each status.Policy) {
	if len(each.OtherPolicies) == 0 {
		return
	}
	p.write("<h4>What else opens egress in %s</h4>\n<ul class=\"plain\">\n", each.Namespace)
	for _, other := range each.OtherPolicies {
		p.write("<li>NetworkPolicy %s", other.Name)
		if other.Policy {
			p.write(", made from another policy")
		}
		if other.Pods != "" {
			p.write(", for the Pods with %s", other.Pods)
		}
		if other.Everything {
			p.write(": <strong>every destination</strong>")
		}
		p.write("</li>\n")
	}
	p.write("</ul>\n")
}

// familiesOf tells the cluster's address families by what is in force: the agent's flags are not known here.
func familiesOf(policies []status.Policy) map[int]bool {
	families := make(map[int]bool)
	for _, each := range policies {
		if each.Current == nil {
			continue
		}
		for _, rule := range each.Current.Spec.Egress {
			for _, peer := range rule.To {
				if peer.IPBlock == nil {
					continue
				}
				if prefix, err := netip.ParsePrefix(peer.IPBlock.CIDR); err == nil {
					families[prefix.Addr().BitLen()] = true
				}
			}
		}
	}
	return families
}
