package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/policy"
)

// stdinName is the file name that stands for standard input.
const stdinName = "-"

// Source is a policy ConfigMap and the file it was read from.
type Source struct {
	File      string
	ConfigMap *corev1.ConfigMap
}

// String gives FILE: NAMESPACE/NAME, without what is not known: a bare policy.json has no name.
func (s Source) String() string {
	name := s.ConfigMap.Name
	if s.ConfigMap.Labels == nil {
		return s.File
	}
	if s.ConfigMap.Namespace != "" {
		name = s.ConfigMap.Namespace + "/" + name
	}
	return s.File + ": " + name
}

// readPolicies reads the policy ConfigMaps out of files, in their order. A file holds any number of
// YAML documents, one JSON object, or a bare policy.json, which is taken for a ConfigMap named after
// the file. Objects that are no policy ConfigMap are passed over, with a note where that may not
// have been meant. Errors name the file.
func readPolicies(files []string, stdin io.Reader, notes io.Writer) ([]Source, error) {
	var sources []Source
	for _, file := range files {
		data, err := readFile(file, stdin)
		if err != nil {
			return nil, err
		}
		configMaps, err := decode(file, data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		found := 0
		for _, configMap := range configMaps {
			source := Source{File: file, ConfigMap: configMap}
			if _, hasPolicy := configMap.Data[policy.Key]; configMap.Labels != nil && configMap.Labels[policy.Label] != policy.LabelValue {
				if hasPolicy {
					fmt.Fprintf(notes, "%s: passed over: it has %s, but not the label %s: %s\n", source, policy.Key, policy.Label, policy.LabelValue)
				}
				continue
			}
			sources = append(sources, source)
			found++
		}
		if found == 0 {
			fmt.Fprintf(notes, "%s: no policy here: no ConfigMap has the label %s: %s\n", file, policy.Label, policy.LabelValue)
		}
	}
	return sources, nil
}

func readFile(file string, stdin io.Reader) ([]byte, error) {
	if file != stdinName {
		return os.ReadFile(file)
	}
	data, err := io.ReadAll(stdin)
	if err != nil {
		return nil, fmt.Errorf("read standard input: %w", err)
	}
	return data, nil
}

// decode returns the ConfigMaps among a file's objects. Labels are nil for a bare policy alone.
func decode(file string, data []byte) ([]*corev1.ConfigMap, error) {
	text := bytes.TrimLeft(bytes.TrimPrefix(data, []byte("\ufeff")), " \t\r\n")
	if !strings.HasSuffix(file, ".json") && !bytes.HasPrefix(text, []byte("{")) && !bytes.HasPrefix(text, []byte("[")) {
		return decodeYAML(data)
	}
	var head struct{ Kind string }
	if err := json.Unmarshal(text, &head); err == nil && head.Kind != "" {
		return decodeJSON(text)
	}
	return []*corev1.ConfigMap{{
		ObjectMeta: metav1.ObjectMeta{Name: bareName(file)},
		Data:       map[string]string{policy.Key: string(data)},
	}}, nil
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

func decodeYAML(data []byte) ([]*corev1.ConfigMap, error) {
	var all []*corev1.ConfigMap
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var node yaml.Node
		err := decoder.Decode(&node)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		configMaps, err := decodeNode(node)
		if err != nil {
			return nil, err
		}
		all = append(all, configMaps...)
	}
}

func decodeNode(node yaml.Node) ([]*corev1.ConfigMap, error) { return decodeObject(node.Decode) }

func decodeJSON(data []byte) ([]*corev1.ConfigMap, error) {
	return decodeObject(func(into any) error { return json.Unmarshal(data, into) })
}

// decodeObject returns the ConfigMaps in one object, which unmarshal decodes. Of other kinds it reads
// the kind alone: their fields may have any shape.
func decodeObject(unmarshal func(into any) error) ([]*corev1.ConfigMap, error) {
	var head struct{ Kind string }
	if err := unmarshal(&head); err != nil {
		return nil, fmt.Errorf("no Kubernetes object: %w", err)
	}
	if head.Kind != "ConfigMap" && !strings.HasSuffix(head.Kind, "List") {
		return nil, nil
	}
	var m manifest
	if err := unmarshal(&m); err != nil {
		return nil, err
	}
	if m.Kind == "ConfigMap" {
		return []*corev1.ConfigMap{m.configMap()}, nil
	}
	var all []*corev1.ConfigMap
	for _, item := range m.JSONItems {
		configMaps, err := decodeJSON(item)
		if err != nil {
			return nil, err
		}
		all = append(all, configMaps...)
	}
	for _, item := range m.YAMLItems {
		configMaps, err := decodeNode(item)
		if err != nil {
			return nil, err
		}
		all = append(all, configMaps...)
	}
	return all, nil
}

// manifest is what is read of an object: a ConfigMap, or a List that may hold some.
type manifest struct {
	Kind     string
	Metadata struct {
		Name, Namespace string
		GenerateName    string `yaml:"generateName"`
		Labels          map[string]string
	}
	Data map[string]string

	JSONItems []json.RawMessage `json:"items" yaml:"-"`
	YAMLItems []yaml.Node       `json:"-" yaml:"items"`
}

func (m manifest) configMap() *corev1.ConfigMap {
	labels, name := m.Metadata.Labels, m.Metadata.Name
	if labels == nil {
		labels = map[string]string{}
	}
	if name == "" {
		name = m.Metadata.GenerateName
	}
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: m.Metadata.Namespace, Labels: labels},
		Data:       m.Data,
	}
}
