package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"egress-agent/scripts/e2e/cluster"
)

// Folders, from this one.
const (
	root     = "../.."
	bin      = root + "/bin"
	programs = bin + "/control-plane"
	ranges   = root + "/testdata/ranges/ip-ranges.json"
)

// control is the one control plane that every test of the package shares. It has the namespace of the agent, its
// service account and its rights: a test that takes one away gives it back.
var control *cluster.Cluster

func TestMain(m *testing.M) {
	status, err := runTests(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		status = 1
	}
	os.Exit(status)
}

func runTests(m *testing.M) (status int, err error) {
	for _, program := range []string{bin + "/egress-agent", bin + "/egress-webhook", programs + "/kube-apiserver"} {
		if _, err := os.Stat(program); err != nil {
			return 0, fmt.Errorf("%w: run 'make e2e', which builds it", err)
		}
	}
	dir, err := os.MkdirTemp("", "egress-e2e-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	absolute, err := filepath.Abs(programs)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if control, err = cluster.Start(ctx, absolute, dir); err != nil {
		return 0, err
	}
	defer func() {
		if stopErr := control.Stop(); err == nil {
			err = stopErr
		}
	}()
	if _, stderr, err := tryKubectl("", "apply", "-f", root+"/deploy/base/agent-rbac.yaml"); err != nil {
		return 0, fmt.Errorf("kubectl apply: %w: %s", err, stderr)
	}
	return m.Run(), nil
}
