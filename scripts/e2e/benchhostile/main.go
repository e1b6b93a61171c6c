// Command benchhostile measures the cost of the worst policies for the two built programs, within the limits of their
// Pods. The floor of the webhook is a review with the same bytes that is no policy, so that the webhook only reads it.
// The floor of the agent is a change of an ordinary tenant without a hostile namespace.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"egress-agent/scripts/e2e/hostile"
	"egress-agent/scripts/e2e/measure"
	"egress-agent/scripts/e2e/pod"
)

// bench has the state that the measurements share.
type bench struct {
	dir      string // for files of this run
	programs string // folder of egress-agent and egress-webhook
	control  string // folder of the control plane's programs
	base     string // folder of the manifests
	ranges   string
	rows     [][]string // of the table: name, figure, floor, limit
}

func main() { measure.Main("benchhostile", run) }

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
	return measure.PrintTable(", AWS's document of "+filepath.Dir(b.ranges), []string{"WHAT", "FIGURE", "FLOOR", "AT MOST"}, b.rows)
}

func (b *bench) container(program string) (pod.Container, error) {
	return pod.Read(filepath.Join(b.base, program+".yaml"))
}

func megabytes(bytes int64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/1e6) }
