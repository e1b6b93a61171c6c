package policy

import (
	"bytes"
	"encoding/json"
	"fmt"

	"egress-agent/pkg/internal/document"
)

// The limits of a policy.json. They bound the cost of checking any policy. A ConfigMap may contain four times as many
// bytes, but MaxDocumentBytes does not count white space.
const (
	// MaxDocumentBytes limits a policy.json, without the white space between its values.
	MaxDocumentBytes = 256 << 10
	// MaxDestinations limits the length of allowedDestinations.
	MaxDestinations = 1000
)

// Document is a policy.json that is valid JSON. Its fields are not checked yet.
type Document struct{ root document.Node }

// Parse parses a policy.json: one JSON value in UTF-8, of at most MaxDocumentBytes, with nothing after the value. It
// returns a problem if the document is too large or is not JSON. The message about invalid JSON has a line and a
// column. They start at 1, and the column counts characters. The Document is nil if and only if there is a problem.
func Parse(data []byte) (*Document, Problems) {
	if size := document.Size(data); size > MaxDocumentBytes {
		return nil, Problems{{Message: TooLarge(size), Path: Key}}
	}
	root, err := document.Parse(data)
	if err != nil {
		return nil, Problems{{Message: "Invalid JSON: " + err.Error(), Path: Key}}
	}
	return &Document{root}, nil
}

// TooLarge returns the message for a policy.json of size bytes, without white space.
func TooLarge(size int) string {
	return fmt.Sprintf("Policy too large: %d bytes without white space; at most %d are allowed: use fewer or wider destinations, or split the policy into several ConfigMaps", size, MaxDocumentBytes)
}

// Compact returns a policy.json without the white space between its values, and the size of the result in bytes. If the
// document is not JSON or is larger than MaxDocumentBytes, Compact returns the document unchanged.
func Compact(text string) (compact string, size int) {
	size = document.Size([]byte(text))
	if size == len(text) || size > MaxDocumentBytes {
		return text, size
	}
	buffer := bytes.NewBuffer(make([]byte, 0, size))
	if json.Compact(buffer, []byte(text)) != nil {
		return text, size
	}
	return buffer.String(), size
}
