package document

import (
	"encoding/json"
	"strings"
)

// Kind is a kind of JSON values.
type Kind uint8

// The kinds of JSON values.
const (
	Object Kind = iota
	List
	Text
	Number
	Boolean
	Null
)

// String returns the name that messages use for the kind.
func (k Kind) String() string {
	return [...]string{"an object", "a list", "a string", "a number", "a boolean", "null"}[k]
}

// Node is a JSON value. Its first element is the value itself. Its children follow in document order, and each child is
// itself a Node. So one slice contains all values of a document, and each value is a part of that slice.
type Node []element

type element struct {
	// key is the name of a field in an object. It is empty for all other values.
	key string
	// text is the decoded value of a string, or the spelling of a number, a boolean or null.
	text string
	// size is the number of elements of the Node, this element included.
	size int32
	kind Kind
}

// Kind returns the kind of the value.
func (n Node) Kind() Kind { return n[0].kind }

// Text returns the decoded value of a string, or the spelling of a number, a boolean or null.
func (n Node) Text() string { return n[0].text }

// Key returns the name of a field. It is empty for a value that is not in an object.
func (n Node) Key() string { return n[0].key }

// Children yields the items of a list, or the fields of an object, duplicates included.
func (n Node) Children(yield func(child Node) bool) {
	for rest := n[1:]; len(rest) > 0; {
		size := rest[0].size
		if !yield(rest[:size]) {
			return
		}
		rest = rest[size:]
	}
}

// Count returns the number of children.
func (n Node) Count() int {
	count := 0
	for range n.Children {
		count++
	}
	return count
}

// Member returns the value of the first field whose name is key. It returns nil if n has no such field or is not an
// object.
func (n Node) Member(key string) Node {
	if n.Kind() != Object {
		return nil
	}
	for child := range n.Children {
		if child[0].key == key {
			return child
		}
	}
	return nil
}

// jsonReader reads valid JSON. It panics on other text.
type jsonReader struct{ rest string }

// peek skips white space and separators. It returns the first byte of the next value, or the } or ] that ends an object
// or a list.
func (r *jsonReader) peek() byte {
	r.rest = strings.TrimLeft(r.rest, " \t\r\n,:")
	return r.rest[0]
}

// take returns the next n bytes and skips them.
func (r *jsonReader) take(n int) string {
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

// appendValue reads the next value with its children and appends it to nodes. key is the value's field name. It is
// empty if the value is not in an object.
func (r *jsonReader) appendValue(nodes Node, key string) Node {
	start := len(nodes)
	nodes = append(nodes, element{key: key})
	e := element{key: key}
	switch r.peek() {
	case '{':
		e.kind = Object
		for r.take(len("{")); r.peek() != '}'; {
			name := r.takeString()
			nodes = r.appendValue(nodes, name)
		}
		r.take(len("}"))
	case '[':
		e.kind = List
		for r.take(len("[")); r.peek() != ']'; {
			nodes = r.appendValue(nodes, "")
		}
		r.take(len("]"))
	case '"':
		e.kind, e.text = Text, r.takeString()
	case 't', 'f':
		e.kind, e.text = Boolean, r.takeLiteral()
	case 'n':
		e.kind, e.text = Null, r.takeLiteral()
	default:
		e.kind, e.text = Number, r.takeLiteral()
	}
	e.size = int32(len(nodes) - start)
	nodes[start] = e
	return nodes
}

// takeLiteral returns the spelling of a number, a boolean or null, and skips it.
func (r *jsonReader) takeLiteral() string {
	end := strings.IndexAny(r.rest, " \t\r\n,]}")
	if end < 0 {
		end = len(r.rest) // the literal ends the document
	}
	return r.take(end)
}

// skipValue skips the next value with its children.
func (r *jsonReader) skipValue() {
	for depth := 0; ; {
		switch r.peek() {
		case '{', '[':
			r.take(1)
			depth++
		case '}', ']':
			r.take(1)
			depth--
		case '"':
			r.takeString()
		default:
			r.takeLiteral()
		}
		if depth == 0 {
			return
		}
	}
}

// takeString returns the decoded value of a string, and skips it.
func (r *jsonReader) takeString() string {
	end := 1
	for r.rest[end] != '"' {
		if r.rest[end] == '\\' {
			end++
		}
		end++
	}
	quoted := r.take(end + 1)
	if !strings.Contains(quoted, `\`) {
		return quoted[1:end]
	}
	var value string
	_ = json.Unmarshal([]byte(quoted), &value) // quoted is valid JSON
	return value
}
