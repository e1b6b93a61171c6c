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

// manifest gathers the policy ConfigMaps of one file.
type manifest struct {
	found    *Found
	file     string
	inFolder bool // it was not named itself
	notes    Output
	noted    map[string]bool
	lines    *lines
	document string // the text of the YAML document that is read, or of the whole file
	budget   int    // how much aliases may still make of the file
}

// decode reads the policy ConfigMaps in a file's bytes, in their order: any number of YAML documents, one JSON
// object, or a bare policy.json, which is taken for a ConfigMap named after the file. A folder holds other files
// too: what is no Kubernetes object in one of them is passed over with a note, and so is what cannot be read and
// does not look like a policy.
func decode(found *Found, file string, data []byte, inFolder bool, notes Output) {
	text := strings.TrimPrefix(string(data), "\ufeff")
	m := &manifest{
		found: found, file: file, inFolder: inFolder, notes: notes, noted: make(map[string]bool),
		lines: newLines(text), document: text, budget: 4*len(text) + 1<<20,
	}
	start := strings.TrimLeft(text, " \t\r\n")
	if !strings.HasSuffix(file, ".json") && !strings.HasPrefix(start, "{") && !strings.HasPrefix(start, "[") {
		m.yaml(text)
		return
	}
	var head struct{ Kind string }
	err := json.Unmarshal([]byte(text), &head)
	var syntax *json.SyntaxError
	switch {
	case err == nil && head.Kind != "":
		root := jsonTree(m.lines)
		m.check(m.object(&root, false))
	case !inFolder || filepath.Base(file) == policy.Key:
		found.Sources = append(found.Sources, bare(file, data))
	case errors.As(err, &syntax) && !strings.HasSuffix(file, ".json"):
		m.yaml(text) // in its flow style
	case errors.As(err, &syntax):
		m.check(m.jsonError(syntax))
	default:
		m.note("it has no kind; if it is a policy, name it " + policy.Key + ", or the file after -f")
	}
}

func bare(file string, data []byte) Source {
	return Source{File: file, lines: newLines(string(data)), ConfigMap: &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: bareName(file)},
		Data:       map[string]string{policy.Key: string(data)},
	}}
}

// objectName is what Kubernetes takes for a ConfigMap's name, in its simplest form.
var objectName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)

func bareName(file string) string {
	name := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
	if !objectName.MatchString(name) {
		return "policy"
	}
	return name
}

// yaml reads all documents in turn, for the library knows the anchors of one in the next. After a mistake it reads no
// more: then each document that is left is read on its own.
func (m *manifest) yaml(text string) {
	all := documents(text)
	done, err := m.read(text, all)
	if err != nil && len(all) == 1 {
		m.check(yamlError(err, 0))
		return
	}
	if err == nil {
		return
	}
	for _, d := range all[done:] {
		m.document = d.text
		if _, err := m.read(d.text, []document{d}); err != nil {
			m.check(yamlError(err, d.before))
		}
	}
}

// read reads a text of these documents until a mistake, and returns how many of them it has read.
func (m *manifest) read(text string, documents []document) (done int, err error) {
	decoder := yaml.NewDecoder(strings.NewReader(text))
	for m.budget >= 0 {
		var document yaml.Node
		switch err := decoder.Decode(&document); {
		case errors.Is(err, io.EOF):
			return len(documents), nil
		case err != nil:
			return done, err
		}
		root := document.Content[0]
		shift(root, documents[0].before)
		for done < len(documents) && documents[done].before < root.Line {
			done++
		}
		if m.document = documents[max(done, 1)-1].text; root.ShortTag() != "!!null" {
			m.check(m.object(root, false))
		}
	}
	return len(documents), nil // what its aliases make of the rest is said
}

// document is a part of a file's text, after a number of lines.
type document struct {
	text   string
	before int
}

// documents cuts a text at the lines that begin or end YAML documents. A line of three dashes or dots does so wherever
// it is (https://yaml.org/spec/1.2.2/#912-document-markers), but directives stand before it: a text with any is not cut.
func documents(text string) []document {
	if strings.HasPrefix(text, "%") || strings.Contains(text, "\n%") {
		return []document{{text, 0}}
	}
	var all []document
	start, before, line := 0, 0, 0
	for at := 0; at < len(text); line++ {
		rest := text[at:]
		if at > 0 && (strings.HasPrefix(rest, "---") || strings.HasPrefix(rest, "...")) && (len(rest) == 3 || strings.ContainsRune(" \t\r\n", rune(rest[3]))) {
			all = append(all, document{text[start:at], before})
			start, before = at, line
		}
		end := strings.IndexByte(rest, '\n')
		if end < 0 {
			break
		}
		at += end + 1
	}
	return append(all, document{text[start:], before})
}

// shift moves a tree down by a number of lines.
func shift(node *yaml.Node, lines int) {
	node.Line += lines
	for _, child := range node.Content {
		shift(child, lines)
	}
}

// misread says why something cannot be read.
type misread struct {
	Position // zero where it is not known
	message  string
	foreign  bool // it is no Kubernetes object at all
}

func (e *misread) Error() string { return e.message }

func misreadAt(node *yaml.Node, format string, args ...any) *misread {
	return &misread{Position: Position{node.Line, node.Column}, message: fmt.Sprintf(format, args...)}
}

// check records what could not be read, where that matters: in a file that was named, or of what looks like a policy.
func (m *manifest) check(err *misread) {
	switch {
	case err == nil:
		return
	case !m.inFolder || !err.foreign && looksLikePolicy(m.document) && !template.MatchString(m.document):
		text := m.file
		if err.Line > 0 {
			text += fmt.Sprintf(":%d", err.Line)
		}
		if err.Column > 0 {
			text += fmt.Sprintf(":%d", err.Column)
		}
		m.found.Unread = append(m.found.Unread, Remark{m.file, err.Position, err.message, text + ": " + err.message})
	case template.MatchString(m.document):
		m.note("a template: give what it renders")
	default:
		m.note(err.message)
	}
}

// note says once that something in the file is passed over.
func (m *manifest) note(why string) {
	if !m.noted[why] {
		m.noted[why] = true
		m.notes.Line("%s: passed over: %s", m.file, why)
	}
}

// looksLikePolicy says whether a text that cannot be read was meant as a policy ConfigMap.
func looksLikePolicy(text string) bool {
	text = strings.ReplaceAll(text, "\x00", "") // it may be UTF-16
	return strings.Contains(text, policy.Label) && (strings.Contains(text, policy.Key) || strings.Contains(text, "allowedDestinations"))
}

// template finds an action of Go's templates, as Helm has them. A policy with a brace too many has a quote there.
var template = regexp.MustCompile(`\{\{-?\s*(/\*|[.$(a-zA-Z])`)

// jsonError gives the place of a mistake in JSON.
func (m *manifest) jsonError(err *json.SyntaxError) *misread {
	c := m.lines.at(1)
	for int64(c.offset) < err.Offset-1 {
		c.next()
	}
	return &misread{Position: c.Position, message: "no JSON: " + err.Error()}
}

var (
	yamlLine = regexp.MustCompile(`^line (\d+): `)
	// For what its parser says, and not its scanner, the library counts lines from 0, and leaves the first one out
	// (https://github.com/go-yaml/yaml/blob/v3.0.1/decode.go, parser.fail).
	yamlParser = regexp.MustCompile(`^did not find expected (<|node content|key|'-' indicator|',' or )`)
)

// yamlError gives what the YAML library complains of, with the line, in a document after a number of them.
func yamlError(err error, before int) *misread {
	message, line := strings.TrimPrefix(err.Error(), "yaml: "), 0
	if found := yamlLine.FindStringSubmatch(message); found != nil {
		line, _ = strconv.Atoi(found[1]) // it is digits
		message = message[len(found[0]):]
	}
	if yamlParser.MatchString(message) {
		line++
	}
	if line > 0 {
		line += before
	}
	return &misread{Position: Position{Line: line}, message: "no YAML: " + message}
}
