package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// The bounds of a policy.json. They keep what one policy costs to judge small, whatever it says: a ConfigMap may
// hold four times as much, and its white space nothing at all.
const (
	// MaxDocumentBytes bounds a policy.json without the white space between its values.
	MaxDocumentBytes = 256 << 10
	// MaxDestinations bounds allowedDestinations.
	MaxDestinations = 1000
)

// Document is a policy.json that is well-formed JSON, with nothing yet said about its fields.
// Unlike a decoded struct it still holds what strictness needs: duplicate and unknown fields,
// null, the order of fields and the spelling of numbers.
type Document struct{ root node }

// Parse reads the bytes of a policy.json: one JSON value in UTF-8, nothing after it, of at most MaxDocumentBytes.
// The only problems it finds are a document that is larger, and invalid JSON, with line and column (both from 1,
// columns in characters). The Document is nil exactly when there is one.
func Parse(data []byte) (*Document, Problems) {
	size, values := measure(data)
	if size > MaxDocumentBytes {
		return nil, Problems{{Message: TooLarge(size), Path: Key}}
	}
	if err := wellFormed(data); err != nil {
		return nil, Problems{{Message: "Invalid JSON: " + err.Error(), Path: Key}}
	}
	r := reader{rest: string(data)}
	return &Document{root: r.nodes(make(node, 0, values), "")}, nil
}

// TooLarge is the message for a policy.json of so many bytes without white space.
func TooLarge(size int) string {
	return fmt.Sprintf("Policy too large: %d bytes without white space; at most %d are allowed: write fewer or wider entries, or several policies", size, MaxDocumentBytes)
}

// Compact returns a policy.json without the white space between its values, and how many bytes that has. What is not
// JSON, or over MaxDocumentBytes, is returned as it is.
func Compact(document string) (compact string, size int) {
	size, _ = measure([]byte(document))
	if size == len(document) || size > MaxDocumentBytes {
		return document, size
	}
	compacted := bytes.NewBuffer(make([]byte, 0, size))
	if json.Compact(compacted, []byte(document)) != nil {
		return document, size
	}
	return compacted.String(), size
}

// measure counts the bytes of a JSON text that are no white space between its values, and bounds the number of
// its values. Of a text that is no JSON it gives numbers just as small.
func measure(data []byte) (size, values int) {
	values = 1
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case ' ', '\t', '\r', '\n':
			continue
		case ',', '{', '[':
			values++
		case '"':
			start := i
			for i++; i < len(data) && data[i] != '"'; i++ {
				if data[i] == '\\' {
					i++
				}
			}
			size += min(i, len(data)-1) - start
		}
		size++
	}
	return size, values
}

var byteOrderMark = []byte("\ufeff")

func wellFormed(data []byte) error {
	if reason, offset := syntaxError(data); reason != "" {
		return fmt.Errorf("%s at %s%s", reason, lineColumn(data, offset), after(syntaxHint(data, offset)))
	}
	return nil
}

// syntaxError says why data is no JSON, and at which offset; an empty reason is none. It leaves the grammar, its
// nesting limit included, to encoding/json, and adds what that package lets pass: encoding.
func syntaxError(data []byte) (reason string, offset int) {
	if bytes.HasPrefix(data, byteOrderMark) {
		return "starts with a byte order mark; save it as UTF-8 without one", 0
	}
	if offset := invalidUTF8(data); offset >= 0 {
		return "invalid UTF-8", offset
	}
	if json.Valid(data) {
		return "", 0
	}
	var whole json.RawMessage
	err := json.Unmarshal(data, &whole) // says why
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
		// Offset counts the bytes read: the offending one included, unless the text just ended.
		offset = min(int(syntax.Offset), len(data))
		if offset > 0 && syntax.Error() != "unexpected end of JSON input" {
			offset--
		}
	}
	return err.Error(), offset
}

// invalidUTF8 returns the offset of the first byte that is not UTF-8, or -1.
func invalidUTF8(data []byte) int {
	if utf8.Valid(data) {
		return -1
	}
	for offset := 0; offset < len(data); {
		r, size := utf8.DecodeRune(data[offset:])
		if r == utf8.RuneError && size <= 1 {
			return offset
		}
		offset += size
	}
	return -1
}

func lineColumn(data []byte, offset int) string {
	before := data[:offset]
	lineStart := bytes.LastIndexByte(before, '\n') + 1
	return fmt.Sprintf("line %d, column %d", bytes.Count(before, []byte{'\n'})+1, utf8.RuneCount(before[lineStart:])+1)
}

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

// String names the kind as messages do.
func (k kind) String() string {
	return [...]string{"an object", "a list", "a string", "a number", "a boolean", "null"}[k]
}

// node is a JSON value: the first element is the value itself, the others are what is in it, in document order, each
// followed by what is in that. So all values of a document lie in one slice, and a value is a part of it.
type node []element

type element struct {
	// key is the name of an object's field; empty for all other values.
	key string
	// text is the value of a string, and the spelling of a number, a boolean or null.
	text string
	// size counts the elements of the node.
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

// count returns how many children there are.
func (n node) count() int {
	count := 0
	for range n.children {
		count++
	}
	return count
}

// member returns an object's first field of that name; nil for none.
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

// reader takes apart what is known to be well-formed.
type reader struct{ rest string }

// next skips what stands between values, and returns the first byte of the next one, or of the end of an
// object or a list.
func (r *reader) next() byte {
	r.rest = strings.TrimLeft(r.rest, " \t\r\n,:")
	return r.rest[0]
}

// take returns that many bytes, and goes on after them.
func (r *reader) take(n int) string {
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

// nodes appends the next value, which is a field of this name, with all that is in it.
func (r *reader) nodes(to node, key string) node {
	at := len(to)
	to = append(to, element{key: key})
	e := element{key: key}
	switch r.next() {
	case '{':
		e.kind = object
		for r.take(len("{")); r.next() != '}'; {
			name := r.text()
			to = r.nodes(to, name)
		}
		r.take(len("}"))
	case '[':
		e.kind = list
		for r.take(len("[")); r.next() != ']'; {
			to = r.nodes(to, "")
		}
		r.take(len("]"))
	case '"':
		e.kind, e.text = text, r.text()
	case 't', 'f':
		e.kind, e.text = boolean, r.word()
	case 'n':
		e.kind, e.text = null, r.word()
	default:
		e.kind, e.text = number, r.word()
	}
	e.size = int32(len(to) - at)
	to[at] = e
	return to
}

// word returns a number, a boolean or null as it is spelled.
func (r *reader) word() string {
	end := strings.IndexAny(r.rest, " \t\r\n,]}")
	if end < 0 {
		end = len(r.rest) // it is all there is
	}
	return r.take(end)
}

// skip passes the next value.
func (r *reader) skip() {
	for depth := 0; ; {
		switch r.next() {
		case '{', '[':
			r.take(1)
			depth++
		case '}', ']':
			r.take(1)
			depth--
		case '"':
			r.text()
		default:
			r.word()
		}
		if depth == 0 {
			return
		}
	}
}

// text returns the value of a string.
func (r *reader) text() string {
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
	_ = json.Unmarshal([]byte(quoted), &value) // it is well-formed
	return value
}
