package document

import (
	"strconv"
	"strings"
)

// Path is the last step of a path in a document, with a link to the previous step. Only String makes the text of a path,
// so a field without a problem needs no memory for text. The zero Path is the document.
type Path struct {
	parent *Path
	name   string // the name of a field; empty for a list item
	index  int    // the index of a list item; -1 for a field
}

// Field returns the path of a field of the object at p.
func (p *Path) Field(name string) *Path {
	return &Path{parent: p, name: name, index: -1}
}

// Item returns the path of the i-th item of the list at p.
func (p *Path) Item(i int) *Path { return &Path{parent: p, index: i} }

// String returns the path as text, such as allowedDestinations[1].ports[0]. It is empty for the document.
func (p *Path) String() string {
	switch {
	case p.parent == nil:
		return p.name
	case p.index < 0:
		return JoinField(p.parent.String(), p.name)
	}
	return JoinIndex(p.parent.String(), p.index)
}

// JoinField appends a field to a path: as .field, or as ["any text"] if the plain form is ambiguous.
func JoinField(path, field string) string {
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

// JoinIndex appends the index of a list item to a path.
func JoinIndex(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// RootPath returns the path of a whole document, which messages call name, such as policy.json.
func RootPath(name string) *Path { return &Path{name: name} }
