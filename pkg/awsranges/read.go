package awsranges

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
)

// maxBytes bounds a document, uncompressed: six times AWS's of 2026.
const maxBytes = 16 << 20

var gzipMagic = []byte{0x1f, 0x8b}

// ReadFile reads and parses a document from a file, plain or gzip: AWS's, or as Encode writes it. Errors
// name the file.
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

// ReadFiles reads an organisation's own documents and, from path, AWS's, and merges them. An empty path
// leaves AWS's out; the Table is nil where nothing is given.
func ReadFiles(path string, custom Custom) (*Table, error) {
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
			return nil, fmt.Errorf("%s: no syncToken; give an organisation's own document as custom ranges", path)
		}
	}
	return Merge(aws, tables...), nil
}

// Read reads and parses a document, plain or gzip: AWS's, or as Encode writes it. An error that is a *Refusal is about what was read, any
// other about reading it.
func Read(r io.Reader) (*Table, error) {
	d, err := read(r, storedFormat)
	if err != nil {
		return nil, err
	}
	return newTable(d, nil), nil
}

// RefusedError is the error of a document that was read whole, and is not believed.
type RefusedError struct{ Reason error }

// Error gives the reason.
func (r *RefusedError) Error() string { return r.Reason.Error() }

// Unwrap returns the reason.
func (r *RefusedError) Unwrap() error { return r.Reason }

func read(r io.Reader, f format) (*document, error) {
	transfer := &errorRecorder{reader: r}
	d, err := parsePlainOrGzip(transfer, f)
	switch {
	case transfer.err != nil:
		return nil, transfer.err
	case err != nil:
		return nil, &RefusedError{err}
	}
	return d, nil
}

func parsePlainOrGzip(r io.Reader, f format) (*document, error) {
	buffered := bufio.NewReader(&maxBytesReader{r, maxBytes})
	magic, _ := buffered.Peek(len(gzipMagic)) // what fails here fails again below
	if !bytes.Equal(magic, gzipMagic) {
		return parse(fullReader{buffered}, f)
	}
	unzipped, err := gzip.NewReader(buffered)
	if err != nil {
		return nil, fmt.Errorf("unzip: %w", err)
	}
	return parse(fullReader{&maxBytesReader{unzipped, maxBytes}}, f)
}

// fullReader reads as much as is asked for. The decoder looks at white space anew after each read, and would
// do so without end where there is much of it and each read gives little.
type fullReader struct{ reader io.Reader }

func (f fullReader) Read(data []byte) (int, error) {
	n, err := io.ReadFull(f.reader, data)
	if err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	return n, err
}

// errorRecorder tells what a reader failed with from what was wrong with what it read.
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

// maxBytesReader fails where a reader has more than rest bytes.
type maxBytesReader struct {
	reader io.Reader
	rest   int
}

func (b *maxBytesReader) Read(data []byte) (int, error) {
	n, err := b.reader.Read(data)
	if b.rest -= n; b.rest < 0 {
		return 0, fmt.Errorf("it has more than %d MiB", maxBytes>>20)
	}
	return n, err
}
