package platform

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
)

// SnapshotName is the name of the ConfigMap in which the agent keeps the Snapshot for itself and for the webhook, in the
// agent's namespace. SnapshotKey is the key of the Snapshot, as EncodeSnapshot returns it.
const (
	SnapshotName = "egress-platform"
	SnapshotKey  = "platform.json.gz"
)

// Snapshot has the platform documents in force, and the documents of each namespace.
type Snapshot struct {
	// Changed is when the agent made this content, in epoch seconds.
	Changed int64 `json:"changed"`
	// Documents are the platform.json in force, by the name of the ConfigMap.
	Documents map[string]json.RawMessage `json:"documents"`
	// Namespaces has the names of the documents that govern a namespace, sorted. A namespace without a document has an
	// empty list. A namespace that the agent did not know is absent.
	Namespaces map[string][]string `json:"namespaces"`
}

// maxSnapshotBytes limits an unpacked Snapshot, so that a defective file cannot fill the memory.
const maxSnapshotBytes = 64 << 20

// EncodeSnapshot returns the snapshot as compressed JSON. Equal snapshots have equal encodings.
func EncodeSnapshot(s Snapshot) ([]byte, error) {
	var buffer bytes.Buffer
	writer, err := gzip.NewWriterLevel(&buffer, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if err := json.NewEncoder(writer).Encode(s); err != nil {
		return nil, err
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	return buffer.Bytes(), nil
}

// DecodeSnapshot reads the result of EncodeSnapshot.
func DecodeSnapshot(data []byte) (Snapshot, error) {
	reader, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return Snapshot{}, fmt.Errorf("read the platform snapshot: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(reader, maxSnapshotBytes+1))
	if err != nil {
		return Snapshot{}, fmt.Errorf("read the platform snapshot: %w", err)
	}
	if len(text) > maxSnapshotBytes {
		return Snapshot{}, fmt.Errorf("the platform snapshot is larger than %d bytes", maxSnapshotBytes)
	}
	var s Snapshot
	if err := json.Unmarshal(text, &s); err != nil {
		return Snapshot{}, fmt.Errorf("read the platform snapshot: %w", err)
	}
	return s, nil
}
