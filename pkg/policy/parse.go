package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Document is a policy.json that is well-formed JSON, with nothing yet said about its fields.
// Unlike a decoded struct it still holds what strictness needs: duplicate and unknown fields,
// null, the order of fields and the spelling of numbers.
type Document struct{ root node }

// Parse reads the bytes of a policy.json: one JSON value in UTF-8, nothing after it. The only
// problem it finds is invalid JSON, with line and column (both from 1, columns in characters).
// The Document is nil exactly when there is one.
func Parse(data []byte) (*Document, Problems) {
	if err := wellFormed(data); err != nil {
		return nil, Problems{{Message: "Invalid JSON: " + err.Error(), Path: Key}}
	}
	r := reader{rest: string(data)}
	return &Document{root: r.node()}, nil
}

var byteOrderMark = []byte("\ufeff")

func wellFormed(data []byte) error {
	if reason, offset := flaw(data); reason != "" {
		return fmt.Errorf("%s at %s", reason, place(data, offset))
	}
	return nil
}

// flaw says why data is no JSON, and at which offset; an empty reason is none. It leaves the grammar, its
// nesting limit included, to encoding/json, and adds what that package lets pass: encoding.
func flaw(data []byte) (reason string, offset int) {
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

func place(data []byte, offset int) string {
	before := data[:offset]
	lineStart := bytes.LastIndexByte(before, '\n') + 1
	return fmt.Sprintf("line %d, column %d", bytes.Count(before, []byte{'\n'})+1, utf8.RuneCount(before[lineStart:])+1)
}

type kind string

// The kinds of JSON values, named as messages name them.
const (
	object  kind = "an object"
	list    kind = "a list"
	text    kind = "a string"
	number  kind = "a number"
	boolean kind = "a boolean"
	null    kind = "null"
)

type node struct {
	kind    kind
	text    string   // of a string its value, of a number, a boolean or null its spelling
	members []member // of an object, in document order, duplicates included
	items   []node   // of a list
}

type member struct {
	key   string
	value node
}

// member returns an object's first field of that name.
func (n node) member(key string) (node, bool) {
	for _, m := range n.members {
		if m.key == key {
			return m.value, true
		}
	}
	return node{}, false
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

func (r *reader) node() node {
	switch r.next() {
	case '{':
		return r.object()
	case '[':
		return r.list()
	case '"':
		return node{kind: text, text: r.text()}
	case 't':
		return node{kind: boolean, text: r.take(len("true"))}
	case 'f':
		return node{kind: boolean, text: r.take(len("false"))}
	case 'n':
		return node{kind: null, text: r.take(len("null"))}
	}
	end := strings.IndexAny(r.rest, " \t\r\n,]}")
	if end < 0 {
		end = len(r.rest) // a number is all there is
	}
	return node{kind: number, text: r.take(end)}
}

func (r *reader) object() node {
	n := node{kind: object, members: make([]member, 0, 4)} // as many as a destination has
	r.take(len("{"))
	for r.next() != '}' {
		key := r.text()
		n.members = append(n.members, member{key, r.node()})
	}
	r.take(len("}"))
	return n
}

func (r *reader) list() node {
	n := node{kind: list}
	r.take(len("["))
	for r.next() != ']' {
		n.items = append(n.items, r.node())
	}
	r.take(len("]"))
	return n
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
