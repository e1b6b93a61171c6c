package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// The limits of a policy.json. They bound the cost of checking any policy. A ConfigMap may contain four times as many
// bytes, but MaxDocumentBytes does not count white space.
const (
	// MaxDocumentBytes limits a policy.json, without the white space between its values.
	MaxDocumentBytes = 256 << 10
	// MaxDestinations limits the length of allowedDestinations.
	MaxDestinations = 1000
)

// Document is a policy.json that is valid JSON. Its fields are not checked yet. Unlike a decoded struct, a Document
// also has the information that strict checks need: duplicate and unknown fields, null, the order of fields and the
// spelling of numbers.
type Document struct{ root node }

// Parse parses a policy.json: one JSON value in UTF-8, of at most MaxDocumentBytes, with nothing after the value. It
// returns a problem if the document is too large or is not JSON. The message about invalid JSON has a line and a
// column. They start at 1, and the column counts characters. The Document is nil if and only if there is a problem.
func Parse(data []byte) (*Document, Problems) {
	size, valueCount := measure(data)
	if size > MaxDocumentBytes {
		return nil, Problems{{Message: TooLarge(size), Path: Key}}
	}
	if err := checkSyntax(data); err != nil {
		return nil, Problems{{Message: "Invalid JSON: " + err.Error(), Path: Key}}
	}
	r := jsonReader{rest: string(data)}
	return &Document{root: r.appendValue(make(node, 0, valueCount), "")}, nil
}

// TooLarge returns the message for a policy.json of size bytes, without white space.
func TooLarge(size int) string {
	return fmt.Sprintf("Policy too large: %d bytes without white space; at most %d are allowed: use fewer or wider destinations, or split the policy into several ConfigMaps", size, MaxDocumentBytes)
}

// Compact returns a policy.json without the white space between its values, and the size of the result in bytes. If the
// document is not JSON or is larger than MaxDocumentBytes, Compact returns the document unchanged.
func Compact(document string) (compact string, size int) {
	size, _ = measure([]byte(document))
	if size == len(document) || size > MaxDocumentBytes {
		return document, size
	}
	buffer := bytes.NewBuffer(make([]byte, 0, size))
	if json.Compact(buffer, []byte(document)) != nil {
		return document, size
	}
	return buffer.String(), size
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
		return fmt.Errorf("%s at %s%s", reason, lineColumn(data, offset), withSeparator(syntaxHint(data, offset)))
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
