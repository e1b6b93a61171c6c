package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"gopkg.in/yaml.v3"

	"egress-agent/pkg/policy"
)

// Output is where an offline verb writes. It is no io.Writer: what a file says leaves the program only through the
// method of a format, which shows it escaped.
type Output struct{ w io.Writer }

// NewOutput returns an Output that writes to w.
func NewOutput(w io.Writer) Output { return Output{w} }

// Unescaped returns the writer, for what escapes by other means: the page, a table's colours, the progress on a
// terminal, and help.
func (o Output) Unescaped() io.Writer { return o.w }

// Line writes one line of text. The format is the program's own; arguments are shown, whatever they hold.
func (o Output) Line(format string, args ...any) {
	fmt.Fprintln(o.w, Line(fmt.Sprintf(format, shown(args, Printable)...)))
}

// Problems writes a line each: FILE: NAMESPACE/NAME: MESSAGE (PATH), with a prefix before the message.
func (o Output) Problems(source Source, prefix string, problems policy.Problems) {
	for _, p := range problems {
		o.Line("%s: %s%s", source, prefix, p)
	}
}

// Markdown writes Markdown. The format is Markdown; arguments are text.
func (o Output) Markdown(format string, args ...any) {
	fmt.Fprintf(o.w, format, shown(args, Markdown)...)
}

// Workflow writes a command of GitHub's workflows, such as error, that marks a line of a file: of none where file is
// empty (https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands).
func (o Output) Workflow(command, file string, at Position, message string) {
	if file == "" {
		fmt.Fprintf(o.w, "::%s::%s\n", command, workflowMessage(message))
		return
	}
	fmt.Fprintf(o.w, "::%s file=%s,line=%d,col=%d::%s\n", command, workflowValue(file), at.Line, at.Column, workflowMessage(message))
}

// JSON writes a value as indented JSON.
func (o Output) JSON(value any) error {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return err
	}
	_, err := io.WriteString(o.w, jsonText(b.String()))
	return err
}

// YAML writes a document for each value, by the names that it has in JSON, in block style.
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
		if err := yaml.Unmarshal([]byte(yamlText(string(encoded))), &node); err != nil {
			return err
		}
		blockStyle(&node)
		if err := encoder.Encode(&node); err != nil {
			return err
		}
	}
	if len(values) == 0 {
		return nil // an encoder without documents cannot be closed
	}
	if err := encoder.Close(); err != nil {
		return err
	}
	_, err := io.WriteString(o.w, yamlText(b.String()))
	return err
}

// blockStyle writes mappings and lists over several lines, and text in double quotes where a character of it is to
// be escaped: YAML escapes in no other style.
func blockStyle(node *yaml.Node) {
	node.Style = 0
	if node.Kind == yaml.ScalarNode && node.ShortTag() == "!!str" && Line(Printable(node.Value)) != node.Value {
		node.Style = yaml.DoubleQuotedStyle
	}
	for _, child := range node.Content {
		blockStyle(child)
	}
}

// shown replaces what is no number, by its text, escaped.
func shown(args []any, escape func(string) string) []any {
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

// Complain writes an error to stderr, each of those that are joined in it on a line, and says where help is.
func (o Output) Complain(program string, err error) {
	for _, each := range unjoined(err) {
		o.Line("%s: %s", program, each)
	}
	o.Line("Run '%s --help' for usage.", program)
}

// unjoined returns the errors that errors.Join made one of.
func unjoined(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, each := range joined.Unwrap() {
		all = append(all, unjoined(each)...)
	}
	return all
}

// Result writes a verb's result as JSON, and returns its exit status: the one given, if it could be written.
func (o Output) Result(stderr Output, program string, result any, status int) int {
	if err := o.JSON(result); err != nil {
		stderr.Complain(program, err)
		return ExitUsage
	}
	return status
}
