package cli

import (
	"encoding/base64"
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"
	corev1 "k8s.io/api/core/v1"

	"egress-agent/pkg/policy"
)

// Source is a policy ConfigMap and the file it was read from.
type Source struct {
	File      string
	ConfigMap *corev1.ConfigMap
	lines     *lines
	value     *yaml.Node          // of policy.json or, where that is missing, what should hold it; nil for a bare policy.json
	metadata  map[string]Position // by the path in the object, as in metadata.name
}

// String gives FILE: NAMESPACE/NAME, without what is not known: a bare policy.json has no name.
func (s Source) String() string {
	if s.IsBarePolicy() {
		return s.File
	}
	return s.File + ": " + s.PolicyName()
}

// PolicyName gives NAMESPACE/NAME, or the name alone where the namespace is left to kubectl.
func (s Source) PolicyName() string {
	if s.ConfigMap.Namespace == "" {
		return s.ConfigMap.Name
	}
	return s.ConfigMap.Namespace + "/" + s.ConfigMap.Name
}

// FromStdin says whether the source came from standard input.
func (s Source) FromStdin() bool { return s.File == Stdin }

// IsBarePolicy says whether the source is a policy.json without a ConfigMap around it.
func (s Source) IsBarePolicy() bool { return s.value == nil }

// object takes the ConfigMaps in one object. Of other kinds it reads the kind alone: their fields may have
// any shape.
func (m *manifest) object(root *yaml.Node, listed bool) *misread {
	fields, err := m.fields(root, "an object")
	if err != nil {
		err.foreign = target(root).Kind != yaml.MappingNode
		return err
	}
	kind := ""
	if value, given := fields["kind"]; given {
		kind = target(value).Value
	}
	switch {
	case kind == "ConfigMap":
		return m.configMap(root, fields)
	case kind == "" && m.inFolder:
		return &misread{message: "it has no kind", foreign: true}
	case kind == "":
		return misreadAt(root, "no Kubernetes object: it has no kind")
	case !strings.HasSuffix(kind, "List"):
		return nil
	case listed:
		return misreadAt(root, "a %s in a List: list the objects themselves", kind)
	}
	items, given := fields["items"]
	if !given || target(items).ShortTag() == "!!null" {
		return nil
	}
	list := target(items)
	if list.Kind != yaml.SequenceNode {
		return misreadAt(list, "items must be a list, not %s", kindOf(list))
	}
	for _, item := range list.Content {
		if m.budget < 0 {
			break // that is said
		}
		m.check(m.object(item, true))
	}
	return nil
}

// configMap takes a ConfigMap that has the label, and says of one that has only policy.json that it does not.
func (m *manifest) configMap(root *yaml.Node, fields map[string]*yaml.Node) *misread {
	source := Source{File: m.file, ConfigMap: &corev1.ConfigMap{}, lines: m.lines, value: target(root)}
	if err := m.metadata(&source, fields); err != nil {
		return err
	}
	labelled := source.ConfigMap.Labels[policy.Label] == policy.LabelValue
	if holder, given := fields["data"]; given {
		source.value = target(holder)
	}
	data, err := m.inside(fields, "data")
	if err != nil && labelled {
		return err
	}
	binary, err := m.inside(fields, "binaryData")
	if err != nil && labelled {
		return err
	}
	value, given := data[policy.Key]
	if !labelled {
		if _, binaryGiven := binary[policy.Key]; given || binaryGiven {
			m.unlabelled(source)
		}
		return nil
	}
	// Of the other keys, their names may tell what was meant.
	source.ConfigMap.Data = make(map[string]string, len(data))
	for key := range data {
		source.ConfigMap.Data[key] = ""
	}
	if given {
		source.value = target(value)
		if source.ConfigMap.Data[policy.Key], err = m.str(data, policy.Key); err != nil {
			return err
		}
		if m.inFolder && template.MatchString(source.ConfigMap.Data[policy.Key]) {
			return &misread{message: "its " + policy.Key + " is a template", foreign: true}
		}
	}
	if value, misplaced := binary[policy.Key]; misplaced && !given {
		source.value = target(value)
	}
	if source.ConfigMap.BinaryData, err = m.binary(binary); err != nil {
		return err
	}
	m.found.Sources = append(m.found.Sources, source)
	return nil
}

// metadata takes over name, namespace, labels and annotations, and where they are.
func (m *manifest) metadata(source *Source, fields map[string]*yaml.Node) *misread {
	metadata, err := m.inside(fields, "metadata")
	if err != nil {
		return err
	}
	object, generated := source.ConfigMap, ""
	for _, each := range []struct {
		key  string
		into *string
	}{{"name", &object.Name}, {"generateName", &generated}, {"namespace", &object.Namespace}} {
		if *each.into, err = m.str(metadata, each.key); err != nil {
			return err
		}
	}
	if object.Name == "" {
		object.Name = generated
	}
	if object.Labels, err = m.strs(metadata, "labels"); err != nil {
		return err
	}
	if object.Annotations, err = m.strs(metadata, "annotations"); err != nil {
		return err
	}
	source.metadata = make(map[string]Position)
	if name, given := metadata["name"]; given {
		source.metadata["metadata.name"] = Position{name.Line, name.Column}
	}
	for _, holder := range []string{"labels", "annotations"} {
		entries, err := m.inside(metadata, holder)
		if err != nil {
			return err
		}
		for key, value := range entries {
			source.metadata[fmt.Sprintf("metadata.%s[%q]", holder, key)] = Position{value.Line, value.Column}
		}
	}
	return nil
}

// unlabelled says of a ConfigMap with a policy.json that nobody reads it.
func (m *manifest) unlabelled(source Source) {
	near, path := policy.NearLabel(source.ConfigMap.Labels, source.ConfigMap.Annotations)
	if near == "" {
		m.notes.Line("%s: passed over: it has %s, but not the label %s: %s", source, policy.Key, policy.Label, policy.LabelValue)
		return
	}
	message := fmt.Sprintf("it has %s, and needs the label %s: %s; without that nobody reads its %s", near, policy.Label, policy.LabelValue, policy.Key)
	m.notes.Line("%s: Warning: %s", source, message)
	m.found.Warnings = append(m.found.Warnings, Remark{File: m.file, At: source.metadata[path], Message: source.PolicyName() + ": " + message})
}

// binary returns binaryData: of its keys, policy.json alone with what it holds.
func (m *manifest) binary(fields map[string]*yaml.Node) (map[string][]byte, *misread) {
	all := make(map[string][]byte, len(fields))
	for key := range fields {
		all[key] = nil
	}
	if _, given := fields[policy.Key]; given {
		text, err := m.str(fields, policy.Key)
		if err != nil {
			return nil, err
		}
		decoded, wrong := base64.StdEncoding.DecodeString(strings.NewReplacer("\n", "", "\r", "", " ", "").Replace(text))
		if wrong != nil {
			return nil, misreadAt(fields[policy.Key], "binaryData: %s is no base64: %v", policy.Key, wrong)
		}
		all[policy.Key] = decoded
	}
	return all, nil
}
