// Command benchhostile measures what the worst policies cost the two programs, as built and within the limits of their
// Pods: on the webhook each beside the same bytes that it only reads, on the agent an ordinary tenant's change beside a
// hostile namespace and without one.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"text/tabwriter"

	"egress-agent/scripts/e2e/hostile"
	"egress-agent/scripts/e2e/pod"
)

// row is a line of the table.
type row struct{ what, figure, floor, limit string }

// bench is what the measurements share.
type bench struct {
	dir      string // for files of this run
	programs string // the folder of the two
	control  string // the folder of the control plane's programs
	base     string // the folder of the manifests
	ranges   string
	rows     []row
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "benchhostile:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	b := &bench{}
	flag.StringVar(&b.programs, "bin", "bin", "`folder` with egress-agent and egress-webhook")
	flag.StringVar(&b.control, "programs", "bin/control-plane", "`folder` with the control plane's programs")
	flag.StringVar(&b.base, "base", "deploy/base", "`folder` with the manifests")
	flag.Parse()
	var err error
	if b.dir, err = os.MkdirTemp("", "egress-benchhostile-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if b.ranges, err = hostile.Ranges(b.dir); err != nil {
		return err
	}
	if output, err := exec.CommandContext(ctx, "scripts/generate-certs.sh", b.dir).CombinedOutput(); err != nil {
		return fmt.Errorf("generate-certs.sh: %w: %s", err, output)
	}
	if err := b.webhook(ctx); err != nil {
		return err
	}
	if err := b.agent(ctx); err != nil {
		return err
	}
	fmt.Printf("%s, %d cores, %s, AWS's document of %s\n\n", runtime.GOARCH, runtime.NumCPU(), runtime.Version(), filepath.Dir(b.ranges))
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WHAT\tFIGURE\tFLOOR\tAT MOST")
	for _, r := range b.rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.what, r.figure, r.floor, r.limit)
	}
	return w.Flush()
}

func (b *bench) container(program string) (pod.Container, error) {
	return pod.Read(filepath.Join(b.base, program+".yaml"))
}

func megabytes(bytes int64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/1e6) }
