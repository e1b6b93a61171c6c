package hostile

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"

	"k8s.io/client-go/rest"

	"egress-agent/scripts/e2e/harness"
	"egress-agent/scripts/e2e/pod"
)

// What the tests of the package share. TestMain sets it.
var (
	dir        string // for files of this run
	rangesFile string
	agentPod   pod.Container
	webhookPod pod.Container
)

func TestMain(m *testing.M) { harness.Exit(runTests(m)) }

func runTests(m *testing.M) (status int, err error) {
	if dir, err = os.MkdirTemp("", "egress-hostile-"); err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if agentPod, err = pod.Read(manifest("agent.yaml")); err != nil {
		return 0, err
	}
	if webhookPod, err = pod.Read(manifest("webhook.yaml")); err != nil {
		return 0, err
	}
	if rangesFile, err = Ranges(dir); err != nil {
		return 0, err
	}
	rest.SetDefaultWarningHandler(rest.NoWarnings{}) // a hostile policy has thousands
	defer table.print()
	return harness.Run(m)
}

// manifest returns the path of a file in deploy/base.
func manifest(name string) string { return filepath.Join(harness.Root, "deploy/base", name) }

// table holds what the run has measured.
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

// print writes the table. go test shows it with -v, or if it runs in this folder.
func (r *results) print() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	defer w.Flush()
	slices.SortStableFunc(r.rows, func(a, b [4]string) int { // tests run in parallel
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
