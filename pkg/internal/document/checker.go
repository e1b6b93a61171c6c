package document

import (
	"iter"
	"slices"
	"strconv"

	"egress-agent/pkg/internal/nearest"
)

// Checker collects the problems of a document. It keeps the first MaxProblems of them and counts the others. The zero
// Checker has no problems.
type Checker struct {
	problems     Problems
	omittedCount int // the number of problems after the first MaxProblems
}

// Problems returns the problems so far, and at the end how many more there are. It returns nil if there are none.
func (c *Checker) Problems() Problems {
	if c.omittedCount == 0 {
		return c.problems
	}
	return append(slices.Clip(c.problems), Problem{Message: "and " + strconv.Itoa(c.omittedCount) + " more"})
}

// Report adds a problem.
func (c *Checker) Report(path *Path, format string, args ...any) {
	c.problems.add(&c.omittedCount, path, format, args...)
}

// ReportLazily adds a problem whose message costs something to make. It calls message only if c keeps the problem.
func (c *Checker) ReportLazily(path *Path, message func() string) {
	if c.IsFull() {
		c.omittedCount++
		return
	}
	c.Report(path, "%s", message())
}

// IsFull reports whether c already has MaxProblems problems. If so, Report only counts a problem, so the caller need
// not make the problem's message and path.
func (c *Checker) IsFull() bool { return len(c.problems) >= MaxProblems }

// ItemPath returns the path of the i-th item of the list at path. If c is full, Report does not use a path, so ItemPath
// saves the memory and returns the list's path.
func (c *Checker) ItemPath(path *Path, i int) *Path {
	if c.IsFull() {
		return path
	}
	return path.Item(i)
}

// CheckKind reports whether n, the value of a field, has the required kind. If n has another kind, CheckKind adds a
// problem.
func (c *Checker) CheckKind(n Node, required Kind, path *Path, field string) bool {
	if n.Kind() != required {
		hint := ""
		if n.Kind() == Null {
			hint = nullHint(field)
		}
		c.Report(path, "Invalid %s: must be %s, not %s%s", field, required, n.Kind(), WithSeparator(hint))
	}
	return n.Kind() == required
}

// RequireField adds a problem if the object n lacks a field.
func (c *Checker) RequireField(n Node, path *Path, field string) {
	if n.Member(field) == nil {
		c.Report(path.Field(field), "Missing field: %s", field)
	}
}

// KnownFields yields the known fields of the object n in document order. It yields each field once. It does not yield
// an unknown or a duplicate field. Instead it adds a problem, also in document order.
func (c *Checker) KnownFields(n Node, path *Path, known []string) iter.Seq2[string, Node] {
	return func(yield func(string, Node) bool) {
		seen := make([]bool, len(known))
		for child := range n.Children {
			key := child.Key()
			index := slices.Index(known, key)
			switch {
			case index < 0:
				c.reportUnknown(path, key, known)
			case seen[index]:
				c.Report(path.Field(key), "Duplicate field: %s", key)
			default:
				seen[index] = true
				if !yield(key, child) {
					return
				}
			}
		}
	}
}

// reportUnknown adds a problem for an unknown field of the object at path. The message suggests a known field with a
// similar name.
func (c *Checker) reportUnknown(path *Path, field string, known []string) {
	c.ReportLazily(path.Field(field), func() string {
		message := "Unknown field: " + Sanitize(field)
		if near := nearest.Name(field, known); near != "" {
			message += "; did you mean " + strconv.Quote(near) + "?"
		}
		return message
	})
}
