package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/policy"
)

// manifest reads the policy ConfigMaps of one file into result.
type manifest struct {
	result   *ReadResult
	file     string
	inFolder bool // the user named a folder, and not the file itself
	notes    Output
	noted    map[string]bool // the reasons that noteSkipped has printed
	lines    *lineIndex
	document string // the text of the current YAML document, or of the whole file
	budget   int    // fields and bytes that may still be read, so that aliases cannot multiply them without end
}

// decodeFile adds the policy ConfigMaps in a file to result, in their order. data is any number of YAML documents, one
// JSON object, or a bare policy.json. For a bare policy.json it makes a ConfigMap named after the file.
//
// A folder usually contains other files as well. If inFolder, decodeFile skips an object that is not a Kubernetes
// object with a note. It also skips a part that it cannot read, unless that part looks like a policy.
func decodeFile(result *ReadResult, file string, data []byte, inFolder bool, notes Output) {
	text := strings.TrimPrefix(string(data), "\ufeff")
	m := &manifest{
		result: result, file: file, inFolder: inFolder, notes: notes, noted: make(map[string]bool),
		lines: newLineIndex(text), document: text, budget: 4*len(text) + 1<<20,
	}
	start := strings.TrimLeft(text, " \t\r\n")
	if !strings.HasSuffix(file, ".json") && !strings.HasPrefix(start, "{") && !strings.HasPrefix(start, "[") {
		m.readYAML(text)
		return
	}
	var head struct{ Kind string }
	err := json.Unmarshal([]byte(text), &head)
	var syntax *json.SyntaxError
	switch {
	case err == nil && head.Kind != "":
		root := parseJSON(m.lines)
		m.handleError(m.readObject(&root, false))
	case !inFolder || filepath.Base(file) == policy.Key:
		result.Sources = append(result.Sources, barePolicy(file, data))
	case errors.As(err, &syntax) && !strings.HasSuffix(file, ".json"):
		m.readYAML(text) // YAML in flow style looks like JSON
	case errors.As(err, &syntax):
		m.handleError(m.jsonError(syntax))
	default:
		m.noteSkipped("it has no kind; if it is a policy, rename it to " + policy.Key + " or give the file itself with -f")
	}
}

func barePolicy(file string, data []byte) Source {
	return Source{File: file, lines: newLineIndex(string(data)), ConfigMap: &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: barePolicyName(file)},
		Data:       map[string]string{policy.Key: string(data)},
	}}
}

// simpleName matches names that are valid for every Kubernetes object.
var simpleName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)

func barePolicyName(file string) string {
	name := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
	if !simpleName.MatchString(name) {
		return "policy"
	}
	return name
}

// readYAML reads all documents of text. It first reads them together, because the YAML library lets a document use the
// anchors of earlier ones. After an error the library reads no more, so readYAML then reads each remaining document
// separately.
func (m *manifest) readYAML(text string) {
	all := splitDocuments(text)
	done, err := m.readDocuments(text, all)
	if err != nil && len(all) == 1 {
		m.handleError(yamlError(err, 0))
		return
	}
	if err == nil {
		return
	}
	for _, d := range all[done:] {
		m.document = d.text
		if _, err := m.readDocuments(d.text, []document{d}); err != nil {
			m.handleError(yamlError(err, d.linesBefore))
		}
	}
}

// readDocuments reads text, which consists of documents, up to the first error. It returns the number of documents that
// it has read.
func (m *manifest) readDocuments(text string, documents []document) (done int, err error) {
	decoder := yaml.NewDecoder(strings.NewReader(text))
	for m.budget >= 0 {
		var tree yaml.Node
		switch err := decoder.Decode(&tree); {
		case errors.Is(err, io.EOF):
			return len(documents), nil
		case err != nil:
			return done, err
		}
		root := tree.Content[0]
		shiftLines(root, documents[0].linesBefore)
		for done < len(documents) && documents[done].linesBefore < root.Line {
			done++
		}
		if m.document = documents[max(done, 1)-1].text; root.ShortTag() != "!!null" {
			m.handleError(m.readObject(root, false))
		}
	}
	return len(documents), nil // spend has already returned an error about the budget
}

// document is one YAML document of a file.
type document struct {
	text        string
	linesBefore int
}

// splitDocuments splits a text at the lines that begin or end YAML documents. A line of three dashes or dots does so in
// any context (https://yaml.org/spec/1.2.2/#912-document-markers). But a directive comes before that line and belongs
// to the next document, so splitDocuments does not split a text with a directive.
func splitDocuments(text string) []document {
	if strings.HasPrefix(text, "%") || strings.Contains(text, "\n%") {
		return []document{{text, 0}}
	}
	var all []document
	start, linesBefore, line := 0, 0, 0
	for offset := 0; offset < len(text); line++ {
		rest := text[offset:]
		isMarker := (strings.HasPrefix(rest, "---") || strings.HasPrefix(rest, "...")) &&
			(len(rest) == 3 || strings.ContainsRune(" \t\r\n", rune(rest[3])))
		if offset > 0 && isMarker {
			all = append(all, document{text[start:offset], linesBefore})
			start, linesBefore = offset, line
		}
		end := strings.IndexByte(rest, '\n')
		if end < 0 {
			break
		}
		offset += end + 1
	}
	return append(all, document{text[start:], linesBefore})
}

// shiftLines adds count to the line of every node in a tree.
func shiftLines(node *yaml.Node, count int) {
	node.Line += count
	for _, child := range node.Content {
		shiftLines(child, count)
	}
}

// readError says why a file, or an object in it, cannot be read.
type readError struct {
	Position    // the zero Position if unknown
	message     string
	isNotObject bool // the document is not a Kubernetes object, so it cannot be a policy
}

func (e *readError) Error() string { return e.message }

func errorAt(node *yaml.Node, format string, args ...any) *readError {
	return &readError{Position: Position{node.Line, node.Column}, message: fmt.Sprintf(format, args...)}
}

// handleError adds an error to result.Unread if the user named the file, or if the document looks like a policy. It
// only prints a note for other documents. It ignores nil.
func (m *manifest) handleError(err *readError) {
	switch {
	case err == nil:
		return
	case !m.inFolder || !err.isNotObject && looksLikePolicy(m.document) && !template.MatchString(m.document):
		line := m.file
		if err.Line > 0 {
			line += fmt.Sprintf(":%d", err.Line)
		}
		if err.Column > 0 {
			line += fmt.Sprintf(":%d", err.Column)
		}
		m.result.Unread = append(m.result.Unread, FileMessage{m.file, err.Position, err.message, line + ": " + err.message})
	case template.MatchString(m.document):
		m.noteSkipped("it is a template; give the rendered manifests")
	default:
		m.noteSkipped(err.message)
	}
}

// noteSkipped prints a note that a part of the file is skipped, once for each reason.
func (m *manifest) noteSkipped(reason string) {
	if !m.noted[reason] {
		m.noted[reason] = true
		m.notes.Line("%s: skipped: %s", m.file, reason)
	}
}

// looksLikePolicy reports whether the author of an unreadable text probably meant it as a policy ConfigMap.
func looksLikePolicy(text string) bool {
	text = strings.ReplaceAll(text, "\x00", "") // the text may be UTF-16
	return strings.Contains(text, policy.Label) && (strings.Contains(text, policy.Key) || strings.Contains(text, "allowedDestinations"))
}

// template matches an action of Go templates, as Helm charts contain. It does not match a policy with a doubled brace,
// because a quote follows that brace.
var template = regexp.MustCompile(`\{\{-?\s*(/\*|[.$(a-zA-Z])`)

// jsonError returns an error with the position of a JSON syntax error.
func (m *manifest) jsonError(err *json.SyntaxError) *readError {
	c := m.lines.cursorAt(1)
	for int64(c.offset) < err.Offset-1 {
		c.next()
	}
	return &readError{Position: c.Position, message: "invalid JSON: " + err.Error()}
}

var (
	yamlLine = regexp.MustCompile(`^line (\d+): `)
	// yamlParser matches messages of the YAML library's parser. In these the library counts lines from 0, and omits the
	// line if it is the first. In messages of the scanner it counts from 1
	// (https://github.com/go-yaml/yaml/blob/v3.0.1/decode.go, parser.fail).
	yamlParser = regexp.MustCompile(`^did not find expected (<|node content|key|'-' indicator|',' or )`)
)

// yamlError returns an error with the YAML library's message and the line in the file. linesBefore is the number of
// lines before the text that the library read.
func yamlError(err error, linesBefore int) *readError {
	message, line := strings.TrimPrefix(err.Error(), "yaml: "), 0
	if found := yamlLine.FindStringSubmatch(message); found != nil {
		line, _ = strconv.Atoi(found[1]) // yamlLine matches only digits
		message = message[len(found[0]):]
	}
	if yamlParser.MatchString(message) {
		line++
	}
	if line > 0 {
		line += linesBefore
	}
	return &readError{Position: Position{Line: line}, message: "invalid YAML: " + message}
}
