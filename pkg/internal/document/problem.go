package document

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
	// It is the name of the document, such as "policy.json", for the whole document, "data" for a ConfigMap without a
	// document, and empty for the problem that counts the omitted problems.
	Path string `json:"path"`
}

// String returns MESSAGE (PATH), or only MESSAGE if the path is empty.
func (p Problem) String() string {
	if p.Path == "" {
		return p.Message
	}
	return p.Message + " (" + p.Path + ")"
}

// Problems is a list of problems in document order. It has at most MaxProblems problems, and then one more problem that
// counts the omitted problems. It is nil or empty if the document has no problem.
type Problems []Problem

// MaxProblems limits the problems that a document's Problems contain. Without a limit, an API server would send every
// problem to the user, who does not read a thousand lines. To check a document full of problems would also cost more
// than to check a valid document.
const MaxProblems = 100

// add appends a problem. If ps already has MaxProblems problems, add only increments omittedCount and formats nothing.
func (ps *Problems) add(omittedCount *int, path *Path, format string, args ...any) {
	if len(*ps) >= MaxProblems {
		*omittedCount++
		return
	}
	*ps = append(*ps, Problem{Message: fmt.Sprintf(format, args...), Path: path.String()})
}

// Error returns all problems of a policy in one line. It is the message of a denied review.
func (ps Problems) Error() string { return "Policy validation failed: " + ps.String() }

// String returns all problems in one line.
func (ps Problems) String() string {
	var b strings.Builder
	for i, p := range ps {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(p.String())
	}
	return b.String()
}

// Sanitize makes a value from a document safe for one line of a message. It returns a short, printable value unchanged.
// It quotes any other value, and also shortens a long value. Without Sanitize, a value could fill a log, or add a false
// line to a log or a terminal.
func Sanitize(value string) string {
	const maxShown = 80
	if utf8.RuneCountInString(value) > maxShown {
		start := []rune(value)[:maxShown]
		return strconv.QuoteToGraphic(string(start)) + "…"
	}
	if value == "" || !IsPrintable(value) || strings.TrimSpace(value) != value {
		return strconv.Quote(value)
	}
	return value
}

// IsPrintable reports whether every character of s is printable. It returns false for U+FFFD, because a loop over s
// yields U+FFFD for bytes that are not UTF-8.
func IsPrintable(s string) bool {
	for _, r := range s {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return false
		}
	}
	return true
}
