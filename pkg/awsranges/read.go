package awsranges

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
)

// maxBytes bounds a document, uncompressed: six times AWS's of 2026.
const maxBytes = 16 << 20

var gzipMagic = []byte{0x1f, 0x8b}

// ReadFile reads and parses a document from a file, plain or gzip. Errors name the file.
func ReadFile(path string) (*Table, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	table, err := Read(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return table, nil
}

// ReadFiles reads AWS's document from path and an organisation's own from the custom files, and
// merges them. An empty path leaves AWS's out; the Table is nil where nothing is given.
func ReadFiles(path string, custom ...string) (*Table, error) {
	var aws *Table
	if path != "" {
		table, err := ReadFile(path)
		if err != nil {
			return nil, err
		}
		if !table.HasAWS() {
			return nil, fmt.Errorf("%s: no syncToken; give an organisation's own document as custom ranges", path)
		}
		aws = table
	}
	tables := make([]*Table, 0, len(custom))
	for _, file := range custom {
		table, err := ReadFile(file)
		if err != nil {
			return nil, err
		}
		tables = append(tables, table)
	}
	return Merge(aws, tables...), nil
}

// Read reads and parses a document, plain or gzip.
func Read(r io.Reader) (*Table, error) {
	data, err := readDocument(r)
	if err != nil {
		return nil, err
	}
	return Parse(data)
}

// readDocument reads a document, plain or gzip, and returns it plain.
func readDocument(r io.Reader) ([]byte, error) {
	data, err := readBounded(r)
	if err != nil || !bytes.HasPrefix(data, gzipMagic) {
		return data, err
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(data))
	if err == nil {
		data, err = readBounded(unzipped)
	}
	if err != nil {
		return nil, &Refusal{fmt.Errorf("unzip: %w", err)}
	}
	return data, nil
}

func readBounded(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxBytes {
		return nil, &Refusal{fmt.Errorf("it has more than %d MiB", maxBytes>>20)}
	}
	return data, nil
}
