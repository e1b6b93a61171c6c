package markdown

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func read(t *testing.T, content string) (*Document, error) {
	path := filepath.Join(t.TempDir(), "x.md")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return Read(path)
}

func TestRead(t *testing.T) {
	d, err := read(t, "# Of `one`, and [two](x.md#y)!\n```sh\na\nb\n```\n\n```text\n1\n```\n## Two\n### Three\n```sh exits 2\nc\n```\n"+
		"See [it](#two) `[not](this)`, [`that`](https://example.com).\n```yaml\n[a](b): c\n```\n### Two\n")
	require.NoError(t, err)
	require.Equal(t, &Document{
		Commands: []Command{
			{Section: "Of `one`, and [two](x.md#y)!", Line: 2, Script: "a\nb\n", Output: "1\n"},
			{Section: "Two", Line: 12, Script: "c\n", Status: 2},
		},
		Anchors: []string{"of-one-and-two", "two", "three", "two-1"},
		Links:   []Link{{1, "x.md#y"}, {15, "#two"}, {15, "https://example.com"}},
	}, d)
	require.Equal(t, d.Commands[1:], d.Section("Two"))
	require.Empty(t, d.Section("Three"))
}

func TestReadWrong(t *testing.T) {
	for _, test := range []struct{ name, content, message string }{
		{"no language", "```\na\n```\n", `a block is sh, sh exits STATUS, text, yaml, json or mermaid, not ""`},
		{"another shell", "```bash\na\n```\n", `not "bash"`},
		{"a status that is 0", "```sh exits 0\na\n```\n", `not "sh exits 0"`},
		{"output of nothing", "```text\na\n```\n", "output must follow the commands that print it"},
		{"output after words", "```sh\na\n```\nwords\n```text\na\n```\n", "output must follow"},
		{"output twice", "```sh\na\n```\n```text\na\n```\n```text\na\n```\n", "output must follow"},
		{"open", "```sh\na\n", "the block of line 1 is not closed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := read(t, test.content)
			require.ErrorContains(t, err, test.message)
		})
	}
}

func TestPrints(t *testing.T) {
	c := Command{Output: "NAME   AGE\negress …s\n\na.b [c] … d\n"}
	require.True(t, c.Prints("NAME AGE\negress    12s  \n\na.b [c]  x y d\n"))
	for _, other := range []string{
		"", "NAME AGE\n", "NAME AGE\negress 12m\n\na.b [c] x d\n", "NAME AGE\negress 12s\n\naxb [c] x d\n",
		"NAME AGE\negress 12s\n\na.b [c] x d\nmore\n", "NAME AGE\negress 12\ns\n\na.b [c] x d\n",
	} {
		require.False(t, c.Prints(other), other)
	}
	require.True(t, Command{}.Prints(""))
}
