// Command benchwebhook measures egress-webhook, as built, each time as a ratio to a floor that is measured in
// the same run: the same server and TLS around a handler that decodes the review and answers allowed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"text/tabwriter"
)

// row is a line of the table.
type row struct{ what, figure, floor, ratio, limit string }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "benchwebhook:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	webhook := flag.String("webhook", "bin/egress-webhook", "the webhook's `file`")
	rangesFile := flag.String("ranges", "", "AWS's ip-ranges.json, a `file`")
	floor := flag.String("floor", "", "serve the floor at an `address`, and nothing else")
	certs := flag.String("certs", "", "the `folder` of the floor's certificate")
	flag.Parse()
	if *floor != "" {
		return serveFloor(*floor, *certs)
	}
	if *rangesFile == "" {
		return errors.New("give --ranges FILE")
	}
	dir, err := os.MkdirTemp("", "egress-benchwebhook-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if output, err := exec.CommandContext(ctx, "scripts/generate-certs.sh", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, output)
	}
	b := &bench{dir: dir, webhook: *webhook, ranges: *rangesFile}
	if err := b.measure(ctx); err != nil {
		return err
	}
	fmt.Printf("%s, %d cores, %s, AWS's document of %s\n\n", runtime.GOARCH, runtime.NumCPU(), runtime.Version(), filepath.Base(*rangesFile))
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WHAT\tFIGURE\tFLOOR\tRATIO\tAT MOST")
	for _, r := range b.rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.what, r.figure, r.floor, r.ratio, r.limit)
	}
	return w.Flush()
}
