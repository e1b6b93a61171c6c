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

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"egress-agent/scripts/e2e/cluster"
	"egress-agent/scripts/e2e/measure"
)

// mirroring is the size that measures egress-agent mirror.
const mirroring = "mirror"

const (
	mirrorName  = "egress-mirror" // its user agent and its ServiceAccount
	originLabel = "egress-controller/mirrored-from"
	managed     = "egress-controller=managed"
)

// mirrorBench has the hub, and clients with the mirror's accounts.
type mirrorBench struct {
	*bench
	hub              *cluster.Cluster
	hubFile, file    string // the kubeconfigs of both accounts
	bareHub, bareOwn *kubernetes.Clientset
}

// mirror measures copies of all policies of a hub, beside a bare client that lists the hub and creates each copy, and
// then an idle mirror.
func (b *bench) mirror(ctx context.Context) error {
	m, err := b.startHub(ctx)
	if m != nil && m.hub != nil {
		defer m.hub.Stop()
	}
	if err != nil {
		return err
	}
	n := b.size.policies
	var figures, floors []time.Duration
	var p *measure.Process
	for round := range b.size.times {
		fmt.Fprintln(os.Stderr, "measuring: round", round+1, "of", b.size.times)
		floor, err := m.timeToCopy(ctx, func() error { return m.copyAll(ctx) })
		if err != nil {
			return fmt.Errorf("bare client: %w", err)
		}
		if err := m.deleteCopies(ctx); err != nil {
			return err
		}
		figure, err := m.timeToCopy(ctx, func() (err error) { p, err = m.startMirror(); return err })
		if err != nil {
			return fmt.Errorf("mirror: %w", err)
		}
		figures, floors = append(figures, figure), append(floors, floor)
		if round == b.size.times-1 {
			break
		}
		if err := p.Stop(); err != nil {
			return err
		}
		if err := m.deleteCopies(ctx); err != nil {
			return err
		}
	}
	b.add(fmt.Sprintf("copies of %d policies in %d namespaces", n, b.size.namespaces), measure.Median(figures), measure.Median(floors), 1.2)
	return errors.Join(m.measureIdle(ctx, p), p.Stop())
}

// startHub starts the hub, with the same namespaces and all policies.
func (b *bench) startHub(ctx context.Context) (*mirrorBench, error) {
	m := &mirrorBench{bench: b}
	dir := filepath.Join(b.control.Dir, "hub")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if m.hub, err = cluster.Start(ctx, b.control.Programs, dir); err != nil {
		return m, err
	}
	const component = "deploy/components/mirror/"
	for kubeconfig, files := range map[string][]string{
		b.control.Kubeconfig: {"-f", component + "rbac.yaml", "-f", component + "admission-policy.yaml"},
		m.hub.Kubeconfig:     {"-f", component + "hub-rbac.yaml"},
	} {
		command := exec.CommandContext(ctx, filepath.Join(b.control.Programs, "kubectl"), append([]string{"--kubeconfig", kubeconfig, "apply"}, files...)...)
		if output, err := command.CombinedOutput(); err != nil {
			return m, fmt.Errorf("%w: %s", err, output)
		}
	}
	if m.hubFile, err = m.hub.ServiceAccountKubeconfig(ctx, mirrorName, mirrorName); err != nil {
		return m, err
	}
	if m.file, err = b.control.ServiceAccountKubeconfig(ctx, "egress-system", mirrorName); err != nil {
		return m, err
	}
	if m.bareHub, err = cluster.Bare(m.hubFile); err != nil {
		return m, err
	}
	if m.bareOwn, err = cluster.Bare(m.file); err != nil {
		return m, err
	}
	err = cluster.Each(b.size.namespaces, func(i int) error {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: b.namespace(i)}}
		_, err := m.hub.Admin.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return m, err
	}
	return m, cluster.Each(b.size.policies, func(i int) error {
		_, err := m.hub.Admin.CoreV1().ConfigMaps(b.namespace(i)).Create(ctx, configMap(fmt.Sprintf("policy-%d", i), i), metav1.CreateOptions{})
		return err
	})
}

func (m *mirrorBench) startMirror() (*measure.Process, error) {
	health, err := measure.FreeAddress()
	if err != nil {
		return nil, err
	}
	return measure.Start(m.control.Dir, m.agent, nil, "mirror", "--from-kubeconfig", m.hubFile, "--kubeconfig", m.file,
		"--http-addr", health, "--log-level", "warn")
}

// timeToCopy calls start, and returns the time until a watch has delivered all copies.
func (m *mirrorBench) timeToCopy(ctx context.Context, start func() error) (time.Duration, error) {
	list, err := m.client.CoreV1().ConfigMaps("").List(ctx, metav1.ListOptions{LabelSelector: managed})
	if err != nil {
		return 0, err
	}
	if len(list.Items) > 0 {
		return 0, fmt.Errorf("%d copies are left", len(list.Items))
	}
	watcher, err := m.client.CoreV1().ConfigMaps("").Watch(ctx, metav1.ListOptions{LabelSelector: managed, ResourceVersion: list.ResourceVersion})
	if err != nil {
		return 0, err
	}
	defer watcher.Stop()
	started := time.Now()
	if err := start(); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for count := 0; count < m.size.policies; {
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("%d of %d copies: %w", count, m.size.policies, ctx.Err())
		case event, isOpen := <-watcher.ResultChan():
			if !isOpen {
				return 0, errors.New("the watch ended")
			}
			if event.Type == watch.Added {
				count++
			}
		}
	}
	return time.Since(started), nil
}

// copyAll is the bare client.
func (m *mirrorBench) copyAll(ctx context.Context) error {
	list, err := m.bareHub.CoreV1().ConfigMaps("").List(ctx, metav1.ListOptions{LabelSelector: managed})
	if err != nil {
		return err
	}
	return cluster.Each(len(list.Items), func(i int) error {
		item := &list.Items[i]
		copied := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: item.Name, Labels: map[string]string{"egress-controller": "managed", originLabel: "bare"}},
			Data:       item.Data,
		}
		_, err := m.bareOwn.CoreV1().ConfigMaps(item.Namespace).Create(ctx, copied, metav1.CreateOptions{})
		return err
	})
}

// deleteCopies deletes all copies. No mirror may run meanwhile, because it would restore them.
func (m *mirrorBench) deleteCopies(ctx context.Context) error {
	return cluster.Each(m.size.namespaces, func(i int) error {
		return m.client.CoreV1().ConfigMaps(m.namespace(i)).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: managed})
	})
}

// measureIdle adds the rows of a mirror that has nothing to do, and requires that it writes nothing.
func (m *mirrorBench) measureIdle(ctx context.Context, p *measure.Process) error {
	fmt.Fprintln(os.Stderr, "measuring: idle")
	time.Sleep(5 * time.Second) // until the deletion of what the hub lacks has been checked
	mark, err := m.control.Mark()
	if err != nil {
		return err
	}
	if err := m.idle(ctx, &measure.Agent{Process: p}, m.size.policies, true); err != nil {
		return err
	}
	writes, err := m.control.Writes(mark, mirrorName)
	if err != nil {
		return err
	}
	if len(writes) > 0 {
		return fmt.Errorf("the idle mirror wrote: %s", strings.Join(writes, ", "))
	}
	resident, err := p.Resident()
	if err != nil {
		return err
	}
	peak, err := p.Peak()
	m.rows = append(m.rows, []string{"idle, writes", "0", "", "", "0"},
		[]string{"resident, and the peak", megabytes(float64(resident)) + ", " + megabytes(float64(peak)), "", "", ""})
	return err
}
