package audit

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"egress-agent/pkg/policy"
)

const (
	// maxLine bounds a line, in bytes. An Entry has at most 100 CIDRs in each list and 20 warnings, so it is far smaller.
	maxLine = 1 << 20
	// maxWraps is how often an Entry may be a string in another JSON value, as log shippers send it.
	maxWraps = 3
)

// Read calls each for every Entry in a log, plain or gzip. The log may have other lines, and text before the JSON. A log
// shipper may have put the line into a JSON value of its own. Read skips what is no Entry. long is the number of lines
// over 1 MiB, which it skips unread.
func Read(log io.Reader, each func(Entry)) (long int, err error) {
	buffered := bufio.NewReaderSize(log, 64<<10)
	if magic, _ := buffered.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		plain, err := gzip.NewReader(buffered)
		if err != nil {
			return 0, fmt.Errorf("not gzip: %w", err)
		}
		buffered = bufio.NewReaderSize(plain, 64<<10)
	}
	var line []byte
	for {
		part, err := buffered.ReadSlice('\n')
		if len(line) <= maxLine {
			line = append(line, part...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if len(line) > maxLine {
			long++
		} else {
			readLine(line, each)
		}
		line = line[:0]
		if errors.Is(err, io.EOF) {
			return long, nil
		}
		if err != nil {
			return long, err
		}
	}
}

// readLine finds the entries in a line.
func readLine(line []byte, each func(Entry)) {
	if start := bytes.IndexByte(line, '{'); start >= 0 && mayHaveEntry(string(line)) {
		readValue(line[start:], maxWraps, each)
	}
}

// mayHaveEntry reports whether a text has the field audit, plain or in a string.
func mayHaveEntry(text string) bool { return strings.Contains(text, `audit`) }

func readValue(text []byte, wraps int, each func(Entry)) {
	var value any
	if json.Unmarshal(text, &value) != nil {
		return
	}
	if fields, isObject := value.(map[string]any); isObject && fields["audit"] == true {
		var e Entry
		if json.Unmarshal(text, &e) == nil && e.isKnown() {
			each(e)
		}
		return
	}
	walk(value, func(s string) {
		if start := strings.IndexByte(s, '{'); start >= 0 && wraps > 0 && mayHaveEntry(s) {
			readValue([]byte(s[start:]), wraps-1, each)
		}
	}, func(nested map[string]any) {
		if encoded, err := json.Marshal(nested); err == nil {
			readValue(encoded, wraps-1, each)
		}
	})
}

// walk calls str for each string in a JSON value, and entry for each nested object that is an Entry.
func walk(value any, str func(string), entry func(map[string]any)) {
	switch v := value.(type) {
	case string:
		str(v)
	case []any:
		for _, item := range v {
			walk(item, str, entry)
		}
	case map[string]any:
		if v["audit"] == true {
			entry(v)
			return
		}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			walk(v[name], str, entry)
		}
	}
}

func (e Entry) isKnown() bool { return e.Event == Admitted || e.Event == Written || e.Event == Deleted }

// Has reports whether the entry opened or closed a connection to an address and port.
func (e Entry) Has(address netip.Addr, port uint16, protocol policy.Protocol) bool {
	return slices.ContainsFunc(slices.Concat(e.Opened, e.Closed), func(o Opening) bool { return o.has(address, port, protocol) })
}

func (o Opening) has(address netip.Addr, port uint16, protocol policy.Protocol) bool {
	isTo := slices.ContainsFunc(o.To, func(to string) bool {
		prefix, err := netip.ParsePrefix(to)
		return err == nil && prefix.Contains(address)
	})
	return isTo && (len(o.Ports) == 0 || slices.ContainsFunc(o.Ports, func(text string) bool {
		var name string
		var first, last uint16
		if n, _ := fmt.Sscanf(text, "%s %d-%d", &name, &first, &last); n == 2 {
			last = first
		}
		return name == string(protocol) && first <= port && port <= last
	}))
}
