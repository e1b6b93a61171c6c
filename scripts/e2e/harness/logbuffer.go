package harness

import (
	"bytes"
	"sync"
)

// LogBuffer holds a log in memory. A test may read it while the agent writes it.
type LogBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

// Write appends data. It never fails.
func (b *LogBuffer) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(data)
}

// String returns the log so far.
func (b *LogBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
