// Package measure measures processes and prints figures, for the benchmark programs and the tests.
package measure

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Main calls run, and cancels its context after an interrupt. If run returns an error, Main prints the program's name
// and the error, and exits with status 1.
func Main(program string, run func(ctx context.Context) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", program, err)
		os.Exit(1)
	}
}

// PrintTable prints a description of this machine and a table of rows to standard output. details is appended to the
// description.
func PrintTable(details string, header []string, rows [][]string) error {
	fmt.Printf("%s, %d cores, %s%s\n\n", runtime.GOARCH, runtime.NumCPU(), runtime.Version(), details)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{header}, rows...) {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// Median returns the median of durations, which must not be empty. It does not change their order.
func Median(durations []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(durations))
	return sorted[len(sorted)/2]
}

// FreeAddress returns an address on 127.0.0.1 with a port that is free now.
func FreeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

// CPU returns the CPU time that a process has used on all cores, in steps of 10 ms.
func CPU(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(data))
	user, userErr := strconv.Atoi(fields[13])
	system, systemErr := strconv.Atoi(fields[14])
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(userErr, systemErr)
}

// Memory returns a memory size of a process in bytes. field is the name of the size in /proc/PID/status: VmRSS is the
// resident size, and VmHWM its peak.
func Memory(pid int, field string) (int64, error) {
	file := fmt.Sprintf("/proc/%d/status", pid)
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	_, rest, found := strings.Cut(string(data), field+":")
	if !found {
		return 0, fmt.Errorf("%s has no %s", file, field)
	}
	kilobytes, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	return kilobytes * 1024, err
}

// ResetPeak sets VmHWM of a process to its current resident size.
func ResetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0) // proc(5): 5 resets VmHWM
}

// ParseCounts parses positive numbers in ascending order, separated by commas.
func ParseCounts(list string) ([]int, error) {
	var counts []int
	for text := range strings.SplitSeq(list, ",") {
		count, err := strconv.Atoi(text)
		if err != nil || count < 1 {
			return nil, fmt.Errorf("%q in %q is not a positive number", text, list)
		}
		counts = append(counts, count)
	}
	if !slices.IsSorted(counts) {
		return nil, fmt.Errorf("the numbers in %q are not in ascending order", list)
	}
	return counts, nil
}
