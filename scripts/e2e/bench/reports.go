package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"

	"egress-agent/scripts/e2e/cluster"
	"egress-agent/scripts/e2e/measure"
)

// reporting is the size that measures the Reports of --reports.
const reporting = "reports"

var reportResource = schema.GroupVersionResource{Group: "openreports.io", Version: "v1alpha1", Resource: "reports"}

// reports measures the first Report of each namespace, beside a bare client that lists what the agent lists and creates
// the same Reports, and then an idle agent.
func (b *bench) reports(ctx context.Context) error {
	n := b.size.namespaces
	client, err := b.reportClient(ctx)
	if err != nil {
		return err
	}
	if err := b.createPolicies(ctx, 0, n); err != nil {
		return err
	}
	p, err := b.start()
	if err != nil {
		return err
	}
	if err := errors.Join(b.awaitSynced(ctx, p, n), b.awaitNoWrites(ctx), p.Stop()); err != nil {
		return err
	}
	var figures, floors []time.Duration
	for round := range b.size.times {
		fmt.Fprintln(os.Stderr, "measuring: round", round+1, "of", b.size.times)
		figure, err := b.timeToReport(ctx, client, func() (err error) { p, err = b.start("--reports"); return err })
		if err != nil {
			return err
		}
		if round == b.size.times-1 {
			if err := b.idleReports(ctx, p, n); err != nil {
				return err
			}
		}
		if err := p.Stop(); err != nil {
			return err
		}
		made, err := client.Resource(reportResource).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		if err := b.deleteReports(ctx, client); err != nil {
			return err
		}
		floor, err := b.timeToReport(ctx, client, func() error { return b.createReports(ctx, client, made.Items) })
		if err != nil {
			return err
		}
		if err := b.deleteReports(ctx, client); err != nil {
			return err
		}
		figures, floors = append(figures, figure), append(floors, floor)
	}
	b.add(fmt.Sprintf("first Reports of %d namespaces", n), measure.Median(figures), measure.Median(floors), 1.2)
	return nil
}

// reportClient creates the CustomResourceDefinition, grants the agent its rights, and returns a client with the agent's
// account.
func (b *bench) reportClient(ctx context.Context) (dynamic.Interface, error) {
	list := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/openreports/reports-api")
	list.Dir = "scripts/e2e"
	module, err := list.Output()
	if err != nil {
		return nil, err
	}
	definition := filepath.Join(strings.TrimSpace(string(module)), "config", "crd", "openreports.io_reports.yaml")
	for _, args := range [][]string{
		{"apply", "-f", definition, "-f", "deploy/components/reports/rbac.yaml"},
		{"wait", "--for=condition=Established", "crd/reports.openreports.io"},
	} {
		command := exec.CommandContext(ctx, filepath.Join(b.control.Programs, "kubectl"), append([]string{"--kubeconfig", b.control.Kubeconfig}, args...)...)
		if output, err := command.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%w: %s", err, output)
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", b.kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS, config.UserAgent, config.DisableCompression = -1, "bare", true
	return dynamic.NewForConfig(config)
}

// timeToReport calls start, and returns the time until each namespace has a Report. It counts instead of watching: an API
// server ends the watch of a client that reads JSON slower than the Reports arrive.
func (b *bench) timeToReport(ctx context.Context, client dynamic.Interface, start func() error) (time.Duration, error) {
	count := func() (int, error) {
		list, err := client.Resource(reportResource).List(ctx, metav1.ListOptions{Limit: 1})
		if err != nil {
			return 0, err
		}
		if rest := list.GetRemainingItemCount(); rest != nil {
			return len(list.Items) + int(*rest), nil
		}
		return len(list.Items), nil
	}
	if left, err := count(); err != nil || left > 0 {
		return 0, errors.Join(err, fmt.Errorf("%d Reports are left", left))
	}
	started := time.Now()
	if err := start(); err != nil {
		return 0, err
	}
	const interval, timeout = 20 * time.Millisecond, 5 * time.Minute
	for time.Since(started) < timeout {
		made, err := count()
		if err != nil || made == b.size.namespaces {
			return time.Since(started), err
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(interval):
		}
	}
	return 0, errors.New("a namespace has no Report")
}

// createReports is the bare client.
func (b *bench) createReports(ctx context.Context, client dynamic.Interface, made []unstructured.Unstructured) error {
	if err := list(ctx, b.bare); err != nil {
		return err
	}
	return cluster.Each(len(made), func(i int) error {
		report := made[i].DeepCopy()
		report.SetResourceVersion("")
		report.SetUID("")
		report.SetManagedFields(nil)
		_, err := client.Resource(reportResource).Namespace(report.GetNamespace()).Create(ctx, report, metav1.CreateOptions{})
		return err
	})
}

func (b *bench) deleteReports(ctx context.Context, client dynamic.Interface) error {
	return cluster.Each(b.size.namespaces, func(i int) error {
		return client.Resource(reportResource).Namespace(b.namespace(i)).Delete(ctx, "egress-agent", metav1.DeleteOptions{})
	})
}

// idleReports adds the row of an agent with Reports that has nothing to do, and requires that it writes nothing.
func (b *bench) idleReports(ctx context.Context, p *measure.Agent, n int) error {
	if err := b.awaitNoWrites(ctx); err != nil {
		return err
	}
	mark, err := b.control.Mark()
	if err != nil {
		return err
	}
	if err := b.idle(ctx, p, n, true); err != nil {
		return err
	}
	writes, err := b.control.Writes(mark, "egress-agent")
	if err == nil && len(writes) > 0 {
		err = fmt.Errorf("an idle agent writes: %s", writes[0])
	}
	return err
}
