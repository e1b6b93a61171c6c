package policy

import (
	"strconv"
	"strings"
)

// Locate returns where in a document its problems stand, as offsets in bytes: of the value at the path; of
// the field's name where that is what is wrong; of the object or list around it where it is missing. In
// what is no JSON all are at the mistake.
func Locate(data []byte, problems Problems) []int {
	offsets := make([]int, len(problems))
	if reason, offset := syntaxError(data); reason != "" {
		for i := range offsets {
			offsets[i] = offset
		}
		return offsets
	}
	l := locator{reader: reader{rest: string(data)}, size: len(data), places: make(map[string]*fieldOffsets)}
	for _, p := range problems {
		for path, more := p.Path, true; more; path, more = parentPath(path) {
			l.places[path] = nil
		}
	}
	l.visit("", 0)
	for i, p := range problems {
		path := p.Path
		for l.places[path] == nil {
			path, _ = parentPath(path)
		}
		place := l.places[path]
		switch {
		case path == p.Path && strings.HasPrefix(p.Message, "Unknown field: "):
			offsets[i] = place.names[0]
		case path == p.Path && strings.HasPrefix(p.Message, "Duplicate field: "):
			if len(place.names) > 1 {
				place.names = place.names[1:] // each is reported once, and the first one never
			}
			offsets[i] = place.names[0]
		default:
			offsets[i] = place.value
		}
	}
	return offsets
}

// parentPath cuts the last step off a path; more is false where nothing is left to cut.
func parentPath(path string) (outer string, more bool) {
	if path == "" {
		return "", false
	}
	if body, quoted := strings.CutSuffix(path, `"]`); quoted {
		// A quote inside a quoted step is escaped, and a bracket before one is not.
		for i := strings.LastIndex(body, `["`); i >= 0; i = strings.LastIndex(body[:i], `["`) {
			if _, err := strconv.Unquote(path[i+1 : len(path)-1]); err == nil {
				return path[:i], true
			}
		}
	}
	return path[:max(0, strings.LastIndexAny(path, ".["))], true
}

// fieldOffsets is where a field stands: its value, and its name every time that it is given.
type fieldOffsets struct {
	value int
	names []int
}

// locator notes the places of the paths it is asked for. The document itself is the empty path.
type locator struct {
	reader
	size   int
	places map[string]*fieldOffsets
}

func (l *locator) visit(path string, name int) {
	first := l.next()
	offset := l.size - len(l.rest)
	if place, wanted := l.places[path]; place != nil {
		place.names = append(place.names, name)
		l.skip() // what is in a repeated field is not looked at
		return
	} else if wanted {
		l.places[path] = &fieldOffsets{offset, []int{name}}
	}
	switch first {
	case '{':
		l.take(len("{"))
		for l.next() != '}' {
			name := l.size - len(l.rest)
			l.visit(join(path, l.text()), name)
		}
		l.take(len("}"))
	case '[':
		l.take(len("["))
		for i := 0; l.next() != ']'; i++ {
			l.visit(index(path, i), l.size-len(l.rest))
		}
		l.take(len("]"))
	default:
		l.skip()
	}
}
