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

	"egress-agent/pkg/platform"
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
	document string // the text of the current YAML document, or of the whole file for JSON
	budget   int    // the number of fields and bytes that manifest may still read, because aliases can multiply them
}

// decodeFile adds the policy ConfigMaps in a file to result, in the order of the file. data contains any number of YAML
// documents, one JSON object, or a bare policy.json. For a bare policy.json, decodeFile makes a ConfigMap with the name
// of the file.
//
// A folder usually contains other files as well. If inFolder is true, decodeFile prints a note about an object that is
// not a Kubernetes object, and skips it. It also skips a part that it cannot read, unless that part looks like a
// policy.
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
	return Source{File: file, lines: newLineIndex(string(data)), key: policy.Key, ConfigMap: &corev1.ConfigMap{
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
// anchors of earlier documents. After an error the library reads no further document. So readYAML then reads each
// remaining document separately.
func (m *manifest) readYAML(text string) {
	documents := splitDocuments(text)
	readCount, err := m.readDocuments(text, documents)
	if err != nil && len(documents) == 1 {
		m.handleError(yamlError(err, 0))
		return
	}
	if err == nil {
		return
	}
	for _, d := range documents[readCount:] {
		m.document = d.text
		if _, err := m.readDocuments(d.text, []document{d}); err != nil {
			m.handleError(yamlError(err, d.linesBefore))
		}
	}
}

// readDocuments reads text up to the first error. documents are the parts of text. readCount is the number of documents
// that readDocuments has read, without the document that has the error.
func (m *manifest) readDocuments(text string, documents []document) (readCount int, err error) {
	decoder := yaml.NewDecoder(strings.NewReader(text))
	for m.budget >= 0 {
		var tree yaml.Node
		switch err := decoder.Decode(&tree); {
		case errors.Is(err, io.EOF):
			return len(documents), nil
		case err != nil:
			return readCount, err
		}
		root := tree.Content[0]
		shiftLines(root, documents[0].linesBefore)
		for readCount < len(documents) && documents[readCount].linesBefore < root.Line {
			readCount++
		}
		if m.document = documents[max(readCount, 1)-1].text; root.ShortTag() != "!!null" {
			m.handleError(m.readObject(root, false))
		}
	}
	return len(documents), nil // spend has already returned an error about the budget
}

// document is one YAML document of a file.
type document struct {
	text        string
	linesBefore int // the number of lines in the file before text
}

// splitDocuments splits a text at the lines that begin or end YAML documents. Three dashes or three dots at the start
// of a line are such a marker in any context (https://yaml.org/spec/1.2.2/#912-document-markers). But a directive
// stands before the marker and belongs to the next document, so splitDocuments does not split a text with a directive.
func splitDocuments(text string) []document {
	if strings.HasPrefix(text, "%") || strings.Contains(text, "\n%") {
		return []document{{text, 0}}
	}
	var documents []document
	start, linesBefore, line := 0, 0, 0
	for offset := 0; offset < len(text); line++ {
		rest := text[offset:]
		isMarker := (strings.HasPrefix(rest, "---") || strings.HasPrefix(rest, "...")) &&
			(len(rest) == 3 || strings.ContainsRune(" \t\r\n", rune(rest[3])))
		if offset > 0 && isMarker {
			documents = append(documents, document{text[start:offset], linesBefore})
			start, linesBefore = offset, line
		}
		end := strings.IndexByte(rest, '\n')
		if end < 0 {
			break
		}
		offset += end + 1
	}
	return append(documents, document{text[start:], linesBefore})
}

// shiftLines adds count to the line of every node in a tree.
func shiftLines(node *yaml.Node, count int) {
	node.Line += count
	for _, child := range node.Content {
		shiftLines(child, count)
	}
}

// readError is the reason why a file, or an object in a file, cannot be read.
type readError struct {
	Position    // the zero Position if unknown
	message     string
	isNotObject bool // the document is not a Kubernetes object, so it cannot be a policy
}

func (e *readError) Error() string { return e.message }

func errorAt(node *yaml.Node, format string, args ...any) *readError {
	return &readError{Position: Position{node.Line, node.Column}, message: fmt.Sprintf(format, args...)}
}

// handleError adds an error to result.Unread if the user named the file, or if the document looks like a policy. For
// any other document it only prints a note. It does nothing if err is nil.
func (m *manifest) handleError(err *readError) {
	switch {
	case err == nil:
		return
	case !m.inFolder || !err.isNotObject && looksLikePolicy(m.document) && !templateAction.MatchString(m.document):
		line := m.file
		if err.Line > 0 {
			line += fmt.Sprintf(":%d", err.Line)
		}
		if err.Column > 0 {
			line += fmt.Sprintf(":%d", err.Column)
		}
		m.result.Unread = append(m.result.Unread, FileMessage{m.file, err.Position, err.message, line + ": " + err.message})
	case templateAction.MatchString(m.document):
		m.noteSkipped("it is a template; give the rendered manifests")
	default:
		m.noteSkipped(err.message)
	}
}

// noteSkipped prints a note that decodeFile skips a part of the file. It prints the note once for each reason.
func (m *manifest) noteSkipped(reason string) {
	if !m.noted[reason] {
		m.noted[reason] = true
		m.notes.Line("%s: skipped: %s", m.file, reason)
	}
}

// looksLikePolicy reports whether the author of an unreadable text probably meant it as a policy ConfigMap.
func looksLikePolicy(text string) bool {
	text = strings.ReplaceAll(text, "\x00", "") // the text may be UTF-16
	return strings.Contains(text, policy.Label) && (strings.Contains(text, policy.Key) || strings.Contains(text, platform.Key) || strings.Contains(text, "allowedDestinations"))
}

// templateAction matches an action of a Go template, such as in a Helm chart. It does not match a policy that has {{ by
// mistake, because a quote follows those braces.
var templateAction = regexp.MustCompile(`\{\{-?\s*(/\*|[.$(a-zA-Z])`)

// jsonError returns an error with the position of a JSON syntax error.
func (m *manifest) jsonError(err *json.SyntaxError) *readError {
	c := m.lines.cursorAt(1)
	for int64(c.offset) < err.Offset-1 {
		c.next()
	}
	return &readError{Position: c.Position, message: "invalid JSON: " + err.Error()}
}

var (
	yamlLinePrefix = regexp.MustCompile(`^line (\d+): `)
	// yamlParserMessage matches messages of the YAML library's parser. In these messages the library counts lines from
	// 0, and omits line 0. In messages of the library's scanner it counts lines from 1
	// (https://github.com/go-yaml/yaml/blob/v3.0.1/decode.go, parser.fail).
	yamlParserMessage = regexp.MustCompile(`^did not find expected (<|node content|key|'-' indicator|',' or )`)
)

// yamlError returns an error with the YAML library's message and the line in the file. linesBefore is the number of
// lines before the text that the library has read.
func yamlError(err error, linesBefore int) *readError {
	message, line := strings.TrimPrefix(err.Error(), "yaml: "), 0
	if match := yamlLinePrefix.FindStringSubmatch(message); match != nil {
		line, _ = strconv.Atoi(match[1]) // yamlLinePrefix matches only digits
		message = message[len(match[0]):]
	}
	if yamlParserMessage.MatchString(message) {
		line++
	}
	if line > 0 {
		line += linesBefore
	}
	return &readError{Position: Position{Line: line}, message: "invalid YAML: " + message}
}
