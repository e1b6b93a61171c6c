package cli

import (
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"
)

// childFields returns the fields of the mapping at key. It returns nil if the key is missing or its value is null.
func (m *manifest) childFields(fields map[string]*yaml.Node, key string) (map[string]*yaml.Node, *readError) {
	value, given := fields[key]
	if !given || resolveAlias(value).ShortTag() == "!!null" {
		return nil, nil
	}
	return m.fieldsOf(value, key)
}

// fieldsOf returns the fields of a mapping, with the fields of its merge keys (<<). description is the name of the
// mapping in an error message. The YAML library could do this, but its time grows with the square of the number of
// fields.
func (m *manifest) fieldsOf(node *yaml.Node, description string) (map[string]*yaml.Node, *readError) {
	node = resolveAlias(node)
	if node.Kind != yaml.MappingNode {
		return nil, errorAt(node, "not a Kubernetes object: %s must be a mapping, not %s", description, kindOf(node))
	}
	fields := make(map[string]*yaml.Node)
	return fields, m.addFields(node, fields, 0)
}

// addFields adds the fields of a mapping to fields, with the fields of its merge keys. It does not overwrite a field.
// depth is the number of merge keys on the way to the mapping.
func (m *manifest) addFields(node *yaml.Node, fields map[string]*yaml.Node, depth int) *readError {
	const maxDepth = 100 // a mapping may contain itself through a merge key
	if err := m.spend(node, len(node.Content)); err != nil || depth > maxDepth {
		return err
	}
	lineOf := make(map[string]int, len(node.Content)/2)
	var merged []*yaml.Node
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if key.ShortTag() == "!!merge" {
			merged = append(merged, value)
			continue
		}
		if key = resolveAlias(key); key.Kind != yaml.ScalarNode {
			return errorAt(key, "not a Kubernetes object: a key must be text, not %s", kindOf(key))
		}
		if line, duplicate := lineOf[key.Value]; duplicate {
			return &readError{Position: Position{Line: key.Line}, message: fmt.Sprintf("invalid YAML: mapping key %q already defined at line %d", key.Value, line)}
		}
		lineOf[key.Value] = key.Line
		if _, given := fields[key.Value]; !given {
			fields[key.Value] = value
		}
	}
	for _, value := range merged {
		mappings := []*yaml.Node{value}
		if value = resolveAlias(value); value.Kind == yaml.SequenceNode {
			mappings = value.Content
		}
		for _, mapping := range mappings {
			if mapping = resolveAlias(mapping); mapping.Kind != yaml.MappingNode {
				return errorAt(mapping, "invalid YAML: map merge requires map or sequence of maps as the value")
			}
			if err := m.addFields(mapping, fields, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// spend subtracts size from the budget, and returns an error if the budget is used up. size is the number of fields or
// bytes of node. Each alias of node also spends this size.
func (m *manifest) spend(node *yaml.Node, size int) *readError {
	if m.budget -= size + 1; m.budget < 0 {
		return errorAt(node, "aliases expand the file to too much data: write the objects without aliases")
	}
	return nil
}

// stringField returns the string at key. It returns "" if the key is missing or its value is null.
func (m *manifest) stringField(fields map[string]*yaml.Node, key string) (string, *readError) {
	value, given := fields[key]
	if !given {
		return "", nil
	}
	switch node := resolveAlias(value); node.ShortTag() {
	case "!!null":
		return "", nil
	case "!!str":
		return node.Value, m.spend(node, len(node.Value))
	default:
		return "", errorAt(node, "%s must be a string, not %s: quote it, or begin it with |", key, kindOf(node))
	}
}

// stringFields returns the fields of the mapping at key as text. It accepts scalars of any type.
func (m *manifest) stringFields(fields map[string]*yaml.Node, key string) (map[string]string, *readError) {
	nodes, err := m.childFields(fields, key)
	texts := make(map[string]string, len(nodes))
	for name, node := range nodes {
		node = resolveAlias(node)
		texts[name] = node.Value
		if err := m.spend(node, len(name)+len(node.Value)); err != nil {
			return nil, err
		}
	}
	return texts, err
}

// resolveAlias returns the node that an alias refers to. It returns any other node unchanged.
func resolveAlias(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

// kindOf returns the name that messages use for a node's type.
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
