// Package document reads JSON documents that people write, and checks them strictly.
//
// Parse turns bytes into Nodes, which keep what strict checks need: duplicate and unknown fields, null, the order of
// fields and the spelling of numbers. A Checker collects the problems of Nodes, each with its path.
package document

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Parse parses one JSON value in UTF-8, with nothing after the value. The caller bounds the size of data with Size. An
// error has the reason, the position and a hint. The position is a line and a column. They start at 1, and the column
// counts characters.
func Parse(data []byte) (Node, error) {
	_, valueCount := measure(data)
	if err := checkSyntax(data); err != nil {
		return nil, err
	}
	r := jsonReader{rest: string(data)}
	return r.appendValue(make(Node, 0, valueCount), ""), nil
}

// Size returns the number of bytes of a JSON text without the white space between its values.
func Size(data []byte) int {
	size, _ := measure(data)
	return size
}

// measure returns the size of a JSON text in bytes, without the white space between values, and an upper bound on the
// number of values. If data is not JSON, neither number is much larger than len(data).
func measure(data []byte) (size, valueCount int) {
	valueCount = 1
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case ' ', '\t', '\r', '\n':
			continue
		case ',', '{', '[':
			valueCount++
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
	return size, valueCount
}

var byteOrderMark = []byte("\ufeff")

// checkSyntax returns an error if data is not JSON. The error has the reason, the position and a hint.
func checkSyntax(data []byte) error {
	if reason, offset := syntaxError(data); reason != "" {
		return fmt.Errorf("%s at %s%s", reason, lineColumn(data, offset), WithSeparator(syntaxHint(data, offset)))
	}
	return nil
}

// syntaxError returns the reason why data is not JSON, and the byte offset of the error. If data is JSON, the reason is
// empty. encoding/json checks the grammar and the nesting limit. syntaxError itself checks the encoding, because
// encoding/json accepts invalid UTF-8.
func syntaxError(data []byte) (reason string, offset int) {
	if bytes.HasPrefix(data, byteOrderMark) {
		return "starts with a byte order mark", 0
	}
	if offset := invalidUTF8(data); offset >= 0 {
		return "invalid UTF-8", offset
	}
	if json.Valid(data) {
		return "", 0
	}
	var value json.RawMessage
	err := json.Unmarshal(data, &value) // json.Valid returns no reason
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
		// Offset counts the bytes that the decoder has read. It includes the wrong byte, unless the text ends too
		// early.
		offset = min(int(syntax.Offset), len(data))
		if offset > 0 && syntax.Error() != "unexpected end of JSON input" {
			offset--
		}
	}
	return err.Error(), offset
}

// invalidUTF8 returns the offset of the first byte that is not UTF-8, or -1 if data is UTF-8.
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

// lineColumn returns the position of offset in data, such as "line 2, column 8".
func lineColumn(data []byte, offset int) string {
	preceding := data[:offset]
	lineStart := bytes.LastIndexByte(preceding, '\n') + 1
	return fmt.Sprintf("line %d, column %d", bytes.Count(preceding, []byte{'\n'})+1, utf8.RuneCount(preceding[lineStart:])+1)
}
