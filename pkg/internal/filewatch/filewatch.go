// Package filewatch notices that files have changed, also through the swap of a symbolic link by which
// a mounted ConfigMap or Secret is updated.
package filewatch

import (
	"context"
	"os"
	"time"
)

// Interval is how often it is worth asking.
const Interval = 2 * time.Second

// Files is a set of files, made by Watch. It is for one goroutine.
type Files struct {
	paths []string
	seen  []os.FileInfo // nil for one that is not there
}

// Watch notes how the files are now. Empty paths are passed over.
func Watch(paths ...string) *Files {
	f := &Files{}
	for _, path := range paths {
		if path != "" {
			f.paths = append(f.paths, path)
		}
	}
	f.seen = make([]os.FileInfo, len(f.paths))
	f.Changed()
	return f
}

// Changed says whether any of the files is another, has another size or time, came or went, since the
// last call.
func (f *Files) Changed() bool {
	changed := false
	for i, path := range f.paths {
		info, err := os.Stat(path)
		if err != nil {
			info = nil
		}
		if !same(f.seen[i], info) {
			f.seen[i], changed = info, true
		}
	}
	return changed
}

// Follow calls changed after each change, until the context ends.
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

func same(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
