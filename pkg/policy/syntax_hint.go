package policy

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// nearby is how many bytes on either side of a mistake syntaxHint looks at, so that it costs the same in a
// document of any size.
const nearby = 64

// syntaxHint says what people paste that is no JSON, from the bytes around the offset at which it ceases to
// be; offset is at most len(data). It is read after "; ", and is one printable line without a full stop; empty
// if nothing that helps is known.
func syntaxHint(data []byte, offset int) string {
	before, after := data[max(0, offset-nearby):offset], data[offset:min(len(data), offset+nearby)]
	window := data[max(0, offset-4):min(len(data), offset+4)]
	if zeros := bytes.Count(window, []byte{0}); zeros > 1 && zeros < len(window) { // every second byte of a Latin letter is 0
		return "it is UTF-16; save it as UTF-8"
	}
	if hint := encodingHint(after, offset); hint != "" {
		return hint
	}
	if offset < nearby && isYAML(data[:min(len(data), nearby)]) {
		return "it looks like YAML; write JSON"
	}
	r, _ := utf8.DecodeRune(after)
	if hint := characterHint(r); hint != "" && (offset > 0 || r != '\ufeff') { // of a mark at the start the reason says the same
		return hint
	}
	previous := lastByte(before)
	switch {
	case bytes.HasPrefix(after, []byte("//")), bytes.HasPrefix(after, []byte("/*")), bytes.HasPrefix(after, []byte("#")):
		return "JSON has no comments; delete it"
	case (r == '}' || r == ']') && previous == ',':
		return "delete the comma before it"
	case r == ',' && (previous == ',' || previous == '[' || previous == '{'):
		return "delete the comma"
	case r == '\'':
		return "JSON writes strings in double quotes"
	case bytes.HasPrefix(after, []byte(`\"`)):
		return "its quotes are escaped once too often; delete the backslashes"
	case bytes.HasPrefix(after, []byte("&quot;")):
		return `&quot; is HTML; write "`
	case bytes.HasPrefix(after, []byte("{{")), r == '{' && bytes.HasSuffix(before, []byte("{")), bytes.HasPrefix(after, []byte("${")),
		bytes.HasPrefix(after, []byte("{%")), bytes.HasPrefix(after, []byte("<no value>")): // Helm, a shell or Terraform, Jinja; what Helm leaves
		return "it is a template that nothing has filled in"
	case bytes.HasPrefix(after, []byte("<<<<")), bytes.HasPrefix(after, []byte("====")), bytes.HasPrefix(after, []byte(">>>>")):
		return "it is an unresolved merge conflict"
	}
	if hint := wordHint(after); hint != "" {
		return hint
	}
	// A curly quote ends no string, so that the mistake shows after the next straight one.
	line := before[bytes.LastIndexByte(before, '\n')+1:]
	for len(line) > 0 {
		r, size := utf8.DecodeRune(line)
		if isCurlyQuote(r) {
			return fmt.Sprintf("%c before it is a curly quote; write straight ones", r)
		}
		line = line[size:]
	}
	if (previous == '{' || previous == ',') && (unicode.IsLetter(r) || r == '_') {
		return "JSON writes the names of fields in double quotes"
	}
	return ""
}

// encodingHint is about bytes that are not UTF-8.
func encodingHint(after []byte, offset int) string {
	if r, size := utf8.DecodeRune(after); r != utf8.RuneError || size != 1 {
		return ""
	}
	switch after[0] {
	case 0xff, 0xfe:
		if offset == 0 { // the byte order mark of UTF-16
			return "it is UTF-16; save it as UTF-8"
		}
	case 0x91, 0x92, 0x93, 0x94: // in Windows-1252
		return "a curly quote in another encoding; write straight ones, and save it as UTF-8"
	}
	return "save it as UTF-8"
}

// characterHint is about a character that looks like another or like none.
func characterHint(r rune) string {
	switch {
	case isCurlyQuote(r):
		return fmt.Sprintf("%c is a curly quote; write straight ones", r)
	case r == '\uff02' || r == '\uff1a' || r == '\uff0c' || r == '\uff5b' || r == '\uff5d' || r == '\uff3b' || r == '\uff3d':
		return fmt.Sprintf("%c is a full-width character; write %c", r, r-'\uff01'+'!')
	case r == '\ufeff':
		return "it is a byte order mark; delete it"
	case r == utf8.RuneError || r < utf8.RuneSelf:
		return ""
	case unicode.IsSpace(r):
		return fmt.Sprintf("it is the space %U; write a plain one", r)
	case !unicode.IsPrint(r):
		return fmt.Sprintf("it is the invisible character %U; delete it", r)
	}
	return ""
}

func isCurlyQuote(r rune) bool {
	return strings.ContainsRune("\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u201b\u00ab\u00bb", r)
}

// wordHint is about the words that other languages write for JSON's.
func wordHint(after []byte) string {
	end := 0
	for end < len(after) && (after[end] >= 'a' && after[end] <= 'z' || after[end] >= 'A' && after[end] <= 'Z') {
		end++
	}
	switch word := string(after[:end]); word {
	case "True", "TRUE", "False", "FALSE", "None", "NULL", "Null", "undefined", "NaN", "Infinity":
		return word + " is no JSON; true, false and null are in lower case"
	}
	return ""
}

// isYAML reports whether the first line that says something, of the beginning of a document, is YAML's and not
// JSON's: "- item", "---" or "field: …".
func isYAML(start []byte) bool {
	var line []byte
	for found := true; found && (len(line) == 0 || line[0] == '#'); {
		line, start, found = bytes.Cut(start, []byte{'\n'})
		line = bytes.TrimSpace(line)
	}
	if bytes.HasPrefix(line, []byte("- ")) || bytes.HasPrefix(line, []byte("---")) {
		return true
	}
	name, _, ok := bytes.Cut(line, []byte(":"))
	return ok && len(name) > 0 && bytes.IndexFunc(name, func(r rune) bool { return !unicode.IsLetter(r) && r != '_' && r != '-' }) < 0
}

// lastByte returns the last byte that is no white space, or 0.
func lastByte(data []byte) byte {
	data = bytes.TrimRight(data, " \t\r\n")
	if len(data) == 0 {
		return 0
	}
	return data[len(data)-1]
}
