package policy

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Problem is one problem of a document, or one warning about it: a message and a path.
type Problem struct {
	// Message names the wrong value and, if one exists, the correction. It is one line without a full stop.
	Message string `json:"message"`
	// Path names the field in the document, such as allowedDestinations[1].ports[0].
	// It is "policy.json" for the whole document, "data" for a ConfigMap without a document, and empty for the problem
	// that counts the omitted problems.
	Path string `json:"path"`
}

// String returns MESSAGE (PATH).
func (p Problem) String() string {
	if p.Path == "" {
		return p.Message
	}
	return p.Message + " (" + p.Path + ")"
}

// Problems are in document order: at most MaxProblems, and one more that counts the omitted ones. It is nil or empty if
// there are no problems.
type Problems []Problem

// MaxProblems limits the problems that a document's Problems contain. Without a limit, an API server would send every
// problem to the user, who does not read a thousand lines. A document full of problems would also cost more than a
// valid one.
const MaxProblems = 100

// add appends a problem. If ps already has MaxProblems, add only increments omitted and formats nothing.
func (ps *Problems) add(omitted *int, path *fieldPath, format string, args ...any) {
	if len(*ps) >= MaxProblems {
		*omitted++
		return
	}
	*ps = append(*ps, Problem{Message: fmt.Sprintf(format, args...), Path: path.String()})
}

// Error returns all problems in one line, as a denied review shows them.
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

// Sanitize makes a value from a document safe for one line of a message. It returns a short, printable value unchanged.
// It quotes any other value, and cuts a long one. Otherwise a value could flood a log, or forge a line in it or in a
// terminal.
func Sanitize(value string) string {
	const maxShown = 80
	if utf8.RuneCountInString(value) > maxShown {
		cut := []rune(value)[:maxShown]
		return strconv.QuoteToGraphic(string(cut)) + "…"
	}
	if value == "" || !isPrintable(value) || strings.TrimSpace(value) != value {
		return strconv.Quote(value)
	}
	return value
}

// isPrintable reports whether every character of s is printable. U+FFFD is not: it stands for bytes that are not UTF-8.
func isPrintable(s string) bool {
	for _, r := range s {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return false
		}
	}
	return true
}
