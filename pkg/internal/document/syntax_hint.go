package document

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// hintContext is the number of bytes on each side of a syntax error that syntaxHint reads. With this limit the cost
// does not depend on the size of the document.
const hintContext = 64

// syntaxHint returns the probable cause of the syntax error at offset, or "" if it recognizes no cause. It recognizes
// common text that is almost JSON, by the bytes near offset. offset is at most len(data). The hint follows "; " in a
// message, and is one printable line without a full stop.
func syntaxHint(data []byte, offset int) string {
	preceding, following := data[max(0, offset-hintContext):offset], data[offset:min(len(data), offset+hintContext)]
	window := data[max(0, offset-4):min(len(data), offset+4)]
	if zeros := bytes.Count(window, []byte{0}); zeros > 1 && zeros < len(window) { // every second byte of Latin text in UTF-16 is 0
		return utf16Hint
	}
	if hint := encodingHint(following, offset); hint != "" {
		return hint
	}
	if offset < hintContext && isYAML(data[:min(len(data), hintContext)]) {
		return "the document looks like YAML; write JSON"
	}
	r, _ := utf8.DecodeRune(following)
	if r == '\ufeff' && offset == 0 { // the reason already names the byte order mark
		return "save the file as UTF-8 without it"
	}
	if hint := characterHint(r); hint != "" {
		return hint
	}
	previous := lastByte(preceding)
	switch {
	case bytes.HasPrefix(following, []byte("//")), bytes.HasPrefix(following, []byte("/*")), bytes.HasPrefix(following, []byte("#")):
		return "JSON has no comments; delete the comment"
	case (r == '}' || r == ']') && previous == ',':
		return fmt.Sprintf("delete the comma before %c", r)
	case r == ',' && (previous == ',' || previous == '[' || previous == '{'):
		return "delete this comma"
	case r == '\'':
		return "JSON strings need double quotes"
	case bytes.HasPrefix(following, []byte(`\"`)):
		return "the quotes are escaped twice; delete the backslashes"
	case bytes.HasPrefix(following, []byte("&quot;")):
		return `replace the HTML entity &quot; with "`
	case bytes.HasPrefix(following, []byte("{{")), r == '{' && bytes.HasSuffix(preceding, []byte("{")), bytes.HasPrefix(following, []byte("${")),
		bytes.HasPrefix(following, []byte("{%")), bytes.HasPrefix(following, []byte("<no value>")): // Helm, a shell or Terraform, Jinja; Helm writes <no value>
		return "the document is a template; render it first"
	case bytes.HasPrefix(following, []byte("<<<<")), bytes.HasPrefix(following, []byte("====")), bytes.HasPrefix(following, []byte(">>>>")):
		return "the document contains a merge conflict; resolve it"
	}
	if hint := wordHint(following); hint != "" {
		return hint
	}
	// A curly quote does not end a string, so the parser reports an error only after the next straight quote.
	line := preceding[bytes.LastIndexByte(preceding, '\n')+1:]
	for len(line) > 0 {
		r, size := utf8.DecodeRune(line)
		if isCurlyQuote(r) {
			return fmt.Sprintf("an earlier %c is a curly quote; write a straight \"", r)
		}
		line = line[size:]
	}
	if (previous == '{' || previous == ',') && (unicode.IsLetter(r) || r == '_') {
		return "JSON field names need double quotes"
	}
	return ""
}

const utf16Hint = "the document is UTF-16; save the file as UTF-8"

// encodingHint returns a hint if rest does not start with a UTF-8 character. rest has the bytes from offset on.
func encodingHint(rest []byte, offset int) string {
	if r, size := utf8.DecodeRune(rest); r != utf8.RuneError || size != 1 {
		return ""
	}
	switch rest[0] {
	case 0xff, 0xfe:
		if offset == 0 { // the byte order mark of UTF-16
			return utf16Hint
		}
	case 0x91, 0x92, 0x93, 0x94: // in Windows-1252
		return "this is a curly quote in Windows-1252; write a straight \" and save the file as UTF-8"
	}
	return "save the file as UTF-8"
}

// characterHint returns a hint for a character that is invisible or looks like another character.
func characterHint(r rune) string {
	switch {
	case isCurlyQuote(r):
		return fmt.Sprintf("%c is a curly quote; write a straight \"", r)
	case r == '\uff02' || r == '\uff1a' || r == '\uff0c' || r == '\uff5b' || r == '\uff5d' || r == '\uff3b' || r == '\uff3d':
		return fmt.Sprintf("%c is a full-width character; write %c", r, r-'\uff01'+'!')
	case r == '\ufeff':
		return "this is a byte order mark; delete it"
	case r == utf8.RuneError || r < utf8.RuneSelf:
		return ""
	case unicode.IsSpace(r):
		return fmt.Sprintf("this is the space %U; write a plain space", r)
	case !unicode.IsPrint(r):
		return fmt.Sprintf("this is the invisible character %U; delete it", r)
	}
	return ""
}

func isCurlyQuote(r rune) bool {
	return strings.ContainsRune("\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u201b\u00ab\u00bb", r)
}

// wordHint returns a hint if data starts with a literal of another language, such as Python's True.
func wordHint(data []byte) string {
	end := 0
	for end < len(data) && (data[end] >= 'a' && data[end] <= 'z' || data[end] >= 'A' && data[end] <= 'Z') {
		end++
	}
	switch word := string(data[:end]); word {
	case "True", "TRUE", "False", "FALSE", "None", "NULL", "Null", "undefined", "NaN", "Infinity":
		return word + " is not JSON; write true, false or null, in lower case"
	}
	return ""
}

// isYAML reports whether data looks like YAML and not like JSON. It ignores empty lines and comments, and reads only
// the next line. YAML starts with a line such as "- item", "---" or "field: …".
func isYAML(data []byte) bool {
	var line []byte
	for found := true; found && (len(line) == 0 || line[0] == '#'); {
		line, data, found = bytes.Cut(data, []byte{'\n'})
		line = bytes.TrimSpace(line)
	}
	if bytes.HasPrefix(line, []byte("- ")) || bytes.HasPrefix(line, []byte("---")) {
		return true
	}
	name, _, ok := bytes.Cut(line, []byte(":"))
	return ok && len(name) > 0 && bytes.IndexFunc(name, func(r rune) bool { return !unicode.IsLetter(r) && r != '_' && r != '-' }) < 0
}

// lastByte returns the last byte that is not white space. It returns 0 if data has no such byte.
func lastByte(data []byte) byte {
	data = bytes.TrimRight(data, " \t\r\n")
	if len(data) == 0 {
		return 0
	}
	return data[len(data)-1]
}
