package awsranges

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
)

// maxBytes bounds a document, uncompressed: twenty times AWS's of 2026.
const maxBytes = 64 << 20

var gzipMagic = []byte{0x1f, 0x8b}

// ReadFile reads and parses a document from a file, plain or gzip. Errors name the file.
func ReadFile(path string) (*Table, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	table, err := read(file)
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

// Fetch reads and parses a document from a URL, plain or gzip. Errors name the URL.
func Fetch(ctx context.Context, client *http.Client, url string) (*Table, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s", url, response.Status)
	}
	table, err := read(response.Body)
	if err == nil && !table.HasAWS() {
		err = errors.New("no syncToken")
	}
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", url, err)
	}
	return table, nil
}

func read(r io.Reader) (*Table, error) {
	data, err := readBounded(r)
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(data, gzipMagic) {
		unzipped, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return nil, err
		}
		if data, err = readBounded(unzipped); err != nil {
			return nil, err
		}
	}
	return Parse(data)
}

func readBounded(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxBytes+1))
	if err == nil && len(data) > maxBytes {
		err = fmt.Errorf("more than %d MiB", maxBytes>>20)
	}
	return data, err
}
