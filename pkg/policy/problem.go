package policy

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Problem is one thing wrong with a document, or worth a warning: what, and where.
type Problem struct {
	// Message names the value and, where there is one, the way out. One line, no full stop.
	Message string `json:"message"`
	// Path is the field's place in the document, such as allowedDestinations[1].ports[0].
	// It is "policy.json" for the document as a whole, and "data" for a ConfigMap without one.
	Path string `json:"path"`
}

// String gives MESSAGE (PATH).
func (p Problem) String() string { return p.Message + " (" + p.Path + ")" }

// Problems are in document order. Nil or empty: none.
type Problems []Problem

// mostShown bounds what one message holds: an API server passes a refusal on whole, and a tenant
// reads no thousand lines. The list itself is always complete.
const mostShown = 100

// Error gives every problem in one line, as a refusal shows them.
func (ps Problems) Error() string {
	var b strings.Builder
	b.WriteString("Policy validation failed: ")
	for i, p := range ps {
		if i > 0 {
			b.WriteString("; ")
		}
		if i == mostShown {
			fmt.Fprintf(&b, "and %d more", len(ps)-i)
			break
		}
		b.WriteString(p.String())
	}
	return b.String()
}

// Show makes a value from a document fit for one line of a message: as it is when short and
// printable, else quoted and cut, so that it can neither flood nor forge a log or a terminal.
func Show(value string) string {
	const longest = 80
	if utf8.RuneCountInString(value) > longest {
		cut := []rune(value)[:longest]
		return strconv.QuoteToGraphic(string(cut)) + "…"
	}
	if value == "" || !printable(value) || strings.TrimSpace(value) != value {
		return strconv.Quote(value)
	}
	return value
}

// printable also refuses U+FFFD, which stands for text that could not be decoded.
func printable(s string) bool {
	for _, r := range s {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return false
		}
	}
	return true
}
