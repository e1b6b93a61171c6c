package page

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"

	"egress-agent/cmd/internal/cli"
)

// source is the page with sample content. Each element that Go code fills, repeats or removes has a slotAttribute.
//
//go:embed page.html
var source string

const slotAttribute = "data-slot"

// element is an element of the page. Its methods panic if page.html lacks the slot. page.html is a part of the program,
// so only a programming error can cause the panic.
type element struct{ *html.Node }

// parseTemplate returns the root of page.html.
func parseTemplate() element {
	root, err := html.Parse(strings.NewReader(source))
	if err != nil {
		panic(fmt.Sprintf("parse page.html: %v", err)) // the embedded text is constant
	}
	return element{root}
}

// slot returns the first descendant whose slotAttribute is name. It removes the attribute, so each slot is found once.
func (e element) slot(name string) element {
	mark := html.Attribute{Key: slotAttribute, Val: name}
	for node := range e.Descendants() {
		if i := slices.Index(node.Attr, mark); i >= 0 {
			node.Attr = slices.Delete(node.Attr, i, i+1)
			return element{node}
		}
	}
	panic(fmt.Sprintf("page.html has no slot %q here", name))
}

// setText replaces the content of the slot by a text.
func (e element) setText(slot, text string) { e.slot(slot).setLines(text) }

// setOptionalText replaces the content of the slot by a text, or removes the slot's element if the text is empty.
func (e element) setOptionalText(slot, text string) {
	if target := e.slot(slot); text != "" {
		target.setLines(text)
	} else {
		target.remove()
	}
}

// setLines replaces the content of the element by lines of text.
func (e element) setLines(lines ...string) {
	for e.FirstChild != nil {
		e.RemoveChild(e.FirstChild)
	}
	e.appendLines(lines...)
}

// appendLines adds lines of text as one text node; html.Render escapes it. No other function adds text to the page.
// Unprintable characters become visible escapes.
//
// It panics for elements whose content html.Render does not escape, such as script: a text could end the element there
// (https://html.spec.whatwg.org/multipage/parsing.html#serialising-html-fragments).
func (e element) appendLines(lines ...string) {
	switch e.DataAtom {
	case atom.Script, atom.Style, atom.Xmp, atom.Iframe, atom.Noembed, atom.Noframes, atom.Noscript, atom.Plaintext:
		panic(fmt.Sprintf("page.html has a slot in <%s>, whose content is not escaped", e.Data))
	}
	printable := make([]string, len(lines))
	for i, line := range lines {
		printable[i] = cli.Printable(line)
	}
	e.AppendChild(&html.Node{Type: html.TextNode, Data: strings.Join(printable, "\n")})
}

// setAttribute sets an attribute; html.Render escapes the value.
func (e element) setAttribute(key, value string) {
	value = cli.Printable(value)
	for i := range e.Attr {
		if e.Attr[i].Key == key {
			e.Attr[i].Val = value
			return
		}
	}
	e.Attr = append(e.Attr, html.Attribute{Key: key, Val: value})
}

// addClass adds a class to the classes that the element has in page.html.
func (e element) addClass(name string) {
	for _, attribute := range e.Attr {
		if attribute.Key == "class" {
			name = attribute.Val + " " + name
		}
	}
	e.setAttribute("class", name)
}

// keepIf removes the slot's element if keep is false.
func (e element) keepIf(slot string, keep bool) {
	if target := e.slot(slot); !keep {
		target.remove()
	}
}

// remove removes the element, and the line break after it.
func (e element) remove() {
	if next := e.NextSibling; isSpace(next) {
		e.Parent.RemoveChild(next)
	}
	e.Parent.RemoveChild(e.Node)
}

// repeat replaces the slot's element by one copy for each item, in order, and fills the copies. If there are no items,
// it only removes the element.
func repeat[T any](e element, slot string, items []T, fill func(element, T)) {
	template := e.slot(slot)
	for _, item := range items {
		copied := element{cloneNode(template.Node)}
		fill(copied, item)
		template.Parent.InsertBefore(copied.Node, template.Node)
		if next := template.NextSibling; isSpace(next) {
			template.Parent.InsertBefore(cloneNode(next), template.Node)
		}
	}
	template.remove()
}

// cloneNode returns a deep copy of node without a parent.
func cloneNode(node *html.Node) *html.Node {
	copied := &html.Node{Type: node.Type, DataAtom: node.DataAtom, Data: node.Data, Attr: slices.Clone(node.Attr)}
	for child := range node.ChildNodes() {
		copied.AppendChild(cloneNode(child))
	}
	return copied
}

func isSpace(node *html.Node) bool {
	return node != nil && node.Type == html.TextNode && strings.TrimSpace(node.Data) == ""
}

// contentSecurityPolicy returns a policy with which a browser uses the style and the script of the page, and loads
// nothing else.
func contentSecurityPolicy(root element) string {
	return "default-src 'none'; style-src " + root.digestOf(atom.Style) + "; script-src " + root.digestOf(atom.Script) +
		"; base-uri 'none'; form-action 'none'"
}

// digestOf returns the digest of the first element of a kind, in the form that a Content-Security-Policy uses.
func (e element) digestOf(kind atom.Atom) string {
	for node := range e.Descendants() {
		if node.DataAtom == kind {
			digest := sha256.Sum256([]byte(node.FirstChild.Data))
			return "'sha256-" + base64.StdEncoding.EncodeToString(digest[:]) + "'"
		}
	}
	panic(fmt.Sprintf("page.html has no <%s>", kind))
}
