package cli

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Printable shows what is not printable as Go escapes it: control characters, line breaks, terminal escapes, marks
// that turn the direction of text, U+FFFD and what is no UTF-8. Anything else stays as it is.
func Printable(text string) string {
	return escapeIn(text, func(r rune, raw byte) string {
		switch {
		case raw != 0:
			return fmt.Sprintf(`\x%02x`, raw)
		case r == '\n':
			return `\n`
		case r == '\t':
			return `\t`
		case r == '\r':
			return `\r`
		case r < utf8.RuneSelf:
			return fmt.Sprintf(`\x%02x`, r)
		case r < 0x10000:
			return fmt.Sprintf(`\u%04x`, r)
		}
		return fmt.Sprintf(`\U%08x`, r)
	})
}

// escapeIn replaces each character that is not printable by what escape gives for it: raw is 0, or the byte that is
// no UTF-8.
func escapeIn(text string, escape func(r rune, raw byte) string) string {
	if isPrintable(text) {
		return text
	}
	var b strings.Builder
	for i, size := 0, 0; i < len(text); i += size {
		var r rune
		r, size = utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b.WriteString(escape(r, text[i]))
		case r == utf8.RuneError || !strconv.IsPrint(r):
			b.WriteString(escape(r, 0))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func isPrintable(text string) bool {
	for _, r := range text {
		if r == utf8.RuneError || !strconv.IsPrint(r) {
			return false
		}
	}
	return true
}

// Line shows a line of printable text so that no CI acts on it. GitHub's runner takes a line for a command where ::
// begins it, after spaces, or where ##[ is anywhere in it
// (https://github.com/actions/runner/blob/main/src/Runner.Common/ActionCommand.cs), and Azure Pipelines where ##vso[
// is (https://learn.microsoft.com/azure/devops/pipelines/scripts/logging-commands).
func Line(line string) string {
	line = escapeHashes(line, `\x23`)
	if text := strings.TrimLeft(line, " "); strings.HasPrefix(text, "::") {
		line = line[:len(line)-len(text)] + `\x3a` + text[1:]
	}
	return line
}

var hashes = regexp.MustCompile(`##+`)

// markdownEscapes keep text from being read as Markdown or HTML. The character of no width (U+200B) keeps GitHub
// from making mentions, references and links of it: those are found after entities are decoded.
var (
	markdownEscapes = strings.NewReplacer(`\`, `\\`, "|", `\|`, "`", "\\`", "<", "&lt;", ">", "&gt;", "&", "&amp;", "*", `\*`, "_", `\_`,
		"[", `\[`, "]", `\]`, "~", `\~`, "$", "&#36;", "@", "@&#8203;", "#", "#&#8203;", "://", ":&#8203;//", "www.", "www&#8203;.")
	markdownReference = regexp.MustCompile(`(?i)\bGH-\b`)
)

// Markdown shows text in Markdown on GitHub, in a heading or a cell of a table.
func Markdown(text string) string {
	return markdownReference.ReplaceAllString(markdownEscapes.Replace(Printable(text)), "$0&#8203;")
}

// GitHub's escapes for a command's message and for the values before it
// (https://github.com/actions/toolkit/blob/main/packages/core/src/command.ts).
var (
	messageEscapes = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	valueEscapes   = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
)

func workflowMessage(text string) string { return messageEscapes.Replace(Line(Printable(text))) }
func workflowValue(text string) string   { return valueEscapes.Replace(Line(Printable(text))) }

// jsonText and yamlText escape what those encoders write as it is, such as the C1 controls. Outside of strings they
// write printable characters, line breaks, and never two of #.
func jsonText(text string) string {
	return escapeHashes(escapeIn(text, func(r rune, _ byte) string {
		switch {
		case r == '\n':
			return "\n"
		case r < 0x10000:
			return fmt.Sprintf(`\u%04x`, r)
		}
		high, low := utf16.EncodeRune(r)
		return fmt.Sprintf(`\u%04x\u%04x`, high, low)
	}), `\u0023`)
}

func yamlText(text string) string {
	return escapeHashes(escapeIn(text, func(r rune, _ byte) string {
		switch {
		case r == '\n':
			return "\n"
		case r < 0x10000:
			return fmt.Sprintf(`\u%04x`, r)
		}
		return fmt.Sprintf(`\U%08x`, r)
	}), `\x23`)
}

// escapeHashes replaces each # after another.
func escapeHashes(text, by string) string {
	return hashes.ReplaceAllStringFunc(text, func(found string) string { return "#" + strings.Repeat(by, len(found)-1) })
}
