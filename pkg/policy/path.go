package policy

import (
	"strconv"
	"strings"
)

// fieldPath is the last step of a path, with a link to the previous step. Only String makes the text of a path, so a
// field without a problem needs no memory for text. The zero fieldPath is the document.
type fieldPath struct {
	parent *fieldPath
	name   string // the name of a field; empty for a list item
	index  int    // the index of a list item; -1 for a field
}

func (p *fieldPath) field(name string) *fieldPath {
	return &fieldPath{parent: p, name: name, index: -1}
}
func (p *fieldPath) item(i int) *fieldPath { return &fieldPath{parent: p, index: i} }

// String returns the path as text, such as allowedDestinations[1].ports[0]. It is empty for the document.
func (p *fieldPath) String() string {
	switch {
	case p.parent == nil:
		return p.name
	case p.index < 0:
		return joinField(p.parent.String(), p.name)
	}
	return joinIndex(p.parent.String(), p.index)
}

// joinField appends a field to a path: as .field, or as ["any text"] if the plain form is ambiguous.
func joinField(path, field string) string {
	if strings.ContainsAny(field, ".[]\" ()") || Sanitize(field) != field {
		if len(field) > 80 {
			field = field[:80] + "…"
		}
		return path + "[" + strconv.Quote(field) + "]"
	}
	if path == "" {
		return field
	}
	return path + "." + field
}

func joinIndex(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
