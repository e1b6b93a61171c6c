package cli

import (
	"bytes"
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

// Source is a policy ConfigMap and the file it was read from.
type Source struct {
	File      string
	ConfigMap *corev1.ConfigMap
	lines     *lines
	value     *yaml.Node // of policy.json or, where that is missing, what should hold it; nil for a bare policy.json
}

// String gives FILE: NAMESPACE/NAME, without what is not known: a bare policy.json has no name.
func (s Source) String() string {
	if s.Bare() {
		return s.File
	}
	return s.File + ": " + s.Policy()
}

// Policy gives NAMESPACE/NAME, or the name alone where the namespace is left to kubectl.
func (s Source) Policy() string {
	if s.ConfigMap.Namespace == "" {
		return s.ConfigMap.Name
	}
	return s.ConfigMap.Namespace + "/" + s.ConfigMap.Name
}

// Piped says whether the source came from standard input.
func (s Source) Piped() bool { return s.File == stdinName }

// Bare says whether the source is a policy.json without a ConfigMap around it.
func (s Source) Bare() bool { return s.value == nil }

// manifest gathers the policy ConfigMaps of one file.
type manifest struct {
	file     string
	lines    *lines
	inFolder bool // it was not named itself
	notes    io.Writer
	sources  []Source
}

// decode returns the policy ConfigMaps in a file's bytes, in their order: any number of YAML documents, one
// JSON object, or a bare policy.json, which is taken for a ConfigMap named after the file. A folder holds other
// files too: what has no kind in one of them is passed over with a note, and is otherwise an error. Errors begin
// with the file, and with the line and column where they are known.
func decode(file string, data []byte, inFolder bool, notes io.Writer) ([]Source, error) {
	text := strings.TrimPrefix(string(data), "\ufeff")
	m := manifest{file: file, lines: newLines(text), inFolder: inFolder, notes: notes}
	start := strings.TrimLeft(text, " \t\r\n")
	if !strings.HasSuffix(file, ".json") && !strings.HasPrefix(start, "{") && !strings.HasPrefix(start, "[") {
		err := m.yaml(data)
		return m.sources, err
	}
	var head struct{ Kind string }
	if err := json.Unmarshal([]byte(text), &head); err == nil && head.Kind != "" {
		root := jsonTree(m.lines)
		err := m.object(&root, false)
		return m.sources, err
	}
	if inFolder && filepath.Base(file) != policy.Key {
		fmt.Fprintf(notes, "%s: passed over: it has no kind; if it is a policy, name it %s, or the file after -f\n", file, policy.Key)
		return nil, nil
	}
	return []Source{{File: file, lines: newLines(string(data)), ConfigMap: &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: bareName(file)},
		Data:       map[string]string{policy.Key: string(data)},
	}}}, nil
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

func (m *manifest) yaml(data []byte) error {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var document yaml.Node
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return m.yamlError(err)
		}
		root := document.Content[0]
		if root.ShortTag() == "!!null" {
			continue
		}
		if err := m.object(root, false); err != nil {
			return err
		}
	}
}

// object takes the ConfigMaps in one object. Of other kinds it reads the kind alone: their fields may have
// any shape.
func (m *manifest) object(root *yaml.Node, listed bool) error {
	fields, err := m.fields(root, "an object")
	if err != nil {
		return err
	}
	kind := fields["kind"].Value
	switch {
	case kind == "ConfigMap":
		return m.configMap(root, fields)
	case kind == "" && m.inFolder:
		fmt.Fprintf(m.notes, "%s: passed over: it has no kind\n", m.file)
		return nil
	case kind == "":
		return m.fail(root, "no Kubernetes object: it has no kind")
	case !strings.HasSuffix(kind, "List"):
		return nil
	case listed:
		return m.fail(root, "a %s in a List: list the objects themselves", kind)
	}
	items, given := fields["items"]
	if !given || items.ShortTag() == "!!null" {
		return nil
	}
	list := target(&items)
	if list.Kind != yaml.SequenceNode {
		return m.fail(list, "items must be a list, not %s", kindOf(list))
	}
	for _, item := range list.Content {
		if err := m.object(item, true); err != nil {
			return err
		}
	}
	return nil
}

// configMap takes a ConfigMap that has the label, and says of one that has only policy.json that it does not.
func (m *manifest) configMap(root *yaml.Node, fields map[string]yaml.Node) error {
	configMap := &corev1.ConfigMap{}
	metadata, err := m.inside(fields, "metadata")
	if err != nil {
		return err
	}
	labels, err := m.inside(metadata, "labels")
	if err != nil {
		return err
	}
	generated := ""
	for key, into := range map[string]*string{"name": &configMap.Name, "generateName": &generated, "namespace": &configMap.Namespace} {
		if *into, err = m.str(metadata, key); err != nil {
			return err
		}
	}
	if configMap.Name == "" {
		configMap.Name = generated
	}
	source := Source{File: m.file, ConfigMap: configMap, lines: m.lines, value: root}
	label := labels[policy.Label]
	labelled := target(&label).Value == policy.LabelValue
	if holder, given := fields["data"]; given {
		source.value = target(&holder)
	}
	data, err := m.inside(fields, "data")
	if err != nil && labelled {
		return err
	}
	value, given := data[policy.Key]
	if !labelled {
		if given {
			fmt.Fprintf(m.notes, "%s: passed over: it has %s, but not the label %s: %s\n", source, policy.Key, policy.Label, policy.LabelValue)
		}
		return nil
	}
	if given {
		source.value = target(&value)
		text, err := m.str(data, policy.Key)
		if err != nil {
			return err
		}
		configMap.Data = map[string]string{policy.Key: text}
	}
	m.sources = append(m.sources, source)
	return nil
}

// inside returns the fields of the mapping at a key; none where it is left out or null.
func (m *manifest) inside(fields map[string]yaml.Node, key string) (map[string]yaml.Node, error) {
	value, given := fields[key]
	if !given || target(&value).ShortTag() == "!!null" {
		return nil, nil
	}
	return m.fields(&value, key)
}

// fields returns a mapping's fields, those of the mappings that are merged into it among them.
func (m *manifest) fields(node *yaml.Node, what string) (map[string]yaml.Node, error) {
	node = target(node)
	if node.Kind != yaml.MappingNode {
		return nil, m.fail(node, "no Kubernetes object: %s must be a mapping, not %s", what, kindOf(node))
	}
	var fields map[string]yaml.Node
	if err := node.Decode(&fields); err != nil {
		return nil, m.yamlError(err)
	}
	return fields, nil
}

// str returns the string at a key, empty where it is left out or null.
func (m *manifest) str(fields map[string]yaml.Node, key string) (string, error) {
	value, given := fields[key]
	node := target(&value)
	switch {
	case !given || node.ShortTag() == "!!null":
		return "", nil
	case node.ShortTag() != "!!str":
		return "", m.fail(node, "%s must be a string, not %s: quote it, or begin it with |", key, kindOf(node))
	}
	return node.Value, nil
}

// target is what an alias stands for, and any other node itself.
func target(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

func kindOf(node *yaml.Node) string {
	switch node.ShortTag() {
	case "!!map":
		return "a mapping"
	case "!!seq":
		return "a list"
	case "!!str":
		return "text"
	case "!!null":
		return "null"
	case "!!int", "!!float":
		return "a number"
	}
	return "a " + strings.TrimPrefix(node.ShortTag(), "!!")
}

func (m *manifest) fail(node *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s:%d:%d: %s", m.file, node.Line, node.Column, fmt.Sprintf(format, args...))
}

var (
	yamlLine = regexp.MustCompile(`^line (\d+): `)
	// For what its parser says, and not its scanner, the library counts lines from 0, and leaves the first one out
	// (https://github.com/go-yaml/yaml/blob/v3.0.1/decode.go, parser.fail).
	yamlParser = regexp.MustCompile(`^did not find expected (<|node content|key|'-' indicator|',' or )`)
)

// yamlError gives the first complaint of the YAML library in one line, with the file and the line.
func (m *manifest) yamlError(err error) error {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	if several := (*yaml.TypeError)(nil); errors.As(err, &several) {
		message = several.Errors[0]
	}
	line := 0
	if found := yamlLine.FindStringSubmatch(message); found != nil {
		line, _ = strconv.Atoi(found[1]) // it is digits
		message = message[len(found[0]):]
	}
	if yamlParser.MatchString(message) {
		line++
	}
	if line > 0 {
		return fmt.Errorf("%s:%d: no YAML: %s", m.file, line, message)
	}
	return fmt.Errorf("%s: no YAML: %s", m.file, message)
}
