package cli

import (
	"encoding/base64"
	"fmt"
	"maps"
	"strings"

	"gopkg.in/yaml.v3"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"egress-agent/pkg/platform"
	"egress-agent/pkg/policy"
)

// Source is a policy ConfigMap and its position in a file.
type Source struct {
	File      string
	ConfigMap *corev1.ConfigMap
	lines     *lineIndex
	key       string // of the document in data: policy.Key or platform.Key
	// value is the node of the policy document. If the key policy.json is missing, value is the node of data or of the
	// ConfigMap. It is nil for a bare policy.json.
	value *yaml.Node
	// metadata has the positions of metadata fields. A key is the field's path in the object, such as metadata.name.
	metadata map[string]Position
}

// String returns FILE: NAMESPACE/NAME. For a bare policy.json, which has no name, it returns only FILE.
func (s Source) String() string {
	if s.IsBarePolicy() {
		return s.File
	}
	return s.File + ": " + s.PolicyName()
}

// PolicyName returns NAMESPACE/NAME. If the ConfigMap has no namespace, it returns only the name.
func (s Source) PolicyName() string {
	if s.ConfigMap.Namespace == "" {
		return s.ConfigMap.Name
	}
	return s.ConfigMap.Namespace + "/" + s.ConfigMap.Name
}

// FromStdin reports whether the source is from standard input.
func (s Source) FromStdin() bool { return s.File == Stdin }

// IsPlatform reports whether the source is a platform document.
func (s Source) IsPlatform() bool { return s.key == platform.Key }

// IsBarePolicy reports whether the source is a policy.json without a ConfigMap.
func (s Source) IsBarePolicy() bool { return s.value == nil }

// readObject reads the policy ConfigMaps in one object, which may be a List. inList is true for an item of a List. In
// an object of another kind, readObject reads only the kind, because the other fields may have any type.
func (m *manifest) readObject(root *yaml.Node, inList bool) *readError {
	fields, err := m.fieldsOf(root, "an object")
	if err != nil {
		err.isNotObject = resolveAlias(root).Kind != yaml.MappingNode
		return err
	}
	kind := ""
	if value, given := fields["kind"]; given {
		kind = resolveAlias(value).Value
	}
	switch {
	case kind == "ConfigMap":
		return m.readConfigMap(root, fields)
	case kind == "Namespace":
		return m.readNamespace(fields)
	case kind == "" && m.inFolder:
		return &readError{message: "it has no kind", isNotObject: true}
	case kind == "":
		return errorAt(root, "not a Kubernetes object: it has no kind")
	case !strings.HasSuffix(kind, "List"):
		return nil
	case inList:
		return errorAt(root, "a List must not contain a %s: list the objects themselves", kind)
	}
	items, given := fields["items"]
	if !given || resolveAlias(items).ShortTag() == "!!null" {
		return nil
	}
	list := resolveAlias(items)
	if list.Kind != yaml.SequenceNode {
		return errorAt(list, "items must be a list, not %s", kindOf(list))
	}
	for _, item := range list.Content {
		if m.budget < 0 {
			break // spend has already returned an error about the budget
		}
		m.handleError(m.readObject(item, true))
	}
	return nil
}

// readConfigMap adds a ConfigMap to the result if the ConfigMap has the label of a policy ConfigMap. If it lacks the
// label but has a policy.json, readConfigMap prints a note or a warning.
func (m *manifest) readConfigMap(root *yaml.Node, fields map[string]*yaml.Node) *readError {
	source := Source{File: m.file, ConfigMap: &corev1.ConfigMap{}, lines: m.lines, value: resolveAlias(root), key: policy.Key}
	if err := m.readMetadata(&source, fields); err != nil {
		return err
	}
	hasLabel := source.ConfigMap.Labels[policy.Label] == policy.LabelValue
	isPlatform := source.ConfigMap.Labels[policy.Label] == platform.LabelValue
	if isPlatform {
		hasLabel, source.key = true, platform.Key
	}
	if parent, given := fields["data"]; given {
		source.value = resolveAlias(parent)
	}
	data, err := m.childFields(fields, "data")
	if err != nil && hasLabel {
		return err
	}
	binary, err := m.childFields(fields, "binaryData")
	if err != nil && hasLabel {
		return err
	}
	value, given := data[source.key]
	if !hasLabel {
		if _, inBinary := binary[policy.Key]; given || inBinary {
			m.reportMissingLabel(source)
		}
		return nil
	}
	// The names of the other keys, without their values, let netpol suggest a correction if policy.json is missing.
	source.ConfigMap.Data = make(map[string]string, len(data))
	for key := range data {
		source.ConfigMap.Data[key] = ""
	}
	if given {
		source.value = resolveAlias(value)
		if source.ConfigMap.Data[source.key], err = m.stringField(data, source.key); err != nil {
			return err
		}
		if m.inFolder && templateAction.MatchString(source.ConfigMap.Data[source.key]) {
			return &readError{message: "its " + source.key + " is a template", isNotObject: true}
		}
	}
	if isPlatform {
		m.result.Platforms = append(m.result.Platforms, source)
		return nil
	}
	if value, inBinary := binary[policy.Key]; inBinary && !given {
		source.value = resolveAlias(value)
	}
	if source.ConfigMap.BinaryData, err = m.readBinaryData(binary); err != nil {
		return err
	}
	m.result.Sources = append(m.result.Sources, source)
	return nil
}

// readNamespace adds the labels of a Namespace to the result.
func (m *manifest) readNamespace(fields map[string]*yaml.Node) *readError {
	metadata, err := m.childFields(fields, "metadata")
	if err != nil {
		return err
	}
	name, err := m.stringField(metadata, "name")
	if err != nil {
		return err
	}
	set, err := m.stringFields(metadata, "labels")
	if err != nil {
		return err
	}
	withName := labels.Set{corev1.LabelMetadataName: name} // an API server adds it
	maps.Copy(withName, set)
	m.result.Namespaces[name] = withName
	return nil
}

// readMetadata copies name, namespace, labels and annotations into source, with their positions. If the ConfigMap has
// no name, readMetadata uses its generateName.
func (m *manifest) readMetadata(source *Source, fields map[string]*yaml.Node) *readError {
	metadata, err := m.childFields(fields, "metadata")
	if err != nil {
		return err
	}
	object, generateName := source.ConfigMap, ""
	for _, field := range []struct {
		key   string
		value *string
	}{{"name", &object.Name}, {"generateName", &generateName}, {"namespace", &object.Namespace}} {
		if *field.value, err = m.stringField(metadata, field.key); err != nil {
			return err
		}
	}
	if object.Name == "" {
		object.Name = generateName
	}
	if object.Labels, err = m.stringFields(metadata, "labels"); err != nil {
		return err
	}
	if object.Annotations, err = m.stringFields(metadata, "annotations"); err != nil {
		return err
	}
	source.metadata = make(map[string]Position)
	if name, given := metadata["name"]; given {
		source.metadata["metadata.name"] = Position{name.Line, name.Column}
	}
	for _, parent := range []string{"labels", "annotations"} {
		entries, err := m.childFields(metadata, parent)
		if err != nil {
			return err
		}
		for key, value := range entries {
			source.metadata[fmt.Sprintf("metadata.%s[%q]", parent, key)] = Position{value.Line, value.Column}
		}
	}
	return nil
}

// reportMissingLabel reports a ConfigMap that has a policy.json but lacks the label. It prints a warning if a similar
// label or annotation shows that the ConfigMap is probably a policy. Otherwise it prints a note.
func (m *manifest) reportMissingLabel(source Source) {
	near, path := policy.NearLabel(source.ConfigMap.Labels, source.ConfigMap.Annotations)
	if near == "" {
		m.notes.Line("%s: skipped: it has %s, but not the label %s: %s", source, policy.Key, policy.Label, policy.LabelValue)
		return
	}
	message := fmt.Sprintf("it has %s, but needs the label %s: %s; without that label, the agent ignores %s", near, policy.Label, policy.LabelValue, policy.Key)
	m.notes.Line("%s: Warning: %s", source, message)
	m.result.Warnings = append(m.result.Warnings, FileMessage{File: m.file, At: source.metadata[path], Message: source.PolicyName() + ": " + message})
}

// readBinaryData returns binaryData with all its keys. Only the key policy.json has a value; the other values are nil.
func (m *manifest) readBinaryData(fields map[string]*yaml.Node) (map[string][]byte, *readError) {
	binaryData := make(map[string][]byte, len(fields))
	for key := range fields {
		binaryData[key] = nil
	}
	if _, given := fields[policy.Key]; given {
		text, err := m.stringField(fields, policy.Key)
		if err != nil {
			return nil, err
		}
		decoded, decodeErr := base64.StdEncoding.DecodeString(strings.NewReplacer("\n", "", "\r", "", " ", "").Replace(text))
		if decodeErr != nil {
			return nil, errorAt(fields[policy.Key], "binaryData: %s is not base64: %v", policy.Key, decodeErr)
		}
		binaryData[policy.Key] = decoded
	}
	return binaryData, nil
}
