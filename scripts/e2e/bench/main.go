// Command bench measures the built egress-agent on a real control plane. In the same run it measures floors, the times
// of a client that only does the necessary requests. It divides each figure by its floor.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"egress-agent/scripts/e2e/cluster"
	"egress-agent/scripts/e2e/measure"
)

// size is how much a run measures.
type size struct {
	namespaces, policies int // their numbers in the first convergence
	many                 int // number of policies for restart and heap; the last rows have twice as many
	times                int // repetitions of each convergence, latency and restart
	latencies            int // number of policies of each latency measurement
	idle                 time.Duration
}

var sizes = map[string]size{
	"small": {namespaces: 200, policies: 1000, many: 2000, times: 5, latencies: 100, idle: 10 * time.Second},
	"full":  {namespaces: 1000, policies: 5000, many: 10000, times: 7, latencies: 300, idle: time.Minute},
	growth:  {namespaces: 1000},

	expiring:   {namespaces: 5000, policies: 5000, idle: time.Minute},
	reporting:  {namespaces: 5000, times: 3, idle: 30 * time.Second},
	mirroring:  {namespaces: 1000, policies: 5000, times: 5, idle: time.Minute},
	governance: {namespaces: 10000, times: 3, idle: 30 * time.Second},
}

// growth is the size that measures the agent with the numbers of policies in --counts.
const growth = "growth"

func main() { measure.Main("bench", run) }

// listCommand is the first argument that makes this program a bare client. The second argument is then a kubeconfig.
// The program lists once with this kubeconfig, and ends.
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
	name := flag.String("size", "small", "how much to measure: small, full, growth, platform, expiry, reports or mirror")
	countList := flag.String("counts", "1000,5000,10000,20000,50000", "the `numbers` of policies of --size growth, in ascending order")
	flag.Parse()
	s, ok := sizes[*name]
	if !ok || *rangesFile == "" {
		return fmt.Errorf("give --ranges FILE, and --size small, full, growth, platform, expiry, reports or mirror")
	}
	counts, err := measure.ParseCounts(*countList)
	if err != nil {
		return fmt.Errorf("--counts: %w", err)
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
	if *name == growth {
		header, rows, err := b.growth(ctx, counts)
		return errors.Join(err, measure.PrintTable("", header, rows))
	}
	header := []string{"WHAT", "FIGURE", "FLOOR", "RATIO", "AT MOST"}
	if measureAll := map[string]func(context.Context) error{governance: b.platform, expiring: b.expiry, reporting: b.reports, mirroring: b.mirror}[*name]; measureAll != nil {
		err := measureAll(ctx)
		return errors.Join(err, measure.PrintTable("", header, b.rows))
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
	if *name != "full" {
		header[4] = "AT MOST, WITH --size full" // with more policies, the start of the process is a smaller part of each figure
	}
	return measure.PrintTable("", header, b.rows)
}
