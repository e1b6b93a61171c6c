package hostile

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"k8s.io/client-go/rest"

	"egress-agent/scripts/e2e/cluster"
	"egress-agent/scripts/e2e/pod"
)

// Folders, from this one.
const (
	root     = "../../.."
	programs = root + "/bin/control-plane"
	base     = root + "/deploy/base/"
)

// What the tests of the package share, set by TestMain.
var (
	dir        string // for files of this run
	rangesFile string
	agentPod   pod.Container
	webhookPod pod.Container
)

func TestMain(m *testing.M) {
	status, err := runTests(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "hostile:", err)
		status = 1
	}
	os.Exit(status)
}

func runTests(m *testing.M) (status int, err error) {
	for _, program := range []string{"egress-agent", "egress-webhook"} {
		if _, err := os.Stat(binary(program)); err != nil {
			return 0, fmt.Errorf("%w: run 'make e2e', which builds it", err)
		}
	}
	if dir, err = os.MkdirTemp("", "egress-hostile-"); err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if agentPod, err = pod.Read(base + "agent.yaml"); err != nil {
		return 0, err
	}
	if webhookPod, err = pod.Read(base + "webhook.yaml"); err != nil {
		return 0, err
	}
	if rangesFile, err = Ranges(dir); err != nil {
		return 0, err
	}
	defer func() {
		if plane.cluster != nil {
			if stopErr := plane.cluster.Stop(); err == nil {
				err = stopErr
			}
		}
	}()
	rest.SetDefaultWarningHandler(rest.NoWarnings{}) // a hostile policy has thousands
	defer table.print()
	return m.Run(), nil
}

// binary is the file of a program: in bin, or where E2E_BIN names a folder.
func binary(program string) string {
	if dir := os.Getenv("E2E_BIN"); dir != "" {
		if !filepath.IsAbs(dir) {
			dir = filepath.Join("..", dir) // it is written from the folder of the module
		}
		return filepath.Join(dir, program)
	}
	return filepath.Join(root, "bin", program)
}

// all reports whether make test-all runs the whole suite.
func all() bool { return os.Getenv("E2E_ALL") != "" }

// plane is the control plane, which only some tests need and which therefore starts with the first of them.
var plane struct {
	once    sync.Once
	cluster *cluster.Cluster
	err     error
}

// control returns the control plane, with the namespace and the rights of the agent.
func control(t testing.TB) *cluster.Cluster {
	t.Helper()
	plane.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		absolute, err := filepath.Abs(programs)
		if err != nil {
			plane.err = err
			return
		}
		if plane.cluster, plane.err = cluster.Start(ctx, absolute, dir); plane.err != nil {
			return
		}
		plane.err = kubectl(base + "agent-rbac.yaml")
	})
	if plane.err != nil {
		t.Fatal("no control plane; make control-plane builds it: ", plane.err)
	}
	return plane.cluster
}

// kubectl applies a file.
func kubectl(file string) error {
	command := exec.Command(filepath.Join(plane.cluster.Programs, "kubectl"), "--kubeconfig", plane.cluster.Kubeconfig, "apply", "-f", file)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl apply -f %s: %w: %s", file, err, output)
	}
	return nil
}

// table is what the run has measured.
var table results

type results struct {
	mu   sync.Mutex
	rows [][4]string
}

func (r *results) add(attack, result, peak, ordinary string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows = append(r.rows, [4]string{attack, result, peak, ordinary})
}

// print writes the table. go test shows it with -v, and always from within this folder.
func (r *results) print() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	defer w.Flush()
	slices.SortStableFunc(r.rows, func(a, b [4]string) int { // tests run side by side
		return cmp.Compare(a[0][:strings.Index(a[0], ":")], b[0][:strings.Index(b[0], ":")])
	})
	for i, row := range r.rows {
		if i == 0 {
			fmt.Fprintln(w, "ATTACK\tRESULT\tPEAK\tORDINARY TENANT")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", row[0], row[1], row[2], row[3])
	}
}

func megabytes(bytes int64) string { return fmt.Sprintf("%d MiB", bytes>>20) }
