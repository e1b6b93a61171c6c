package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"egress-agent/pkg/policy"
)

// Output writes the output of an offline command. It is not an io.Writer, so text from a file can reach the output only
// through a method of Output. Each method escapes its arguments for one format.
type Output struct{ w io.Writer }

// NewOutput returns an Output that writes to w.
func NewOutput(w io.Writer) Output { return Output{w} }

// Unescaped returns the writer. Use it for output that the caller escapes itself, such as the page and a table's
// colours. Use it also for output that contains no text from files, such as help and the progress on a terminal.
func (o Output) Unescaped() io.Writer { return o.w }

// Line writes one line of text. The format must be a constant. Line escapes the arguments.
func (o Output) Line(format string, args ...any) {
	fmt.Fprintln(o.w, EscapeCommands(fmt.Sprintf(format, escapeArgs(args, Printable)...)))
}

// Problems writes a line for each problem: FILE: NAMESPACE/NAME: MESSAGE (PATH). It puts prefix before each MESSAGE.
func (o Output) Problems(source Source, prefix string, problems policy.Problems) {
	for _, p := range problems {
		o.Line("%s: %s%s", source, prefix, p)
	}
}

// Markdown writes text in the Markdown language. The format contains Markdown that the method does not escape. The
// method escapes the arguments, so that GitHub shows them as plain text.
func (o Output) Markdown(format string, args ...any) {
	fmt.Fprintf(o.w, format, escapeArgs(args, escapeMarkdown)...)
}

// Workflow writes a GitHub workflow command, such as error, that marks a line of a file. If file is empty, the command
// marks no line (https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands).
func (o Output) Workflow(command, file string, at Position, message string) {
	if file == "" {
		fmt.Fprintf(o.w, "::%s::%s\n", command, escapeWorkflowMessage(message))
		return
	}
	fmt.Fprintf(o.w, "::%s file=%s,line=%d,col=%d::%s\n", command, escapeWorkflowValue(file), at.Line, at.Column, escapeWorkflowMessage(message))
}

// JSON writes value as indented JSON.
func (o Output) JSON(value any) error {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return err
	}
	_, err := io.WriteString(o.w, escapeJSON(b.String()))
	return err
}

// YAML writes a YAML document in block style for each value. Field names are the same as in JSON.
func (o Output) YAML(values ...any) error {
	var b bytes.Buffer
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	for _, value := range values {
		encoded, err := json.Marshal(value)
		if err != nil {
			return err
		}
		var node yaml.Node
		if err := yaml.Unmarshal([]byte(escapeYAML(string(encoded))), &node); err != nil {
			return err
		}
		setBlockStyle(&node)
		if err := encoder.Encode(&node); err != nil {
			return err
		}
	}
	if len(values) == 0 {
		return nil // Close fails for an encoder without documents
	}
	if err := encoder.Close(); err != nil {
		return err
	}
	_, err := io.WriteString(o.w, escapeYAML(b.String()))
	return err
}

// setBlockStyle sets the style of a tree. Mappings and lists use several lines. A string with a character to escape
// gets double quotes, because YAML supports escapes only inside double quotes.
func setBlockStyle(node *yaml.Node) {
	node.Style = 0
	if node.Kind == yaml.ScalarNode && node.ShortTag() == "!!str" && EscapeCommands(Printable(node.Value)) != node.Value {
		node.Style = yaml.DoubleQuotedStyle
		isPlain := func(line string) bool { return EscapeCommands(Printable(line)) == line }
		if !slices.ContainsFunc(strings.Split(node.Value, "\n"), func(line string) bool { return !isPlain(line) }) {
			node.Style = yaml.LiteralStyle
		}
	}
	for _, child := range node.Content {
		setBlockStyle(child)
	}
}

// escapeArgs returns a copy of args in which escaped text replaces every argument that is not a number or a bool.
func escapeArgs(args []any, escape func(string) string) []any {
	escaped := make([]any, len(args))
	for i, arg := range args {
		switch arg.(type) {
		case int, int64, bool:
			escaped[i] = arg
		default:
			escaped[i] = escape(fmt.Sprint(arg))
		}
	}
	return escaped
}

// UsageError writes an error about wrong usage and a line that names --help. For errors that errors.Join joined, it
// writes one line each.
func (o Output) UsageError(program string, err error) {
	for _, part := range splitErrors(err) {
		o.Line("%s: %s", program, part)
	}
	o.Line("Run '%s --help' for usage.", program)
}

// splitErrors returns the errors that errors.Join joined, at any depth.
func splitErrors(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var parts []error
	for _, part := range joined.Unwrap() {
		parts = append(parts, splitErrors(part)...)
	}
	return parts
}

// Result writes the result of a command as JSON. It returns status, or ExitUsage if it cannot write the result.
func (o Output) Result(stderr Output, program string, result any, status int) int {
	if err := o.JSON(result); err != nil {
		stderr.UsageError(program, err)
		return ExitUsage
	}
	return status
}
