package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	root, err := readNode(decoder)
	if err != nil { // well-formed JSON always yields its tokens
		return nil, Problems{{Message: "Invalid JSON: " + err.Error(), Path: Key}}
	}
	return &Document{root: root}, nil
}

var byteOrderMark = []byte("\ufeff")

// wellFormed leaves the grammar, its nesting limit included, to encoding/json, and adds what that
// package lets pass or cannot say: encoding, and a place as line and column.
func wellFormed(data []byte) error {
	if bytes.HasPrefix(data, byteOrderMark) {
		return errors.New("starts with a byte order mark; save it as UTF-8 without one at line 1, column 1")
	}
	if offset := invalidUTF8(data); offset >= 0 {
		return fmt.Errorf("invalid UTF-8 at %s", place(data, offset))
	}
	var whole json.RawMessage
	err := json.Unmarshal(data, &whole)
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
		// Offset counts the bytes read: the offending one included, unless the text just ended.
		offset := min(int(syntax.Offset), len(data))
		if offset > 0 && syntax.Error() != "unexpected end of JSON input" {
			offset--
		}
		return fmt.Errorf("%w at %s", err, place(data, offset))
	}
	return err
}

// invalidUTF8 returns the offset of the first byte that is not UTF-8, or -1.
func invalidUTF8(data []byte) int {
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
	text    string   // of a string its value, of a number its spelling
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

func readNode(decoder *json.Decoder) (node, error) {
	token, err := decoder.Token()
	if err != nil {
		return node{}, err
	}
	switch value := token.(type) {
	case json.Delim:
		if value == '{' {
			return readObject(decoder)
		}
		return readList(decoder)
	case string:
		return node{kind: text, text: value}, nil
	case json.Number:
		return node{kind: number, text: value.String()}, nil
	case bool:
		return node{kind: boolean}, nil
	case nil:
		return node{kind: null}, nil
	}
	return node{}, fmt.Errorf("unknown token %v", token)
}

func readObject(decoder *json.Decoder) (node, error) {
	n := node{kind: object}
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return node{}, err
		}
		key, ok := token.(string)
		if !ok {
			return node{}, fmt.Errorf("unknown key %v", token)
		}
		value, err := readNode(decoder)
		if err != nil {
			return node{}, err
		}
		n.members = append(n.members, member{key, value})
	}
	return n, closed(decoder)
}

func readList(decoder *json.Decoder) (node, error) {
	n := node{kind: list}
	for decoder.More() {
		item, err := readNode(decoder)
		if err != nil {
			return node{}, err
		}
		n.items = append(n.items, item)
	}
	return n, closed(decoder)
}

func closed(decoder *json.Decoder) error {
	_, err := decoder.Token()
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
