package cli

import (
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"egress-agent/pkg/policy"
)

// Position is a place in a file: line and column, both from 1, columns in characters.
type Position struct {
	Line   int `json:"line"`
	Column int `json:"column"`
}

// lines is a file's text, by its lines: a file of many policies is not searched from its start for each.
type lines struct {
	text   string
	starts []int // the offset of each line, of which there is at least one
	utf8   bool
}

func newLines(text string) *lines {
	l := &lines{text: text, starts: []int{0}, utf8: utf8.ValidString(text)}
	for i := range len(text) {
		if text[i] == '\n' {
			l.starts = append(l.starts, i+1)
		}
	}
	return l
}

// at returns a cursor at the start of a line, counted from 1. YAML knows further line breaks, with which a line
// may be one that is not there: then it is the last.
func (l *lines) at(line int) cursor {
	line = min(line, len(l.starts))
	return cursor{Position: Position{line, 1}, text: l.text, offset: l.starts[line-1]}
}

// Positions returns where in the source's file its problems stand, however policy.json is quoted there.
func (s Source) Positions(problems policy.Problems) []Position {
	positions := s.inDocument(problems)
	for i, p := range problems {
		if at, known := s.metadata[p.Path]; known {
			positions[i] = at
		}
	}
	return positions
}

// inDocument returns where problems stand that are all of policy.json.
func (s Source) inDocument(problems policy.Problems) []Position {
	positions := make([]Position, len(problems))
	value, given := s.ConfigMap.Data[policy.Key]
	if !s.IsBarePolicy() && (!given || value == "" || !s.lines.utf8) {
		for i := range positions {
			positions[i] = Position{s.value.Line, s.value.Column}
		}
		return positions
	}
	offsets := policy.Locate([]byte(value), problems)
	order := make([]int, len(offsets))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(offsets[a], offsets[b]) })
	if s.IsBarePolicy() {
		c := s.lines.at(1)
		for _, i := range order {
			for c.offset < offsets[i] {
				c.next()
			}
			positions[i] = c.Position
		}
		return positions
	}
	scalar := scalarAt(s.lines, s.value)
	seen, at := 0, 0 // the visible characters of value[:at]
	for _, i := range order {
		for at < offsets[i] {
			r, size := utf8.DecodeRuneInString(value[at:])
			if at += size; !blank(r) {
				seen++
			}
		}
		positions[i] = scalar.visible(seen)
	}
	return positions
}

// cursor goes through a text character by character. Its position is of the one that comes next.
type cursor struct {
	Position
	text   string
	offset int
}

func (c *cursor) done() bool { return c.offset >= len(c.text) }

func (c *cursor) peek() byte {
	if c.done() {
		return 0
	}
	return c.text[c.offset]
}

func (c *cursor) next() rune {
	r, size := utf8.DecodeRuneInString(c.text[c.offset:])
	c.offset += size
	c.Column++
	if r == '\n' {
		c.Position = Position{c.Line + 1, 1}
	}
	return r
}

// skip goes on while the next byte is one of those given, or, where not, until it is.
func (c *cursor) skip(bytes string, while bool) {
	for !c.done() && strings.IndexByte(bytes, c.text[c.offset]) >= 0 == while {
		c.next()
	}
}

// scalar goes through a YAML or JSON string in its file. Folding, indentation and escapes change a string's
// spaces and line breaks, but never the order of its visible characters: by counting those, a place in the
// value is one in the file.
type scalar struct {
	cursor
	style yaml.Style
	left  int // visible characters of the value that are not yet passed
	total int
}

func scalarAt(file *lines, node *yaml.Node) *scalar {
	s := &scalar{cursor: file.at(node.Line), style: node.Style}
	for _, r := range node.Value {
		if !blank(r) {
			s.total++
		}
	}
	s.left = s.total
	for !s.done() && s.Column < node.Column {
		s.next()
	}
	for s.peek() == '&' || s.peek() == '!' { // an anchor, a tag
		s.skip(" \t\r\n", false)
		s.skip(" \t\r\n", true)
	}
	switch {
	case s.style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		s.skip("\n", false)
	case s.style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0:
		s.next()
	}
	return s
}

// visible returns the position of the value's n-th visible character, or, where it has no more, the place
// after its last. n never falls from call to call.
func (s *scalar) visible(n int) Position {
	for s.left > 0 {
		before := *s
		if blank(s.character()) {
			continue
		}
		if s.total-s.left == n {
			*s = before
			return s.Position
		}
		s.left--
	}
	return s.Position
}

// character passes one character of the value.
func (s *scalar) character() rune {
	r := s.next()
	switch {
	case s.style&yaml.SingleQuotedStyle != 0 && r == '\'':
		s.next() // a quote is written twice
	case s.style&yaml.DoubleQuotedStyle != 0 && r == '\\':
		return s.escaped()
	}
	return r
}

// escaped passes what follows a backslash.
func (s *scalar) escaped() rune {
	digits := 0
	switch r := s.next(); r {
	case 'n', 't', 'r':
		return ' '
	case 'N':
		return '\u0085'
	case 'x':
		digits = 2
	case 'u':
		digits = 4
	case 'U':
		digits = 8
	default:
		return r
	}
	code, _ := strconv.ParseUint(s.text[s.offset:s.offset+digits], 16, 32) // the file was read: they are digits
	for range digits {
		s.next()
	}
	if 0xd800 <= code && code < 0xdc00 && strings.HasPrefix(s.text[s.offset:], `\u`) {
		for range len(`\uDC00`) {
			s.next() // JSON writes some characters as two
		}
	}
	return rune(code)
}

func blank(r rune) bool { return r == ' ' || r == '\t' || r == '\n' || r == '\r' || r == '\u0085' }

// jsonTree gives valid JSON as the YAML library gives YAML. That library does not read all of JSON.
func jsonTree(file *lines) yaml.Node {
	decoder := json.NewDecoder(strings.NewReader(file.text))
	decoder.UseNumber()
	c := file.at(1)
	var value func() *yaml.Node
	value = func() *yaml.Node {
		c.skip(" \t\r\n,:", true)
		node := &yaml.Node{Kind: yaml.ScalarNode, Line: c.Line, Column: c.Column}
		token, _ := decoder.Token() // it is valid
		for int64(c.offset) < decoder.InputOffset() {
			c.next()
		}
		switch token := token.(type) {
		case json.Delim:
			switch token {
			case '{':
				node.Kind, node.Tag = yaml.MappingNode, "!!map"
			case '[':
				node.Kind, node.Tag = yaml.SequenceNode, "!!seq"
			default:
				return nil // the end of one
			}
			for decoder.More() {
				node.Content = append(node.Content, value())
			}
			value() // the end of it
		case string:
			node.Tag, node.Style, node.Value = "!!str", yaml.DoubleQuotedStyle, token
		case json.Number:
			node.Tag, node.Value = "!!float", token.String()
		case bool:
			node.Tag, node.Value = "!!bool", strconv.FormatBool(token)
		case nil:
			node.Tag, node.Value = "!!null", "null"
		}
		return node
	}
	return *value()
}
