package policy

import "egress-agent/pkg/internal/document"

// Problem is one problem of a document, or one warning about it: a message and a path.
type Problem = document.Problem

// Problems is a list of problems in document order. It has at most MaxProblems problems, and then one more problem that
// counts the omitted problems. It is nil or empty if the document has no problem.
type Problems = document.Problems

// MaxProblems limits the problems that a document's Problems contain.
const MaxProblems = document.MaxProblems

// Sanitize makes a value from a document safe for one line of a message.
func Sanitize(value string) string { return document.Sanitize(value) }

// Locate returns the byte offset of each problem in a document. If data is not JSON, every offset is the offset of the
// syntax error.
func Locate(data []byte, problems Problems) []int { return document.Locate(data, problems) }
