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
	infos []os.FileInfo // by index of paths, at the last call of Changed; nil for a missing file
}

// Watch returns a set of the files at paths in their current state. It ignores empty paths.
func Watch(paths ...string) *Files {
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

// Changed reports whether a file has changed since the last call, or since Watch. A file changes if it appears
// or disappears, if another file replaces it, or if its size or modification time changes.
func (f *Files) Changed() bool {
	changed := false
	for i, path := range f.paths {
		info, err := os.Stat(path)
		if err != nil {
			info = nil
		}
		if !isSameFile(f.infos[i], info) {
			f.infos[i], changed = info, true
		}
	}
	return changed
}

// Follow polls the files every Interval and calls changed after each change, until ctx ends.
func (f *Files) Follow(ctx context.Context, changed func()) {
	poll := time.NewTicker(Interval)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
			if f.Changed() {
				changed()
			}
		}
	}
}

// isSameFile reports whether two results of os.Stat show the same unchanged file. nil is a missing file.
func isSameFile(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
