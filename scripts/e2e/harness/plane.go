// Package harness supports the packages of end-to-end tests. It starts a control plane for each package, runs the built
// programs and the real kubectl, imitates bad networks, and waits for results.
//
// A package's TestMain calls Main. Its control plane starts with the first test that calls Control.
package harness

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"egress-agent/scripts/e2e/cluster"
)

// AgentName is the name of the agent's ServiceAccount. AgentNamespace is the namespace of the agent.
const (
	AgentName      = "egress-agent"
	AgentNamespace = "egress-system"
)

// Files and folders of the repository, as absolute paths.
var (
	Root            = findRoot()
	BinDir          = filepath.Join(Root, "bin")
	ControlPlaneDir = filepath.Join(BinDir, "control-plane")                      // etcd, kube-apiserver, kubectl …
	RangesFile      = filepath.Join(Root, "testdata", "ranges", "ip-ranges.json") // a small document like AWS's
)

// findRoot returns the folder above the working directory that contains this module at scripts/e2e. It returns "" if
// there is no such folder.
func findRoot() string {
	dir, err := os.Getwd()
	for err == nil {
		if _, err := os.Stat(filepath.Join(dir, "scripts", "e2e", "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			break
		}
		dir = parent
	}
	return ""
}

// plane is the control plane of the package under test.
var plane struct {
	once    sync.Once
	cluster *cluster.Cluster
	dir     string
	err     error
}

// Main runs the tests of a package, stops its control plane if a test started one, and exits.
func Main(m *testing.M) { Exit(Run(m)) }

// Run runs the tests of a package, waits for their webhooks and stops its control plane. It returns the tests' exit
// status.
func Run(m *testing.M) (status int, err error) {
	status = m.Run()
	err = awaitDrained()
	if plane.cluster != nil {
		err = errors.Join(err, plane.cluster.Stop())
	}
	if plane.dir != "" {
		err = errors.Join(err, os.RemoveAll(plane.dir))
	}
	return status, err
}

// Exit ends the process with status. If err is not nil, it prints err and uses status 1.
func Exit(status int, err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		status = 1
	}
	os.Exit(status)
}

// Control returns the control plane that all tests of a package share. It has the agent's namespace, ServiceAccount and
// RBAC rules. A test that removes such an object must restore it. The first call starts the control plane.
func Control(t testing.TB) *cluster.Cluster {
	t.Helper()
	plane.once.Do(func() { plane.err = startPlane() })
	require.NoError(t, plane.err, "start the control plane")
	return plane.cluster
}

func startPlane() error {
	if _, err := os.Stat(filepath.Join(ControlPlaneDir, "kube-apiserver")); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: run 'make control-plane' to build it", err)
	}
	var err error
	if plane.dir, err = os.MkdirTemp("", "egress-e2e-"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if plane.cluster, err = cluster.Start(ctx, ControlPlaneDir, plane.dir); err != nil {
		return err
	}
	command := exec.CommandContext(ctx, filepath.Join(ControlPlaneDir, "kubectl"),
		"--kubeconfig", plane.cluster.Kubeconfig, "apply", "-f", filepath.Join(Root, "deploy/base/agent-rbac.yaml"))
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", command, err, output)
	}
	return nil
}
