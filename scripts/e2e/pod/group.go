package pod

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// groupsDir is the folder where Linux mounts the cgroups.
const groupsDir = "/sys/fs/cgroup"

// group is a cgroup with a memory limit, for one process.
type group struct{ dir string }

// newGroup creates a cgroup of version 1 or 2 below the cgroup of this process. If that fails, it tries to create the
// cgroup below the root cgroup. It returns nil if both fail, for example without root rights or a memory controller.
func newGroup(name string, limit int64) *group {
	for _, parent := range parentDirs() {
		if _, err := os.Stat(parent); err != nil {
			continue
		}
		g := &group{filepath.Join(parent, name)}
		if err := os.Mkdir(g.dir, 0o755); err != nil {
			continue
		}
		if g.setLimit(limit) == nil {
			return g
		}
		_ = os.Remove(g.dir)
	}
	return nil
}

// parentDirs returns the folders in which newGroup tries to create a cgroup, in this order.
func parentDirs() []string {
	data, err := os.ReadFile("/proc/self/cgroup") // lines such as 4:memory:/a of version 1 and 0::/a of version 2
	if err != nil {
		return nil
	}
	var dirs []string
	for line := range strings.Lines(string(data)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(fields) != 3:
		case fields[1] == "memory":
			dirs = append(dirs, filepath.Join(groupsDir, "memory", fields[2]), filepath.Join(groupsDir, "memory"))
		case fields[0] == "0":
			dirs = append(dirs, filepath.Join(groupsDir, fields[2]), groupsDir)
		}
	}
	return dirs
}

// setLimit sets the memory limit, and allows no swap, as a kubelet does.
func (g *group) setLimit(limit int64) error {
	for _, files := range [][2]string{
		{"memory.max", "memory.swap.max"},
		{"memory.limit_in_bytes", "memory.memsw.limit_in_bytes"},
	} {
		if _, err := os.Stat(filepath.Join(g.dir, files[0])); err != nil {
			continue
		}
		if err := g.write(files[0], limit); err != nil {
			return err
		}
		swap := limit // version 1 limits the sum of memory and swap
		if files[0] == "memory.max" {
			swap = 0
		}
		// A kernel without swap accounting has no such file.
		if err := g.write(files[1], swap); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	return fmt.Errorf("%s has no memory controller", g.dir)
}

func (g *group) write(file string, value int64) error {
	f, err := os.OpenFile(filepath.Join(g.dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.FormatInt(value, 10))
	return errors.Join(err, f.Close())
}

// remove deletes the cgroup of a process that has ended. It retries, because the kernel frees the group a little later.
func (g *group) remove() error {
	var err error
	for range 100 {
		if err = os.Remove(g.dir); err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}
