package policy

import (
	"encoding/json"
	"strings"
)

type kind uint8

// The kinds of JSON values.
const (
	object kind = iota
	list
	text
	number
	boolean
	null
)

// String returns the name that messages use for the kind.
func (k kind) String() string {
	return [...]string{"an object", "a list", "a string", "a number", "a boolean", "null"}[k]
}

// node is a JSON value. Its first element is the value itself. Its children follow in document order, and each child is
// itself a node. So one slice contains all values of a document, and each value is a part of that slice.
type node []element

type element struct {
	// key is the name of a field in an object. It is empty for all other values.
	key string
	// text is the decoded value of a string, or the spelling of a number, a boolean or null.
	text string
	// size is the number of elements of the node, this element included.
	size int32
	kind kind
}

func (n node) kind() kind   { return n[0].kind }
func (n node) text() string { return n[0].text }

// children yields the items of a list, or the fields of an object, duplicates included.
func (n node) children(yield func(child node) bool) {
	for rest := n[1:]; len(rest) > 0; {
		size := rest[0].size
		if !yield(rest[:size]) {
			return
		}
		rest = rest[size:]
	}
}

// count returns the number of children.
func (n node) count() int {
	count := 0
	for range n.children {
		count++
	}
	return count
}

// member returns the value of the first field whose name is key. It returns nil if n has no such field or is not an
// object.
func (n node) member(key string) node {
	if n.kind() != object {
		return nil
	}
	for child := range n.children {
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
func (r *jsonReader) appendValue(nodes node, key string) node {
	start := len(nodes)
	nodes = append(nodes, element{key: key})
	e := element{key: key}
	switch r.peek() {
	case '{':
		e.kind = object
		for r.take(len("{")); r.peek() != '}'; {
			name := r.takeString()
			nodes = r.appendValue(nodes, name)
		}
		r.take(len("}"))
	case '[':
		e.kind = list
		for r.take(len("[")); r.peek() != ']'; {
			nodes = r.appendValue(nodes, "")
		}
		r.take(len("]"))
	case '"':
		e.kind, e.text = text, r.takeString()
	case 't', 'f':
		e.kind, e.text = boolean, r.takeLiteral()
	case 'n':
		e.kind, e.text = null, r.takeLiteral()
	default:
		e.kind, e.text = number, r.takeLiteral()
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
