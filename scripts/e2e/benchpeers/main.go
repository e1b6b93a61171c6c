// Command benchpeers measures the built egress-agent and egress-webhook beside what people would use instead: a
// ValidatingAdmissionPolicy and Kyverno. In the same run and on the same control plane it measures floors: ConfigMaps
// that nobody reads, a bare client, and a bare webhook.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"k8s.io/client-go/kubernetes"

	"egress-agent/scripts/e2e/bare"
	"egress-agent/scripts/e2e/cluster"
	"egress-agent/scripts/e2e/measure"
)

// The first argument webhookCommand or watchCommand makes this program a floor. The further arguments are those of
// bare.ServeWebhook and bare.Watch.
const (
	webhookCommand = "bare-webhook"
	watchCommand   = "bare-watch"
)

// bench has the state that the measurements share.
type bench struct {
	control    *cluster.Cluster
	client     *kubernetes.Clientset // has the administrator's rights
	self       string                // the file of this program
	programs   string                // the folder of egress-agent and egress-webhook
	kubeconfig string                // the file of the agent's kubeconfig
	ranges     string                // the file of AWS's document
	kyverno    *kyverno              // nil without Kyverno
}

func main() { measure.Main("benchpeers", run) }

func run(ctx context.Context) error {
	if len(os.Args) == 4 && os.Args[1] == webhookCommand {
		return bare.ServeWebhook(os.Args[2], os.Args[3])
	}
	if len(os.Args) == 3 && os.Args[1] == watchCommand {
		return bare.Watch(ctx, os.Args[2])
	}
	controlPlane := flag.String("control-plane", "bin/control-plane", "`folder` with the control plane's programs")
	programs := flag.String("programs", "bin", "`folder` with egress-agent and egress-webhook")
	rangesFile := flag.String("ranges", "", "AWS's ip-ranges.json, a `file`")
	kyvernoDir := flag.String("kyverno", "", "`folder` with Kyverno's programs kyverno and background-controller, its crds/ and the file version; without it, the rows of Kyverno are left out")
	countList := flag.String("counts", "500,2000,10000", "the `numbers` of ConfigMaps, in ascending order; Kyverno gets at most "+strconv.Itoa(maxKyverno))
	creates := flag.Int("creates", 1000, "`number` of ConfigMaps in each round of the admission measurements; 0 leaves these out")
	flag.Parse()
	counts, err := measure.ParseCounts(*countList)
	if err != nil {
		return fmt.Errorf("--counts: %w", err)
	}
	if *rangesFile == "" {
		return fmt.Errorf("give --ranges FILE")
	}
	dir, err := os.MkdirTemp("", "egress-benchpeers-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{programs: *programs, ranges: *rangesFile}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if *kyvernoDir != "" {
		if b.kyverno, err = findKyverno(*kyvernoDir); err != nil {
			return err
		}
	}
	absolute, err := filepath.Abs(*controlPlane)
	if err != nil {
		return err
	}
	progress("starting the control plane")
	if b.control, err = cluster.Start(ctx, absolute, dir); err != nil {
		return err
	}
	defer b.control.Stop()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	return b.measure(ctx, counts, *creates)
}

// prepare creates what all measurements need: the certificates of the webhooks, the agent's account and the namespaces.
func (b *bench) prepare(ctx context.Context) (err error) {
	if output, err := exec.CommandContext(ctx, "scripts/generate-certs.sh", b.control.Dir).CombinedOutput(); err != nil {
		return fmt.Errorf("generate-certs.sh: %w: %s", err, output)
	}
	if b.client, err = cluster.Bare(b.control.Kubeconfig); err != nil {
		return err
	}
	if _, err := b.kubectl(ctx, "", "apply", "-f", "deploy/base/agent-rbac.yaml"); err != nil {
		return err
	}
	if b.kubeconfig, err = b.control.ServiceAccountKubeconfig(ctx, "egress-system", "egress-agent"); err != nil {
		return err
	}
	return b.createNamespaces(ctx)
}

// measure prints two tables: one of the ConfigMaps, unless creates is 0, and one of the NetworkPolicies that come of
// them. If the measurements of Kyverno fail, it prints the other rows.
func (b *bench) measure(ctx context.Context, counts []int, creates int) (err error) {
	var admissions, applies [][]string
	if creates > 0 {
		if admissions, err = b.measureAdmissions(ctx, creates); err != nil {
			return err
		}
	}
	if applies, err = b.measureApplies(ctx, counts); err != nil {
		return err
	}
	var kyvernoErr error
	if b.kyverno != nil {
		var rows withKyverno
		rows, kyvernoErr = b.measureKyverno(ctx, counts, creates)
		admissions, applies = append(admissions, rows.admissions...), append(applies, rows.applies...)
	}
	version, err := b.client.Discovery().ServerVersion()
	if err != nil {
		return err
	}
	details := ", Kubernetes " + version.GitVersion + ", " + b.kyverno.String()
	if creates > 0 {
		header := []string{fmt.Sprintf("%d ConfigMaps by %d clients, median of %d rounds", creates, clients, rounds),
			"TIME", "P50", "P99", "FAILED", "CPU", "PEAK", "WRITES"}
		if err := measure.PrintTable(details, header, admissions); err != nil {
			return err
		}
		fmt.Println()
	}
	header := []string{fmt.Sprintf("ConfigMaps by %d clients, to the last NetworkPolicy", clients),
		"TIME", "P50", "P99", "LOST", "WRITES", "PEAK", "CPU", "OF THE API SERVER", "OF ETCD", "OF THE CLIENTS"}
	if err := measure.PrintTable(details, header, applies); err != nil {
		return err
	}
	if kyvernoErr != nil {
		return fmt.Errorf("the rows of Kyverno are missing: %w", kyvernoErr)
	}
	return nil
}

// kubectl runs kubectl as administrator, and returns its output. stdin is its input.
func (b *bench) kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, filepath.Join(b.control.Programs, "kubectl"), append([]string{"--kubeconfig", b.control.Kubeconfig}, args...)...)
	command.Stdin = strings.NewReader(stdin)
	output, err := command.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, output)
	}
	return string(output), err
}

func progress(what ...any) { fmt.Fprintln(os.Stderr, what...) }
