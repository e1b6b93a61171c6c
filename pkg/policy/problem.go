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
	// It is "policy.json" for the document as a whole, "data" for a ConfigMap without one, and empty for the count
	// of those that are left out.
	Path string `json:"path"`
}

// String gives MESSAGE (PATH).
func (p Problem) String() string {
	if p.Path == "" {
		return p.Message
	}
	return p.Message + " (" + p.Path + ")"
}

// Problems are in document order, at most MaxProblems and one that counts the others. Nil or empty: none.
type Problems []Problem

// MaxProblems bounds the problems of a document that are written out: an API server passes a refusal on whole, a
// tenant reads no thousand lines, and a document of nothing but mistakes must not cost more than a good one.
const MaxProblems = 100

// add appends a problem, or counts it if there are MaxProblems. The message is made only if it is kept.
func (ps *Problems) add(more *int, path *place, format string, args ...any) {
	if len(*ps) >= MaxProblems {
		*more++
		return
	}
	*ps = append(*ps, Problem{Message: fmt.Sprintf(format, args...), Path: path.String()})
}

// Error gives every problem in one line, as a refusal shows them.
func (ps Problems) Error() string {
	var b strings.Builder
	b.WriteString("Policy validation failed: ")
	for i, p := range ps {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(p.String())
	}
	return b.String()
}

// Sanitize makes a value from a document fit for one line of a message: as it is when short and
// printable, else quoted and cut, so that it can neither flood nor forge a log or a terminal.
func Sanitize(value string) string {
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
