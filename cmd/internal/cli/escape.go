package cli

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Printable escapes everything in text that is not printable, with Go's escapes. It escapes control characters, line
// breaks and terminal escapes. It also escapes marks that change the direction of text, U+FFFD and bytes that are not
// UTF-8.
func Printable(text string) string {
	return escapeUnprintable(text, func(r rune, invalidByte byte) string {
		switch {
		case invalidByte != 0:
			return fmt.Sprintf(`\x%02x`, invalidByte)
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

// escapeUnprintable replaces each character that is not printable with the result of escape(r, 0). It replaces each
// byte that is not UTF-8 with the result of escape(U+FFFD, invalidByte).
func escapeUnprintable(text string, escape func(r rune, invalidByte byte) string) string {
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

// EscapeCommands escapes a line of printable text so that no CI system runs it as a command. GitHub's runner runs a
// line that begins with ::, after optional spaces, or that contains ##[
// (https://github.com/actions/runner/blob/main/src/Runner.Common/ActionCommand.cs). Azure Pipelines runs a line that
// contains ##vso[ (https://learn.microsoft.com/azure/devops/pipelines/scripts/logging-commands).
func EscapeCommands(line string) string {
	line = escapeHashes(line, `\x23`)
	if text := strings.TrimLeft(line, " "); strings.HasPrefix(text, "::") {
		line = line[:len(line)-len(text)] + `\x3a` + text[1:]
	}
	return line
}

var hashes = regexp.MustCompile(`##+`)

// markdownEscapes escape the characters that have a meaning in Markdown or HTML. Entities alone do not stop GitHub's
// mentions, references and links, because GitHub first decodes entities and then finds links. A zero-width space
// (U+200B) inside a mention, a reference or a link stops GitHub.
var (
	markdownEscapes = strings.NewReplacer(`\`, `\\`, "|", `\|`, "`", "\\`", "<", "&lt;", ">", "&gt;", "&", "&amp;", "*", `\*`, "_", `\_`,
		"[", `\[`, "]", `\]`, "~", `\~`, "$", "&#36;", "@", "@&#8203;", "#", "#&#8203;", "://", ":&#8203;//", "www.", "www&#8203;.")
	markdownReference = regexp.MustCompile(`(?i)\bGH-\b`)
)

// escapeMarkdown escapes text for Markdown on GitHub, in a heading or a table cell.
func escapeMarkdown(text string) string {
	return markdownReference.ReplaceAllString(markdownEscapes.Replace(Printable(text)), "$0&#8203;")
}

// messageEscapes and valueEscapes are GitHub's escapes in a workflow command. valueEscapes are for the values that
// stand before the message, such as the file's name
// (https://github.com/actions/toolkit/blob/main/packages/core/src/command.ts).
var (
	messageEscapes = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	valueEscapes   = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
)

func escapeWorkflowMessage(text string) string {
	return messageEscapes.Replace(EscapeCommands(Printable(text)))
}

func escapeWorkflowValue(text string) string {
	return valueEscapes.Replace(EscapeCommands(Printable(text)))
}

// escapeJSON escapes characters that the JSON encoder writes unchanged, such as the C1 controls. They occur only in
// strings, where escapes are valid. Outside strings the encoder writes only printable characters and line breaks, and
// never ##.
func escapeJSON(text string) string {
	return escapeHashes(escapeUnprintable(text, func(r rune, _ byte) string {
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

// escapeYAML does for the YAML encoder what escapeJSON does for the JSON encoder.
func escapeYAML(text string) string {
	return escapeHashes(escapeUnprintable(text, func(r rune, _ byte) string {
		switch {
		case r == '\n':
			return "\n"
		case r < 0x10000:
			return fmt.Sprintf(`\u%04x`, r)
		}
		return fmt.Sprintf(`\U%08x`, r)
	}), `\x23`)
}

// escapeHashes replaces each # that follows another # with escapedHash.
func escapeHashes(text, escapedHash string) string {
	return hashes.ReplaceAllStringFunc(text, func(run string) string { return "#" + strings.Repeat(escapedHash, len(run)-1) })
}
