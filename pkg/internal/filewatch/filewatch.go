// Package filewatch detects changes of files by polling. It also detects the swap of a symbolic link, by which
// a kubelet updates a mounted ConfigMap or Secret.
package filewatch

import (
	"context"
	"os"
	"time"
)

// Interval is the recommended time between two calls of Changed.
const Interval = 2 * time.Second

// Files is a set of watched files. Only one goroutine may use it.
type Files struct {
	paths []string
	infos []os.FileInfo // the state of each path at the last call of Changed; nil for a missing file
}

// New returns the set of the files at paths, and records their current state. It ignores empty paths.
func New(paths ...string) *Files {
	f := &Files{}
	for _, path := range paths {
		if path != "" {
			f.paths = append(f.paths, path)
		}
	}
	f.infos = make([]os.FileInfo, len(f.paths))
	f.Changed()
	return f
}

// Changed reports whether a file has changed since the last call of Changed, or since New. A file changes if it appears
// or disappears, if another file replaces it, or if its size or modification time changes.
func (f *Files) Changed() bool {
	changed := false
	for i, path := range f.paths {
		info, err := os.Stat(path)
		if err != nil {
			info = nil
		}
		if !isUnchanged(f.infos[i], info) {
			f.infos[i], changed = info, true
		}
	}
	return changed
}

// Follow polls the files every Interval and calls onChange after each change, until ctx ends.
func (f *Files) Follow(ctx context.Context, onChange func()) {
	poll := time.NewTicker(Interval)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
			if f.Changed() {
				onChange()
			}
		}
	}
}

// isUnchanged reports whether two results of os.Stat describe the same unchanged file. A nil result means a missing
// file.
func isUnchanged(previous, current os.FileInfo) bool {
	if previous == nil || current == nil {
		return previous == nil && current == nil
	}
	return os.SameFile(previous, current) && previous.Size() == current.Size() && previous.ModTime().Equal(current.ModTime())
}
