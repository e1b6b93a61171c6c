package document

import (
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
)

func TestSyntaxHint(t *testing.T) {
	const comment, quotes, yaml, template = "JSON has no comments; delete the comment", "JSON strings need double quotes", "the document looks like YAML; write JSON", "the document is a template; render it first"
	for _, test := range []struct{ name, data, want string }{
		{"curly quotes", `{“defaultAction”: "deny"}`, "“ is a curly quote; write a straight \""},
		{"German curly quotes", `{„defaultAction“: "deny"}`, "„ is a curly quote; write a straight \""},
		{"single curly quotes", `{‘defaultAction’: "deny"}`, "‘ is a curly quote; write a straight \""},
		{"a curly quote at the end", `{"defaultAction”: "deny"}`, "an earlier ” is a curly quote; write a straight \""},
		{"a curly quote as value", `{"defaultAction": “deny"}`, "“ is a curly quote; write a straight \""},
		{"curly quotes in Windows-1252", "{\x93defaultAction\x94: 1}", "this is a curly quote in Windows-1252; write a straight \" and save the file as UTF-8"},
		{"Latin-1", "{\"n\": \"\xe9\"}", "save the file as UTF-8"},
		{"UTF-16 with a byte order mark", "\xff\xfe{\x00}\x00", utf16Hint},
		{"big-endian UTF-16 with a byte order mark", "\xfe\xff\x00{\x00}", utf16Hint},
		{"UTF-16 without a byte order mark", "{\x00\"\x00a\x00", utf16Hint},
		{"big-endian UTF-16 without a byte order mark", "\x00{\x00\"", utf16Hint},
		{"a non-breaking space", "{\u00a0\"a\": 1}", "this is the space U+00A0; write a plain space"},
		{"a zero-width space", "{\u200b\"a\": 1}", "this is the invisible character U+200B; delete it"},
		{"a byte order mark in the middle", "{\ufeff\"a\": 1}", "this is a byte order mark; delete it"},
		{"a full-width colon", "{\"a\"\uff1a 1}", "\uff1a is a full-width character; write :"},
		{"a comment", "{\n  // S3\n \"a\": 1}", comment},
		{"a comment at the end", "{\"a\": 1} // S3", comment},
		{"a block comment", "{\"a\": /* S3 */ 1}", comment},
		{"a comment with #", "{\"a\": 1, # S3\n\"b\": 2}", comment},
		{"a comma at the end of an object", "{\"a\": 1,\n}", "delete the comma before }"},
		{"a comma at the end of a list", "[1, 2, ]", "delete the comma before ]"},
		{"two commas", "[1,, 2]", "delete this comma"},
		{"a comma at the start", "[, 2]", "delete this comma"},
		{"single quotes", `{'a': 1}`, quotes},
		{"a value in single quotes", `{"a": 'b'}`, quotes},
		{"Python's True", `{"a": True}`, "True is not JSON; write true, false or null, in lower case"},
		{"Python's None", `{"a": None}`, "None is not JSON; write true, false or null, in lower case"},
		{"undefined", `{"a": undefined}`, "undefined is not JSON; write true, false or null, in lower case"},
		{"a field without quotes", `{defaultAction: "deny"}`, "JSON field names need double quotes"},
		{"a second field without quotes", "{\"a\": 1,\n  b: 2}", "JSON field names need double quotes"},
		{"YAML", "defaultAction: deny\nallowedDestinations: []\n", yaml},
		{"YAML that starts with n, as null does", "name: x\n", yaml},
		{"YAML's list", "- name: a\n  cidr: 10.0.0.0/8\n", yaml},
		{"YAML's separator", "---\na: 1\n", yaml},
		{"YAML after a comment", "# egress\n\ndefaultAction: deny\n", yaml},
		{"a zero byte", "{\"a\": \"b\x00c\"}", ""},
		{"a byte order mark at the start", "\ufeff{}", "save the file as UTF-8 without it"},
		{"escaped quotes", `{\"a\": 1}`, "the quotes are escaped twice; delete the backslashes"},
		{"HTML's quotes", `{&quot;a&quot;: 1}`, `replace the HTML entity &quot; with "`},
		{"a template", `{"a": {{ .Values.a }}}`, template},
		{"a whole template", `{{ toJson .Values.a }}`, template},
		{"a variable", `{"a": ${a}}`, template},
		{"a merge conflict", "{\n<<<<<<< HEAD\n\"a\": 1}", "the document contains a merge conflict; resolve it"},
		{"empty", "", ""},
		{"truncated", `{"a": [`, ""},
		{"a second value", `{} {}`, ""},
		{"a missing comma", `{"a": 1 "b": 2}`, ""},
		{"a letter", `{"ä": x}`, ""},
		{"nested", strings.Repeat("[", 20000), ""},
		{"a comma too far away", "[1," + strings.Repeat(" ", 100) + "]", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			reason, offset := syntaxError([]byte(test.data))
			require.NotEmpty(t, reason)
			require.Equal(t, test.want, syntaxHint([]byte(test.data), offset), reason)
			node, err := Parse([]byte(test.data))
			require.Nil(t, node)
			require.Equal(t, test.want == "", strings.HasSuffix(err.Error(), " at "+lineColumn([]byte(test.data), offset)))
		})
	}
}

// FuzzSyntaxHint checks that a hint is one short, printable line at any offset of any document.
func FuzzSyntaxHint(f *testing.F) {
	f.Add([]byte("{“a”: 1}"), 1)
	f.Add([]byte("\xff\xfe{\x00"), 0)
	f.Add([]byte("{\u00a0\"a\": True,}"), 12)
	f.Fuzz(func(t *testing.T, data []byte, offset int) {
		if offset < 0 || offset > len(data) {
			return
		}
		hint := syntaxHint(data, offset)
		require.Less(t, len(hint), 120)
		for _, r := range hint {
			require.True(t, unicode.IsPrint(r), "%q", hint)
		}
	})
}
