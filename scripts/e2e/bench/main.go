// Command bench measures egress-agent, as built, against a real control plane, each figure as a ratio to a
// floor that is measured in the same run.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"text/tabwriter"
	"time"

	"egress-agent/scripts/e2e/cluster"
)

// size is how much is measured.
type size struct {
	namespaces, policies int // of the first convergence
	many                 int // policies of the restart, of the heap, and half as many as of the last rows
	times                int // of each convergence and restart
	latencies            int
	idle                 time.Duration
}

var sizes = map[string]size{
	"small": {namespaces: 200, policies: 1000, many: 2000, times: 5, latencies: 100, idle: 10 * time.Second},
	"full":  {namespaces: 1000, policies: 5000, many: 10000, times: 7, latencies: 300, idle: time.Minute},
}

// row is a line of the table. An empty limit is a figure to know.
type row struct{ what, figure, floor, ratio, limit string }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// listCommand makes of this program, with a kubeconfig, the bare client that lists once.
const listCommand = "list"

func run(ctx context.Context) error {
	if len(os.Args) == 3 && os.Args[1] == listCommand {
		client, err := cluster.Bare(os.Args[2])
		if err != nil {
			return err
		}
		return list(ctx, client)
	}
	programs := flag.String("programs", "bin/control-plane", "`folder` with the control plane's programs")
	agent := flag.String("agent", "bin/egress-agent", "the agent's `file`")
	rangesFile := flag.String("ranges", "", "AWS's ip-ranges.json, a `file`")
	name := flag.String("size", "small", "how much: small or full")
	flag.Parse()
	s, ok := sizes[*name]
	if !ok || *rangesFile == "" {
		return fmt.Errorf("give --ranges FILE, and --size small or full")
	}
	dir, err := os.MkdirTemp("", "egress-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	absolute, err := filepath.Abs(*programs)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "starting the control plane")
	control, err := cluster.Start(ctx, absolute, dir)
	if err != nil {
		return err
	}
	defer control.Stop()
	b, err := newBench(ctx, control, *agent, *rangesFile, s)
	if err != nil {
		return err
	}
	steps := []struct {
		progress string
		do       func(context.Context) error
	}{
		{"first convergence", b.converge},
		{"latency of one policy", b.latency},
		{"failover", b.failover},
		{fmt.Sprintf("restart with %d policies", s.many), b.restart},
		{fmt.Sprintf("restart with %d policies", 2*s.many), b.scale},
	}
	for _, step := range steps {
		fmt.Fprintln(os.Stderr, "measuring:", step.progress)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.progress, err)
		}
	}
	fmt.Printf("%s, %d cores, %s\n\n", runtime.GOARCH, runtime.NumCPU(), runtime.Version())
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	limits := "AT MOST"
	if *name != "full" {
		limits = "AT MOST, WITH --size full" // where a start is a smaller part of each
	}
	fmt.Fprintln(w, "WHAT\tFIGURE\tFLOOR\tRATIO\t"+limits)
	for _, r := range b.rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.what, r.figure, r.floor, r.ratio, r.limit)
	}
	return w.Flush()
}
