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

// Position is a position in a file. Line and Column start at 1. Column counts characters.
type Position struct {
	Line   int `json:"line"`
	Column int `json:"column"`
}

// lineIndex is a file's text with the offset of each line. Without the offsets, each policy of a large file would need
// a search from the start of the file.
type lineIndex struct {
	text   string
	starts []int // the offset of each line; there is at least one line
	isUTF8 bool
}

func newLineIndex(text string) *lineIndex {
	l := &lineIndex{text: text, starts: []int{0}, isUTF8: utf8.ValidString(text)}
	for i := range len(text) {
		if text[i] == '\n' {
			l.starts = append(l.starts, i+1)
		}
	}
	return l
}

// cursorAt returns a cursor at the start of a line. Lines count from 1. YAML has further line breaks, so a line number
// from the YAML library may be too high. cursorAt then uses the last line.
func (l *lineIndex) cursorAt(line int) cursor {
	line = min(line, len(l.starts))
	return cursor{Position: Position{line, 1}, text: l.text, offset: l.starts[line-1]}
}

// Positions returns the position of each problem in the source's file. It supports every style of YAML and JSON strings
// for policy.json.
func (s Source) Positions(problems policy.Problems) []Position {
	positions := s.documentPositions(problems)
	for i, p := range problems {
		if at, known := s.metadata[p.Path]; known {
			positions[i] = at
		}
	}
	return positions
}

// documentPositions returns the position of each problem. It treats every problem as a problem in policy.json.
func (s Source) documentPositions(problems policy.Problems) []Position {
	positions := make([]Position, len(problems))
	value, given := s.ConfigMap.Data[s.key]
	if !s.IsBarePolicy() && (!given || value == "" || !s.lines.isUTF8) {
		for i := range positions {
			positions[i] = Position{s.value.Line, s.value.Column}
		}
		return positions
	}
	offsets := policy.Locate([]byte(value), problems)
	order := make([]int, len(offsets)) // the indexes of problems, sorted by offset
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(offsets[a], offsets[b]) })
	if s.IsBarePolicy() {
		c := s.lines.cursorAt(1)
		for _, i := range order {
			for c.offset < offsets[i] {
				c.next()
			}
			positions[i] = c.Position
		}
		return positions
	}
	scalar := newScalarCursor(s.lines, s.value)
	visibleCount, offset := 0, 0 // visibleCount is the number of visible characters in value[:offset]
	for _, i := range order {
		for offset < offsets[i] {
			r, size := utf8.DecodeRuneInString(value[offset:])
			if offset += size; !isBlank(r) {
				visibleCount++
			}
		}
		positions[i] = scalar.positionOf(visibleCount)
	}
	return positions
}

// cursor reads a text character by character. Position and offset belong to the next character.
type cursor struct {
	Position
	text   string
	offset int
}

func (c *cursor) done() bool { return c.offset >= len(c.text) }

// peek returns the next byte, or 0 at the end.
func (c *cursor) peek() byte {
	if c.done() {
		return 0
	}
	return c.text[c.offset]
}

// next returns the next character and moves past it.
func (c *cursor) next() rune {
	r, size := utf8.DecodeRuneInString(c.text[c.offset:])
	c.offset += size
	c.Column++
	if r == '\n' {
		c.Position = Position{c.Line + 1, 1}
	}
	return r
}

// skipAny moves past the next characters as long as they are in set.
func (c *cursor) skipAny(set string) {
	for !c.done() && strings.IndexByte(set, c.text[c.offset]) >= 0 {
		c.next()
	}
}

// skipUntil moves to the next character that is in set, or to the end.
func (c *cursor) skipUntil(set string) {
	for !c.done() && strings.IndexByte(set, c.text[c.offset]) < 0 {
		c.next()
	}
}

// scalarCursor reads a YAML or JSON string in its file. Folding, indentation and escapes change the spaces and line
// breaks of a string, but not the order of its visible characters. So the count of visible characters converts an
// offset in the value to a position in the file.
type scalarCursor struct {
	cursor
	style     yaml.Style
	remaining int // the number of visible characters after the cursor
	total     int // the number of visible characters in the value
}

// newScalarCursor returns a cursor at the start of node's string, after an anchor, a tag and an opening quote.
func newScalarCursor(file *lineIndex, node *yaml.Node) *scalarCursor {
	s := &scalarCursor{cursor: file.cursorAt(node.Line), style: node.Style}
	for _, r := range node.Value {
		if !isBlank(r) {
			s.total++
		}
	}
	s.remaining = s.total
	for !s.done() && s.Column < node.Column {
		s.next()
	}
	for s.peek() == '&' || s.peek() == '!' { // an anchor, a tag
		s.skipUntil(" \t\r\n")
		s.skipAny(" \t\r\n")
	}
	switch {
	case s.style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		s.skipUntil("\n")
	case s.style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0:
		s.next()
	}
	return s
}

// positionOf returns the position of the n-th visible character, counted from 0. If the value has no such character,
// positionOf returns the position after the last visible character. n must not be lower than in the previous call.
func (s *scalarCursor) positionOf(n int) Position {
	for s.remaining > 0 {
		saved := *s
		if isBlank(s.nextDecoded()) {
			continue
		}
		if s.total-s.remaining == n {
			*s = saved
			return s.Position
		}
		s.remaining--
	}
	return s.Position
}

// nextDecoded returns the next character of the value and moves past its spelling in the file.
func (s *scalarCursor) nextDecoded() rune {
	r := s.next()
	switch {
	case s.style&yaml.SingleQuotedStyle != 0 && r == '\'':
		s.next() // a single quote in the value has two quotes in the file
	case s.style&yaml.DoubleQuotedStyle != 0 && r == '\\':
		return s.nextEscaped()
	}
	return r
}

// nextEscaped returns the character that an escape stands for, and moves past the escape. The cursor is already after
// the escape's backslash. For \n, \t and \r nextEscaped returns a space.
func (s *scalarCursor) nextEscaped() rune {
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
	code, _ := strconv.ParseUint(s.text[s.offset:s.offset+digits], 16, 32) // the YAML or JSON parser has checked the digits
	for range digits {
		s.next()
	}
	if 0xd800 <= code && code < 0xdc00 && strings.HasPrefix(s.text[s.offset:], `\u`) {
		for range len(`\uDC00`) {
			s.next() // JSON spells this character as a pair of surrogates
		}
	}
	return rune(code)
}

// isBlank reports whether r is a space or a line break that folding or indentation may change.
func isBlank(r rune) bool { return r == ' ' || r == '\t' || r == '\n' || r == '\r' || r == '\u0085' }

// parseJSON parses valid JSON into a tree of the type that the YAML library returns. The YAML library itself cannot
// parse every JSON text.
func parseJSON(file *lineIndex) yaml.Node {
	decoder := json.NewDecoder(strings.NewReader(file.text))
	decoder.UseNumber()
	c := file.cursorAt(1)
	var readValue func() *yaml.Node
	readValue = func() *yaml.Node {
		c.skipAny(" \t\r\n,:")
		node := &yaml.Node{Kind: yaml.ScalarNode, Line: c.Line, Column: c.Column}
		token, _ := decoder.Token() // the JSON is valid
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
				return nil // the end of a mapping or a list
			}
			for decoder.More() {
				node.Content = append(node.Content, readValue())
			}
			readValue() // moves past the end of the mapping or list
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
	return *readValue()
}
