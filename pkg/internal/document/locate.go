package document

import (
	"strconv"
	"strings"
)

// Locate returns the byte offset of each problem in a document. The offset is the start of the value at the problem's
// path. For an unknown or duplicate field it is the start of the field's name. For a missing field it is the start of
// the surrounding object or list. If data is not JSON, every offset is the offset of the syntax error.
func Locate(data []byte, problems Problems) []int {
	offsets := make([]int, len(problems))
	if reason, offset := syntaxError(data); reason != "" {
		for i := range offsets {
			offsets[i] = offset
		}
		return offsets
	}
	l := locator{jsonReader: jsonReader{rest: string(data)}, size: len(data), byPath: make(map[string]*fieldOffsets)}
	for _, p := range problems {
		for path, hasParent := p.Path, true; hasParent; path, hasParent = parentPath(path) {
			l.byPath[path] = nil
		}
	}
	l.visit("", 0)
	for i, p := range problems {
		path := p.Path
		for l.byPath[path] == nil {
			path, _ = parentPath(path)
		}
		found := l.byPath[path]
		switch {
		case path == p.Path && strings.HasPrefix(p.Message, "Unknown field: "):
			offsets[i] = found.names[0]
		case path == p.Path && strings.HasPrefix(p.Message, "Duplicate field: "):
			if len(found.names) > 1 {
				// Validate reports each further field of that name, but not the first field.
				found.names = found.names[1:]
			}
			offsets[i] = found.names[0]
		default:
			offsets[i] = found.value
		}
	}
	return offsets
}

// parentPath removes the last step of a path. ok is false if the path is already empty.
func parentPath(path string) (parent string, ok bool) {
	if path == "" {
		return "", false
	}
	if body, quoted := strings.CutSuffix(path, `"]`); quoted {
		// The quoted name may itself contain [". The name starts at the last [" after which the rest is one quoted
		// string.
		for i := strings.LastIndex(body, `["`); i >= 0; i = strings.LastIndex(body[:i], `["`) {
			if _, err := strconv.Unquote(path[i+1 : len(path)-1]); err == nil {
				return path[:i], true
			}
		}
	}
	return path[:max(0, strings.LastIndexAny(path, ".["))], true
}

// fieldOffsets has the offset of a field's first value, and of each occurrence of the field's name.
type fieldOffsets struct {
	value int
	names []int
}

// locator records the offsets of the paths that are keys of byPath. The empty path is the document itself. The value of
// a key is nil until visit finds the path.
type locator struct {
	jsonReader
	size   int
	byPath map[string]*fieldOffsets
}

// visit reads the next value. path is the value's path. nameOffset is the offset of the value's field name or, for a
// list item, of the item.
func (l *locator) visit(path string, nameOffset int) {
	firstByte := l.peek()
	valueOffset := l.size - len(l.rest)
	if found, isKey := l.byPath[path]; found != nil {
		found.names = append(found.names, nameOffset)
		l.skipValue() // Validate does not check the value of a duplicate field
		return
	} else if isKey {
		l.byPath[path] = &fieldOffsets{valueOffset, []int{nameOffset}}
	}
	switch firstByte {
	case '{':
		l.take(len("{"))
		for l.peek() != '}' {
			nameOffset := l.size - len(l.rest)
			l.visit(JoinField(path, l.takeString()), nameOffset)
		}
		l.take(len("}"))
	case '[':
		l.take(len("["))
		for i := 0; l.peek() != ']'; i++ {
			l.visit(JoinIndex(path, i), l.size-len(l.rest))
		}
		l.take(len("]"))
	default:
		l.skipValue()
	}
}
