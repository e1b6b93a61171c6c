// Package mirror tests egress-agent mirror between two real control planes: the hub, and the one that the harness starts,
// which is this cluster.
package mirror

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"egress-agent/scripts/e2e/cluster"
	"egress-agent/scripts/e2e/harness"
)

// hub is the second control plane.
var hub struct {
	once    sync.Once
	cluster *cluster.Cluster
	dir     string
	err     error
}

func TestMain(m *testing.M) {
	status, err := harness.Run(m)
	if hub.cluster != nil {
		err = errors.Join(err, hub.cluster.Stop())
	}
	if hub.dir != "" {
		err = errors.Join(err, os.RemoveAll(hub.dir))
	}
	harness.Exit(status, err)
}

// startPlanes starts both control planes with the first test, and applies the manifests of deploy/components/mirror.
func startPlanes(t testing.TB) {
	t.Helper()
	hub.once.Do(func() {
		started := make(chan error)
		go func() { started <- startHub() }()
		harness.Control(t)
		if hub.err = <-started; hub.err == nil {
			harness.Kubectl(t, "", "apply", "-f", manifests+"rbac.yaml", "-f", manifests+"admission-policy.yaml")
			hub.err = hubKubectl("apply", "-f", manifests+"hub-rbac.yaml")
		}
	})
	require.NoError(t, hub.err, "start the hub")
}

var manifests = harness.Root + "/deploy/components/mirror/"

func startHub() (err error) {
	if hub.dir, err = os.MkdirTemp("", "egress-hub-"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	hub.cluster, err = cluster.Start(ctx, harness.ControlPlaneDir, hub.dir)
	return err
}

// hubKubectl runs the real kubectl on the hub.
func hubKubectl(args ...string) error {
	command := exec.Command(filepath.Join(harness.ControlPlaneDir, "kubectl"), append([]string{"--kubeconfig", hub.cluster.Kubeconfig}, args...)...)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", command, err, output)
	}
	return nil
}
