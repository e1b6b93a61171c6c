package cli

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"egress-agent/pkg/policy"
)

// Stdin is the file name that stands for standard input.
const Stdin = "-"

// Bounds of what is read, in bytes. A folder may hold anything. A file that is named, or standard input, may be all
// ConfigMaps of a cluster, as kubectl prints them.
const (
	maxInFolder = 16 << 20
	maxNamed    = 256 << 20
)

// Found is what files hold.
type Found struct {
	// Sources are the policies, in the order of the files.
	Sources []Source
	// Warnings are of ConfigMaps that seem to be meant as policies and are none. They are printed already.
	Warnings []Remark
	// Unread are the files, or objects in them, that should hold a policy and cannot be read. Who judges the
	// policies prints these afterwards, with Report.
	Unread []Remark
}

// Remark is what reading has to say of a file, beside its policies.
type Remark struct {
	File    string
	At      Position // zero where it is not known
	Message string
	text    string // the line that says all of it
}

// Report prints what could not be read, and returns the exit status: the one given where there is nothing.
func (f *Found) Report(stderr Output, program string, status int) int {
	for _, unread := range f.Unread {
		stderr.Line("%s: %s", program, unread.text)
		status = ExitUsage
	}
	return status
}

// ReadPolicies reads the policy ConfigMaps out of files and folders, in their order. What is none is passed over,
// with a note where that may not have been meant. One that cannot be read is no reason not to read the others.
func ReadPolicies(names []string, stdin io.Reader, notes Output) *Found {
	found := &Found{}
	for _, name := range names {
		before := len(found.Sources) + len(found.Unread)
		if info, err := os.Stat(name); name != Stdin && err == nil && info.IsDir() {
			found.folder(name, notes)
		} else {
			found.file(name, stdin, notes)
		}
		if len(found.Sources)+len(found.Unread) == before {
			notes.Line("%s: no policy here: no ConfigMap has the label %s: %s", name, policy.Label, policy.LabelValue)
		}
	}
	return found
}

// file reads a file that was named itself, of any kind: it may be a pipe.
func (f *Found) file(name string, stdin io.Reader, notes Output) {
	if name != Stdin {
		file, err := os.Open(name)
		if err != nil {
			f.unread(name, err)
			return
		}
		defer file.Close()
		stdin = file
	}
	data, err := readAll(stdin, maxNamed)
	switch {
	case err != nil && name == Stdin:
		f.unread(name, fmt.Errorf("read standard input: %w", err))
	case err != nil:
		f.unread(name, err)
	case data == nil:
		f.unread(name, fmt.Errorf("%s: larger than %d MiB: give it in parts", name, maxNamed>>20))
	default:
		decode(f, name, data, false, notes)
	}
}

func (f *Found) unread(file string, err error) {
	f.Unread = append(f.Unread, Remark{File: file, Message: err.Error(), text: err.Error()})
}

// folder reads all .yaml, .yml and .json files in a folder and in its folders, sorted, but for those whose name, or
// folder's name, begins with a dot.
func (f *Found) folder(name string, notes Output) {
	files, before := 0, len(f.Unread)
	inside, err := filepath.EvalSymlinks(name)
	if err != nil {
		f.unread(name, err)
		return
	}
	// With a separator at its end, the walk goes into a folder that is itself a link.
	root := strings.TrimSuffix(name, string(filepath.Separator)) + string(filepath.Separator)
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			f.unread(path, err)
			if entry != nil && entry.IsDir() {
				return fs.SkipDir
			}
		case path != root && strings.HasPrefix(entry.Name(), "."):
			if entry.IsDir() {
				return fs.SkipDir
			}
		case !entry.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)):
			files++
			f.inFolder(path, inside, notes)
		}
		return nil
	})
	if err != nil {
		f.unread(name, err)
	}
	if files == 0 && len(f.Unread) == before {
		f.unread(name, fmt.Errorf("%s: a folder without .yaml, .yml or .json files", name))
	}
}

// inFolder reads a file of a folder, unless it is none, or a link that leads out of the folder: reading that may
// never end, or show what is no part of the repository.
func (f *Found) inFolder(path, folder string, notes Output) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		// EvalSymlinks says of a loop that it has too many links; opening it says so in the system's words.
		if _, opened := os.Open(path); opened != nil {
			err = opened
		}
		f.unread(path, err)
		return
	}
	if within, err := filepath.Rel(folder, real); err != nil || !filepath.IsLocal(within) {
		notes.Line("%s: passed over: a link that leads out of the folder", path)
		return
	}
	info, err := os.Stat(real)
	switch {
	case err != nil:
		f.unread(path, err)
		return
	case !info.Mode().IsRegular():
		notes.Line("%s: passed over: no regular file", path)
		return
	case info.Size() > maxInFolder:
		notes.Line("%s: passed over: larger than %d MiB; if it holds a policy, name the file after -f", path, maxInFolder>>20)
		return
	}
	data, err := os.ReadFile(path)
	if err != nil {
		f.unread(path, err)
		return
	}
	decode(f, path, data, true, notes)
}

// readAll reads to the end; it returns nil where there is more than the bound.
func readAll(from io.Reader, bound int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(from, bound+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(data)) > bound:
		return nil, nil
	}
	return data, nil
}
