package policy

import (
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
)

func TestSyntaxHint(t *testing.T) {
	const comment, comma, double, utf16 = "JSON has no comments; delete it", "delete the comma before it", "JSON writes strings in double quotes", "it is UTF-16; save it as UTF-8"
	for _, test := range []struct{ name, data, want string }{
		{"curly quotes", `{“defaultAction”: "deny"}`, "“ is a curly quote; write straight ones"},
		{"German ones", `{„defaultAction“: "deny"}`, "„ is a curly quote; write straight ones"},
		{"single curly quotes", `{‘defaultAction’: "deny"}`, "‘ is a curly quote; write straight ones"},
		{"a curly quote at the end", `{"defaultAction”: "deny"}`, "” before it is a curly quote; write straight ones"},
		{"a curly quote as value", `{"defaultAction": “deny"}`, "“ is a curly quote; write straight ones"},
		{"curly quotes in Windows-1252", "{\x93defaultAction\x94: 1}", "a curly quote in another encoding; write straight ones, and save it as UTF-8"},
		{"Latin-1", "{\"n\": \"\xe9\"}", "save it as UTF-8"},
		{"UTF-16 with a mark", "\xff\xfe{\x00}\x00", utf16},
		{"big-endian UTF-16 with a mark", "\xfe\xff\x00{\x00}", utf16},
		{"UTF-16 without a mark", "{\x00\"\x00a\x00", utf16},
		{"big-endian UTF-16 without a mark", "\x00{\x00\"", utf16},
		{"a non-breaking space", "{\u00a0\"a\": 1}", "it is the space U+00A0; write a plain one"},
		{"a zero-width space", "{\u200b\"a\": 1}", "it is the invisible character U+200B; delete it"},
		{"a mark in the middle", "{\ufeff\"a\": 1}", "it is a byte order mark; delete it"},
		{"a full-width colon", "{\"a\"\uff1a 1}", "\uff1a is a full-width character; write :"},
		{"a comment", "{\n  // S3\n \"a\": 1}", comment},
		{"a comment at the end", "{\"a\": 1} // S3", comment},
		{"a block comment", "{\"a\": /* S3 */ 1}", comment},
		{"a hash", "{\"a\": 1, # S3\n\"b\": 2}", comment},
		{"a comma at the end of an object", "{\"a\": 1,\n}", comma},
		{"a comma at the end of a list", "[1, 2, ]", comma},
		{"two commas", "[1,, 2]", "delete the comma"},
		{"a comma at the start", "[, 2]", "delete the comma"},
		{"single quotes", `{'a': 1}`, double},
		{"a value in single quotes", `{"a": 'b'}`, double},
		{"Python's True", `{"a": True}`, "True is no JSON; true, false and null are in lower case"},
		{"Python's None", `{"a": None}`, "None is no JSON; true, false and null are in lower case"},
		{"undefined", `{"a": undefined}`, "undefined is no JSON; true, false and null are in lower case"},
		{"a field without quotes", `{defaultAction: "deny"}`, "JSON writes the names of fields in double quotes"},
		{"a second field without quotes", "{\"a\": 1,\n  b: 2}", "JSON writes the names of fields in double quotes"},
		{"YAML", "defaultAction: deny\nallowedDestinations: []\n", "it looks like YAML; write JSON"},
		{"YAML that begins as null does", "name: x\n", "it looks like YAML; write JSON"},
		{"YAML's list", "- name: a\n  cidr: 10.0.0.0/8\n", "it looks like YAML; write JSON"},
		{"YAML's separator", "---\na: 1\n", "it looks like YAML; write JSON"},
		{"YAML after a comment", "# egress\n\ndefaultAction: deny\n", "it looks like YAML; write JSON"},
		{"a zero byte", "{\"a\": \"b\x00c\"}", ""},
		{"a mark at the start", "\ufeff{}", ""},
		{"escaped quotes", `{\"a\": 1}`, "its quotes are escaped once too often; delete the backslashes"},
		{"HTML's quotes", `{&quot;a&quot;: 1}`, `&quot; is HTML; write "`},
		{"a template", `{"a": {{ .Values.a }}}`, "it is a template that nothing has filled in"},
		{"a whole template", `{{ toJson .Values.a }}`, "it is a template that nothing has filled in"},
		{"a variable", `{"a": ${a}}`, "it is a template that nothing has filled in"},
		{"a merge conflict", "{\n<<<<<<< HEAD\n\"a\": 1}", "it is an unresolved merge conflict"},
		{"nothing", "", ""},
		{"cut", `{"a": [`, ""},
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
			document, problems := Parse([]byte(test.data))
			require.Nil(t, document)
			require.Equal(t, test.want == "", strings.HasSuffix(problems[0].Message, " at "+lineColumn([]byte(test.data), offset)))
		})
	}
}

// FuzzSyntaxHint: a hint is one bounded line that a terminal can show, at any place of any document.
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
