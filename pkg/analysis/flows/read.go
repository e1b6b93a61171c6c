package flows

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
)

const (
	bufferSize = 512 << 10
	// overlap is how much of a buffer without the end of a line is read again with the next one. A record of the node
	// agent is shorter.
	overlap = 4 << 10
)

// Read adds the records of one file, which may be compressed with gzip. It returns an error if the file ends too early or
// cannot be read. The records before that count.
func (l *Log) Read(file io.Reader) error {
	l.fields = nil
	buffered := bufio.NewReader(file)
	if head, _ := buffered.Peek(2); bytes.Equal(head, []byte{0x1f, 0x8b}) {
		plain, err := gzip.NewReader(buffered)
		if err != nil {
			return fmt.Errorf("not a gzip file: %w", err)
		}
		return l.read(plain)
	}
	return l.read(buffered)
}

func (l *Log) read(plain io.Reader) error {
	buffer, filled := make([]byte, bufferSize), 0
	isLineCut := false // whether the buffer begins inside a line
	for {
		var err error
		for filled < len(buffer) && err == nil {
			var n int
			n, err = plain.Read(buffer[filled:])
			filled += n
		}
		if end := bytes.LastIndexByte(buffer[:filled], '\n') + 1; err != nil {
			l.readLines(buffer[:filled], filled, isLineCut)
		} else if end > 0 {
			l.readLines(buffer[:end], end, isLineCut)
			filled, isLineCut = copy(buffer, buffer[end:filled]), false
		} else {
			end = filled - overlap
			l.readLines(buffer[:filled], end, isLineCut)
			filled, isLineCut = copy(buffer, buffer[end:filled]), true
		}
		switch {
		case err == io.EOF:
			return nil
		case errors.Is(err, io.ErrUnexpectedEOF):
			return errors.New("the file is cut: its compressed data ends too early")
		case err != nil:
			return err
		}
	}
}

// readLines reads the records that begin before end. isCut reports whether text begins inside a line. The
// Log has then read the start of that line.
func (l *Log) readLines(text []byte, end int, isCut bool) {
	for start := 0; start < end; {
		line := text[start:]
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line = line[:i+1]
		}
		limit := min(len(line), end-start)
		found := l.readLine(line, limit)
		if !found && !isCut && len(bytes.TrimSpace(line)) > 0 {
			l.skip(NoRecord)
		}
		start, isCut = start+len(line), false
	}
}

// The texts at which a record of the node agent begins, in its file and in CloudWatch.
var (
	agentMarker      = []byte("Src IP")
	cloudWatchMarker = []byte("SIP: ")
)

// readLine reads the records of a line that begin before limit, and reports whether it found any.
func (l *Log) readLine(line []byte, limit int) (found bool) {
	if l.Format == "" || l.Format == Auto || l.Format == Agent {
		for rest, offset := line, 0; ; {
			marker, parse := agentMarker, l.readAgent
			i := bytes.Index(rest, agentMarker)
			if k := bytes.Index(rest, cloudWatchMarker); k >= 0 && (i < 0 || k < i) {
				i, marker, parse = k, cloudWatchMarker, l.readCloudWatch
			}
			if i < 0 || offset+i >= limit {
				break
			}
			found = true
			parse(line, offset+i)
			offset += i + len(marker)
			rest = rest[i+len(marker):]
		}
		if found || l.Format == Agent {
			return found
		}
	}
	if l.Format != VPC && isHubble(line) {
		return l.readHubble(line)
	}
	if l.Format != Hubble {
		return l.readVPC(line, limit)
	}
	return false
}

// window is how far before a record its time is, in bytes.
const window = 512

// around returns the part of a line near a record at offset i.
func around(line []byte, i int) []byte {
	return line[max(i-window, 0):min(i+window, len(line))]
}
