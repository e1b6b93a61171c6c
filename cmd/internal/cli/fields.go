package cli

import (
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"
)

// inside returns the fields of the mapping at a key; none where it is left out or null.
func (m *manifest) inside(fields map[string]*yaml.Node, key string) (map[string]*yaml.Node, *misread) {
	value, given := fields[key]
	if !given || target(value).ShortTag() == "!!null" {
		return nil, nil
	}
	return m.fields(value, key)
}

// fields returns a mapping's fields, those of the mappings that are merged into it among them. The library would do
// the same in time that grows with the square of their number.
func (m *manifest) fields(node *yaml.Node, what string) (map[string]*yaml.Node, *misread) {
	node = target(node)
	if node.Kind != yaml.MappingNode {
		return nil, misreadAt(node, "no Kubernetes object: %s must be a mapping, not %s", what, kindOf(node))
	}
	fields := make(map[string]*yaml.Node)
	return fields, m.gather(node, fields, 0)
}

// gather adds the fields of a mapping that are not there yet.
func (m *manifest) gather(node *yaml.Node, fields map[string]*yaml.Node, depth int) *misread {
	const deepest = 100 // a mapping may be merged into itself
	if err := m.spend(node, len(node.Content)); err != nil || depth > deepest {
		return err
	}
	own := make(map[string]int, len(node.Content)/2)
	var merged []*yaml.Node
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if key.ShortTag() == "!!merge" {
			merged = append(merged, value)
			continue
		}
		if key = target(key); key.Kind != yaml.ScalarNode {
			return misreadAt(key, "no Kubernetes object: a key must be text, not %s", kindOf(key))
		}
		if line, twice := own[key.Value]; twice {
			return &misread{Position: Position{Line: key.Line}, message: fmt.Sprintf("no YAML: mapping key %q already defined at line %d", key.Value, line)}
		}
		own[key.Value] = key.Line
		if _, given := fields[key.Value]; !given {
			fields[key.Value] = value
		}
	}
	for _, value := range merged {
		from := []*yaml.Node{value}
		if value = target(value); value.Kind == yaml.SequenceNode {
			from = value.Content
		}
		for _, mapping := range from {
			if mapping = target(mapping); mapping.Kind != yaml.MappingNode {
				return misreadAt(mapping, "no YAML: map merge requires map or sequence of maps as the value")
			}
			if err := m.gather(mapping, fields, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// spend charges what is read of a file, fields and bytes, where it may be read again for each alias of it.
func (m *manifest) spend(node *yaml.Node, size int) *misread {
	if m.budget -= size + 1; m.budget < 0 {
		return misreadAt(node, "its aliases make too much of it: write the objects out")
	}
	return nil
}

// str returns the string at a key, empty where it is left out or null.
func (m *manifest) str(fields map[string]*yaml.Node, key string) (string, *misread) {
	value, given := fields[key]
	if !given {
		return "", nil
	}
	switch node := target(value); node.ShortTag() {
	case "!!null":
		return "", nil
	case "!!str":
		return node.Value, m.spend(node, len(node.Value))
	default:
		return "", misreadAt(node, "%s must be a string, not %s: quote it, or begin it with |", key, kindOf(node))
	}
}

// strs returns the scalars at a key, as text.
func (m *manifest) strs(fields map[string]*yaml.Node, key string) (map[string]string, *misread) {
	nodes, err := m.inside(fields, key)
	texts := make(map[string]string, len(nodes))
	for name, node := range nodes {
		node = target(node)
		texts[name] = node.Value
		if err := m.spend(node, len(name)+len(node.Value)); err != nil {
			return nil, err
		}
	}
	return texts, err
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
