// Command benchwebhook measures the built egress-webhook. In the same run it measures a floor, and divides each figure
// by its floor. The floor is a program with the same HTTP server and TLS, whose handler only decodes a review and
// allows it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"egress-agent/scripts/e2e/bare"
	"egress-agent/scripts/e2e/measure"
)

func main() { measure.Main("benchwebhook", run) }

func run(ctx context.Context) error {
	webhook := flag.String("webhook", "bin/egress-webhook", "the webhook's `file`")
	rangesFile := flag.String("ranges", "", "AWS's ip-ranges.json, a `file`")
	floor := flag.String("floor", "", "only serve the floor at this `address`")
	certs := flag.String("certs", "", "the `folder` of the floor's certificate")
	flag.Parse()
	if *floor != "" {
		return bare.ServeWebhook(*floor, *certs)
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
	return measure.PrintTable(", AWS's document of "+filepath.Base(*rangesFile),
		[]string{"WHAT", "FIGURE", "FLOOR", "RATIO", "AT MOST"}, b.rows)
}
