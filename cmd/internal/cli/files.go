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

// stdinName is the file name that stands for standard input.
const stdinName = "-"

// ReadPolicies reads the policy ConfigMaps out of files and folders, in their order. Objects that are none
// are passed over, with a note where that may not have been meant. Errors name the file.
func ReadPolicies(names []string, stdin io.Reader, notes io.Writer) ([]Source, error) {
	var all []Source
	for _, name := range names {
		var sources []Source
		files, err := manifests(name)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			data, err := readFile(file, stdin)
			if err != nil {
				return nil, err
			}
			found, err := decode(file, data, file != name, notes)
			if err != nil {
				return nil, err
			}
			sources = append(sources, found...)
		}
		if len(sources) == 0 {
			fmt.Fprintf(notes, "%s: no policy here: no ConfigMap has the label %s: %s\n", name, policy.Label, policy.LabelValue)
		}
		all = append(all, sources...)
	}
	return all, nil
}

// manifests returns the files that a name stands for: itself or, of a folder, all .yaml, .yml and .json
// files in it and in its folders, sorted, but for those whose name, or folder's name, begins with a dot.
func manifests(name string) ([]string, error) {
	if info, err := os.Stat(name); name == stdinName || err != nil || !info.IsDir() {
		return []string{name}, nil // reading it says what is wrong
	}
	var files []string
	err := filepath.WalkDir(name, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path != name && strings.HasPrefix(entry.Name(), "."):
			if entry.IsDir() {
				return fs.SkipDir
			}
		case !entry.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)):
			files = append(files, path)
		}
		return nil
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s: a folder without .yaml, .yml or .json files", name)
	}
	return files, err
}

func readFile(file string, stdin io.Reader) ([]byte, error) {
	if file != stdinName {
		return os.ReadFile(file)
	}
	data, err := io.ReadAll(stdin)
	if err != nil {
		return nil, fmt.Errorf("read standard input: %w", err)
	}
	return data, nil
}
