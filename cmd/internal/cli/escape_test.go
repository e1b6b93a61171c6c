package cli

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

func TestLineEscapes(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"plain", "tenant-a/egress: é 漢 \"x\" \\d", "tenant-a/egress: é 漢 \"x\" \\d"},
		{"terminal escape", "a\x1b[31mb", `a\x1b[31mb`},
		{"C1 control", "a\u009b31mb\u0085", `a\u009b31mb\u0085`},
		{"line breaks", "a\r\nb\tc\u2028", `a\r\nb\tc\u2028`},
		{"delete, and not UTF-8", "a\x7fb\xff\ufffd", `a\x7fb\xff\ufffd`},
		{"marks of text direction", "a\u202eb\u2066\u200b", `a\u202eb\u2066\u200b`},
		{"beyond 16 bits", "\U000e0041", `\U000e0041`},
		{"workflow command", "::error::x", `\x3a:error::x`},
		{"workflow command after spaces", "  ::error::x", `  \x3a:error::x`},
		{"colons elsewhere", "fd00::1", "fd00::1"},
		{"older workflow command", "x ##[error]y", `x #\x23[error]y`},
		{"Azure Pipelines command", "###vso[task.complete]", `#\x23\x23vso[task.complete]`},
	} {
		t.Run(test.name, func(t *testing.T) {
			var b bytes.Buffer
			NewOutput(&b).Line("%s", test.text)
			require.Equal(t, test.want+"\n", b.String())
		})
	}
}

func TestMarkdownEscapes(t *testing.T) {
	var b bytes.Buffer
	NewOutput(&b).Markdown("| %s | %d |\n", "a|b `c` *d* _e_ [f](g) <h> & @org/team #1 GH-1 https://x www.y ~z~ $1$\n\x1b", 7)
	require.Equal(t, "| a\\|b \\`c\\` \\*d\\* \\_e\\_ \\[f\\](g) &lt;h&gt; &amp; @&#8203;org/team #&#8203;1 GH-&#8203;1 "+
		"https:&#8203;//x www&#8203;.y \\~z\\~ &#36;1&#36;\\\\n\\\\x1b | 7 |\n", b.String())
}

func TestWorkflowEscapes(t *testing.T) {
	var b bytes.Buffer
	NewOutput(&b).Workflow("error", "a,b:c%\n.yaml", Position{3, 4}, "100% ::x\n##[y]")
	NewOutput(&b).Workflow("warning", "", Position{3, 4}, "x")
	require.Equal(t, "::error file=a%2Cb%3Ac%25\\n.yaml,line=3,col=4::100%25 ::x\\n#\\x23[y]\n::warning::x\n", b.String())
}

// JSON and YAML write printable text, which decodes to the same value.
func TestEncodersRoundTrip(t *testing.T) {
	value := map[string]any{
		"plain": "a b", "::key": "::error::x", "\x1bkey": "\x1b[31m\u009b\u202e\U000e0041\x7f\u0085\ufffd",
		"lines": "a\n::error::b\n##[c]\n", "hashes": "###[x] \\##", "long": "a ::b # c",
	}
	for name, write := range map[string]func(Output) error{
		"JSON": func(o Output) error { return o.JSON(value) },
		"YAML": func(o Output) error { return o.YAML(value, value) },
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			require.NoError(t, write(NewOutput(&b)))
			for _, line := range bytes.Split(bytes.TrimSpace(b.Bytes()), []byte("\n")) {
				require.Equal(t, string(line), EscapeCommands(Printable(string(line))))
			}
			var decoded map[string]any
			if name == "JSON" {
				require.NoError(t, json.Unmarshal(b.Bytes(), &decoded))
			} else {
				require.NoError(t, yaml.Unmarshal(b.Bytes(), &decoded))
			}
			require.Equal(t, value, decoded)
		})
	}
}
