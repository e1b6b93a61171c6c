package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func parseInts(t *testing.T, text string) []int {
	var numbers []int
	for _, field := range strings.Fields(text) {
		n, err := strconv.Atoi(field)
		require.NoError(t, err)
		numbers = append(numbers, n)
	}
	return numbers
}

func procPath(pid int, file string) string { return fmt.Sprintf("/proc/%d/%s", pid, file) }

// childProcesses returns the ids of this process's children that run a program, by the program's file name.
func childProcesses(t *testing.T, program string) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/task")
	require.NoError(t, err)
	var found []int
	for _, entry := range entries {
		data, err := os.ReadFile("/proc/self/task/" + entry.Name() + "/children")
		if err != nil {
			continue // the thread has ended
		}
		for _, pid := range parseInts(t, string(data)) {
			if name, err := os.Readlink(procPath(pid, "exe")); err == nil && filepath.Base(name) == program {
				found = append(found, pid)
			}
		}
	}
	return found
}
