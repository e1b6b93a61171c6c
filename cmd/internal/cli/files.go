package cli

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"egress-agent/pkg/policy"
)

// Stdin is the file name that means standard input.
const Stdin = "-"

// The maximum sizes of files. A folder may contain any kind of file. A file that the user names, or standard input, may
// contain the output of kubectl with all ConfigMaps of a cluster.
const (
	maxFolderFileBytes = 16 << 20
	maxNamedFileBytes  = 256 << 20
)

// ReadResult is the result of ReadPolicies.
type ReadResult struct {
	// Sources are the policy ConfigMaps, in the order of the files.
	Sources []Source
	// Platforms are the platform ConfigMaps, in the order of the files.
	Platforms []Source
	// Namespaces has the labels of the Namespaces.
	Namespaces map[string]labels.Set
	// Warnings are about ConfigMaps that look like policy ConfigMaps but lack the label. ReadPolicies has already
	// printed them.
	Warnings []FileMessage
	// Unread has an item for each file or object that should contain a policy and that ReadPolicies could not read. The
	// caller prints the items with ReportUnread, after the verdicts on Sources.
	Unread []FileMessage
}

// FileMessage is a message about a file, or about a position in it.
type FileMessage struct {
	File    string
	At      Position // the zero Position if unknown
	Message string
	line    string // the complete line to print, with file and position
}

// ReportUnread prints a line for each item of Unread. It returns ExitUsage if Unread has an item, or else status.
func (r *ReadResult) ReportUnread(stderr Output, program string, status int) int {
	for _, unread := range r.Unread {
		stderr.Line("%s: %s", program, unread.line)
		status = ExitUsage
	}
	return status
}

// ReadPolicies reads the policy ConfigMaps in files and folders, in the order of paths. It skips other objects. It
// prints a note about an object that the user may not expect it to skip. If it cannot read one file, it still reads the
// other files.
func ReadPolicies(paths []string, stdin io.Reader, notes Output) *ReadResult {
	result := newReadResult()
	for _, path := range paths {
		previousCount := result.count()
		result.read(path, stdin, notes)
		if result.count() == previousCount {
			notes.Line("%s: no policy found: no ConfigMap has the label %s: %s", path, policy.Label, policy.LabelValue)
		}
	}
	return result
}

// readFiles is ReadPolicies without a note about files that have no policy.
func readFiles(paths []string, stdin io.Reader, notes Output) *ReadResult {
	result := newReadResult()
	for _, path := range paths {
		result.read(path, stdin, notes)
	}
	return result
}

func newReadResult() *ReadResult { return &ReadResult{Namespaces: make(map[string]labels.Set)} }

// count returns the number of objects that a command uses or reports.
func (r *ReadResult) count() int {
	return len(r.Sources) + len(r.Platforms) + len(r.Namespaces) + len(r.Unread)
}

// read reads a file or a folder.
func (r *ReadResult) read(path string, stdin io.Reader, notes Output) {
	if info, err := os.Stat(path); path != Stdin && err == nil && info.IsDir() {
		r.readFolder(path, notes)
	} else {
		r.readNamed(path, stdin, notes)
	}
}

// readNamed reads a file that the user named. The file may have any type, such as a pipe.
func (r *ReadResult) readNamed(name string, stdin io.Reader, notes Output) {
	reader := stdin
	if name != Stdin {
		file, err := os.Open(name)
		if err != nil {
			r.addUnread(name, err)
			return
		}
		defer file.Close()
		reader = file
	}
	data, err := readAll(reader, maxNamedFileBytes)
	switch {
	case err != nil && name == Stdin:
		r.addUnread(name, fmt.Errorf("read standard input: %w", err))
	case err != nil:
		r.addUnread(name, err)
	case data == nil:
		r.addUnread(name, fmt.Errorf("%s: larger than %d MiB: split the file", name, maxNamedFileBytes>>20))
	default:
		decodeFile(r, name, data, false, notes)
	}
}

func (r *ReadResult) addUnread(file string, err error) {
	r.Unread = append(r.Unread, FileMessage{File: file, Message: err.Error(), line: err.Error()})
}

// readFolder reads all .yaml, .yml and .json files below a folder, in sorted order. It skips files and folders whose
// name starts with a dot.
func (r *ReadResult) readFolder(name string, notes Output) {
	fileCount, unreadBefore := 0, len(r.Unread)
	realFolder, err := filepath.EvalSymlinks(name)
	if err != nil {
		r.addUnread(name, err)
		return
	}
	// If root is a link, WalkDir follows it only if it ends in a separator.
	root := strings.TrimSuffix(name, string(filepath.Separator)) + string(filepath.Separator)
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			r.addUnread(path, err)
			if entry != nil && entry.IsDir() {
				return fs.SkipDir
			}
		case path != root && strings.HasPrefix(entry.Name(), "."):
			if entry.IsDir() {
				return fs.SkipDir
			}
		case !entry.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)):
			fileCount++
			r.readInFolder(path, realFolder, notes)
		}
		return nil
	})
	if err != nil {
		r.addUnread(name, err)
	}
	if fileCount == 0 && len(r.Unread) == unreadBefore {
		r.addUnread(name, fmt.Errorf("%s: the folder has no .yaml, .yml or .json files", name))
	}
}

// readInFolder reads a file in a folder. It skips a file that is not regular, because reading it may never end. It also
// skips a link to a file outside realFolder, because such a file is not part of the repository.
func (r *ReadResult) readInFolder(path, realFolder string, notes Output) {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		// For a loop of links, the error of Open is clearer than the error of EvalSymlinks.
		if _, openErr := os.Open(path); openErr != nil {
			err = openErr
		}
		r.addUnread(path, err)
		return
	}
	if relative, err := filepath.Rel(realFolder, target); err != nil || !filepath.IsLocal(relative) {
		notes.Line("%s: skipped: the link leads out of the folder", path)
		return
	}
	info, err := os.Stat(target)
	switch {
	case err != nil:
		r.addUnread(path, err)
		return
	case !info.Mode().IsRegular():
		notes.Line("%s: skipped: not a regular file", path)
		return
	case info.Size() > maxFolderFileBytes:
		notes.Line("%s: skipped: larger than %d MiB; if it has a policy, give the file itself with -f", path, maxFolderFileBytes>>20)
		return
	}
	data, err := os.ReadFile(path)
	if err != nil {
		r.addUnread(path, err)
		return
	}
	decodeFile(r, path, data, true, notes)
}

// readAll reads all data of a reader. It returns nil if the data has more than limit bytes.
func readAll(reader io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(reader, limit+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(data)) > limit:
		return nil, nil
	}
	return data, nil
}
