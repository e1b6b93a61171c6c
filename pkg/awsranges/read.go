package awsranges

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
)

// maxBytes bounds an uncompressed document. It is six times the size of AWS's document of 2026.
const maxBytes = 16 << 20

var gzipMagic = []byte{0x1f, 0x8b}

// ReadFile reads and parses a file, plain or gzip, in AWS's format or in the format of Encode. Its errors name
// the file.
func ReadFile(path string) (*Table, error) { return readFile(path, storedFormat) }

func readFile(path string, f format) (*Table, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	d, err := read(file, f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return newTable(d, nil), nil
}

// ReadFiles reads AWS's document from path and the organisation's own documents, and merges them. If path is empty, the
// result has no AWS rows. If path and custom.Files are empty, the Table is nil.
func ReadFiles(path string, custom CustomFiles) (*Table, error) {
	tables, err := custom.read()
	if err != nil {
		return nil, err
	}
	var aws *Table
	if path != "" {
		if aws, err = ReadFile(path); err != nil {
			return nil, err
		}
		if !aws.HasAWS() {
			return nil, fmt.Errorf("%s: no syncToken, so this is not AWS's document; pass an organisation's own document with --custom-ranges", path)
		}
	}
	return Merge(aws, tables...), nil
}

// Read reads and parses a document, plain or gzip, in AWS's format or in the format of Encode. A *RefusedError means
// that the content of the document is invalid. Any other error means that the read failed.
func Read(r io.Reader) (*Table, error) {
	d, err := read(r, storedFormat)
	if err != nil {
		return nil, err
	}
	return newTable(d, nil), nil
}

// RefusedError is the error for a document that was read completely and then refused.
type RefusedError struct{ Reason error }

// Error gives the reason.
func (r *RefusedError) Error() string { return r.Reason.Error() }

// Unwrap returns the reason.
func (r *RefusedError) Unwrap() error { return r.Reason }

func read(r io.Reader, f format) (*document, error) {
	recorder := &errorRecorder{reader: r}
	d, err := parsePlainOrGzip(recorder, f)
	switch {
	case recorder.err != nil:
		return nil, recorder.err
	case err != nil:
		return nil, &RefusedError{err}
	}
	return d, nil
}

func parsePlainOrGzip(r io.Reader, f format) (*document, error) {
	buffered := bufio.NewReader(&maxBytesReader{r, maxBytes})
	magic, _ := buffered.Peek(len(gzipMagic)) // the reads below return the same error again
	if !bytes.Equal(magic, gzipMagic) {
		return parse(fullReader{buffered}, f)
	}
	unzipped, err := gzip.NewReader(buffered)
	if err != nil {
		return nil, fmt.Errorf("unzip: %w", err)
	}
	return parse(fullReader{&maxBytesReader{unzipped, maxBytes}}, f)
}

// fullReader fills the whole buffer on each Read. The JSON decoder scans pending white space again after each
// read, so short reads of much white space would take quadratic time.
type fullReader struct{ reader io.Reader }

func (f fullReader) Read(data []byte) (int, error) {
	n, err := io.ReadFull(f.reader, data)
	if err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	return n, err
}

// errorRecorder records the error of a failed read. The caller needs it to separate read errors from invalid content.
type errorRecorder struct {
	reader io.Reader
	err    error
}

func (r *errorRecorder) Read(data []byte) (int, error) {
	n, err := r.reader.Read(data)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// maxBytesReader reads from reader, and returns an error if reader has more than bytesLeft bytes.
type maxBytesReader struct {
	reader    io.Reader
	bytesLeft int
}

func (b *maxBytesReader) Read(data []byte) (int, error) {
	n, err := b.reader.Read(data)
	if b.bytesLeft -= n; b.bytesLeft < 0 {
		return 0, fmt.Errorf("the document is larger than %d MiB", maxBytes>>20)
	}
	return n, err
}
