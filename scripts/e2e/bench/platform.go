package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"egress-agent/scripts/e2e/cluster"
	"egress-agent/scripts/e2e/measure"
)

// governance is the size that measures a platform document.
const governance = "platform"

// The label of governed namespaces, and the document that governs them. The parameter of the document is a denied port.
const (
	tenantTier = "tenant"
	otherTier  = "other"
	platform   = `{"namespaces": {"matchLabels": {"tier": "tenant"}},
 "allowedDestinations": [{"name": "logs", "cidr": "10.200.0.0/24", "ports": [443]}],
 "guardrails": {"denied": [{"name": "metadata", "cidr": "169.254.169.254/32"}, {"name": "port", "cidr": "0.0.0.0/0", "ports": [%d]}]}}`
	// wide opens ports of which a document may deny one.
	wide = `{"allowedDestinations": [{"name": "web", "cidr": "0.0.0.0/0", "ports": [{"port": 8000, "endPort": 8100}]}]}`
)

// labelChanges is how many label changes platform measures.
const labelChanges = 300

// platform measures a document that governs half of the namespaces: the first convergence, a label change, a changed
// guardrail that cuts half of the policies, and an idle agent. Each has a bare client beside it.
func (b *bench) platform(ctx context.Context) error {
	governed := b.size.namespaces / 2
	if err := b.labelNamespaces(ctx, governed); err != nil {
		return err
	}
	if err := b.storeDocument(ctx, 25); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "measuring: first convergence")
	if err := b.measureBases(ctx, governed); err != nil {
		return fmt.Errorf("first convergence: %w", err)
	}
	p, err := b.start()
	if err != nil {
		return err
	}
	if err := b.awaitSynced(ctx, p, governed); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "measuring: label changes")
	if err := b.measureLabels(ctx, governed); err != nil {
		return fmt.Errorf("label changes: %w", err)
	}
	fmt.Fprintln(os.Stderr, "measuring: a changed guardrail")
	if err := b.measureGuardrail(ctx, governed); err != nil {
		return fmt.Errorf("a changed guardrail: %w", err)
	}
	fmt.Fprintln(os.Stderr, "measuring: idle")
	if err := b.awaitNoWrites(ctx); err != nil {
		return err
	}
	mark, err := b.control.Mark()
	if err != nil {
		return err
	}
	if err := b.idle(ctx, p, governed, true); err != nil {
		return err
	}
	writes, err := b.control.Writes(mark, "egress-agent")
	if err != nil {
		return err
	}
	if len(writes) > 0 {
		return fmt.Errorf("an idle agent sent %d writes, the first: %s", len(writes), writes[0])
	}
	heap, err := b.liveHeap(ctx, p)
	if err != nil {
		return err
	}
	resident, err := p.Resident()
	if err != nil {
		return err
	}
	b.rows = append(b.rows, []string{
		fmt.Sprintf("memory, %d namespaces, %d bases and %d policies", b.size.namespaces, governed, governed),
		megabytes(heap) + " alive", megabytes(float64(resident)) + " resident", "", "",
	})
	return p.Stop()
}

// awaitNoWrites waits until the agent has sent nothing for five seconds. It sends twenty Events a second at most.
func (b *bench) awaitNoWrites(ctx context.Context) error {
	for range 120 {
		mark, err := b.control.Mark()
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Second):
		}
		writes, err := b.control.Writes(mark, "egress-agent")
		if err != nil || len(writes) == 0 {
			return err
		}
	}
	return errors.New("the agent writes for ten minutes")
}

func (b *bench) labelNamespaces(ctx context.Context, governed int) error {
	return cluster.Each(b.size.namespaces, func(i int) error {
		tier := otherTier
		if i < governed {
			tier = tenantTier
		}
		return b.label(ctx, i, tier)
	})
}

func (b *bench) label(ctx context.Context, i int, tier string) error {
	patch := fmt.Appendf(nil, `{"metadata": {"labels": {"tier": %q}}}`, tier)
	_, err := b.client.CoreV1().Namespaces().Patch(ctx, b.namespace(i), types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// storeDocument creates the platform document, or changes the port that it denies.
func (b *bench) storeDocument(ctx context.Context, deniedPort int) error {
	configMaps := b.client.CoreV1().ConfigMaps("egress-system")
	configMap := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "baseline", Labels: map[string]string{"egress-controller": "platform"}},
		Data:       map[string]string{"platform.json": fmt.Sprintf(platform, deniedPort)},
	}
	if _, err := configMaps.Get(ctx, configMap.Name, metav1.GetOptions{}); err == nil {
		_, err = configMaps.Update(ctx, configMap, metav1.UpdateOptions{})
		return err
	}
	_, err := configMaps.Create(ctx, configMap, metav1.CreateOptions{})
	return err
}

// measureBases measures the time until every governed namespace has its base.
func (b *bench) measureBases(ctx context.Context, governed int) error {
	var figures, floors []time.Duration
	for range b.size.times {
		var p *measure.Agent
		figure, err := b.timeToCreate(ctx, governed, func() (err error) { p, err = b.start(); return err })
		if err != nil {
			return err
		}
		if err := p.Stop(); err != nil {
			return err
		}
		bases, err := b.client.NetworkingV1().NetworkPolicies("").List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		if len(bases.Items) != governed {
			return fmt.Errorf("%d namespaces have %d NetworkPolicies", governed, len(bases.Items))
		}
		if err := b.deletePolicies(ctx); err != nil {
			return err
		}
		floor, err := b.timeToCreate(ctx, governed, func() error { return b.create(ctx, bases.Items) })
		if err != nil {
			return err
		}
		if err := b.deletePolicies(ctx); err != nil {
			return err
		}
		figures, floors = append(figures, figure), append(floors, floor)
	}
	b.add(fmt.Sprintf("first convergence, a base in %d of %d namespaces", governed, b.size.namespaces), measure.Median(figures), measure.Median(floors), 1.15)
	return nil
}

// measureLabels gives namespaces the label of governed ones, one by one. The floor is a bare watcher of Namespaces that
// creates a fixed NetworkPolicy.
func (b *bench) measureLabels(ctx context.Context, governed int) error {
	bases, err := b.client.NetworkingV1().NetworkPolicies(b.namespace(0)).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	watcher, err := b.bare.CoreV1().Namespaces().Watch(ctx, metav1.ListOptions{LabelSelector: "tier=bare"})
	if err != nil {
		return err
	}
	defer watcher.Stop()
	go func() {
		for event := range watcher.ResultChan() {
			if namespace, ok := event.Object.(*corev1.Namespace); ok && event.Type == watch.Added {
				policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "bare"}, Spec: bases.Items[0].Spec}
				_, _ = b.bare.NetworkingV1().NetworkPolicies(namespace.Name).Create(ctx, policy, metav1.CreateOptions{})
			}
		}
	}()
	created, stop, err := cluster.WatchCreated(ctx, b.client)
	if err != nil {
		return err
	}
	defer stop()
	var figures, floors []time.Duration
	for range labelChanges {
		for _, tier := range []string{tenantTier, "bare"} {
			started := time.Now()
			if err := b.label(ctx, governed+len(figures)+len(floors), tier); err != nil {
				return err
			}
			last, err := awaitNth(ctx, created, 1)
			if err != nil {
				return err
			}
			if tier == tenantTier {
				figures = append(figures, last.At.Sub(started))
			} else {
				floors = append(floors, last.At.Sub(started))
			}
		}
	}
	slices.Sort(figures)
	slices.Sort(floors)
	for _, percent := range []int{50, 99} {
		index := (labelChanges - 1) * percent / 100
		b.add(fmt.Sprintf("a label of a Namespace to its base, p%d of %d", percent, labelChanges), figures[index], floors[index], 1.3)
	}
	return nil
}

// measureGuardrail stores a policy in each governed namespace, and changes a guardrail that cuts every second one. The
// agent must update exactly these. The floor is a bare client that updates as many NetworkPolicies.
func (b *bench) measureGuardrail(ctx context.Context, governed int) error {
	created, stop, err := cluster.WatchCreated(ctx, b.client)
	if err != nil {
		return err
	}
	err = cluster.Each(governed, func(i int) error {
		policy := configMap("egress", i)
		if i%2 == 0 {
			policy.Data["policy.json"] = wide
		}
		_, err := b.client.CoreV1().ConfigMaps(b.namespace(i)).Create(ctx, policy, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return err
	}
	if _, err := awaitNth(ctx, created, governed); err != nil {
		return err
	}
	stop()
	time.Sleep(5 * time.Second) // until the agent has written its copy for the webhook
	mark, err := b.control.Mark()
	if err != nil {
		return err
	}
	cut := governed / 2
	figure, err := b.timeToUpdate(ctx, cut, func() error { return b.storeDocument(ctx, 8050) })
	if err != nil {
		return err
	}
	time.Sleep(5 * time.Second)
	writes, err := b.control.Writes(mark, "egress-agent")
	if err != nil {
		return err
	}
	count := 0
	for _, write := range writes {
		if strings.Contains(write, " networkpolicies ") {
			count++
		}
	}
	if count != cut {
		return fmt.Errorf("the agent wrote %d NetworkPolicies, and the guardrail cuts %d", count, cut)
	}
	floor, err := b.timeToUpdate(ctx, cut, func() error {
		return cluster.Each(cut, func(i int) error {
			patch := []byte(`{"metadata": {"annotations": {"bench": "floor"}}}`)
			_, err := b.client.NetworkingV1().NetworkPolicies(b.namespace(2*i)).Patch(ctx, "egress", types.MergePatchType, patch, metav1.PatchOptions{})
			return err
		})
	})
	if err != nil {
		return err
	}
	b.add(fmt.Sprintf("a changed guardrail over %d namespaces, %d policies cut, exactly so many writes", governed, cut), figure, floor, 1.5)
	return nil
}

// timeToUpdate calls start, and returns the time until a watch has delivered n changes of NetworkPolicies.
func (b *bench) timeToUpdate(ctx context.Context, n int, start func() error) (time.Duration, error) {
	list, err := b.client.NetworkingV1().NetworkPolicies("").List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return 0, err
	}
	watcher, err := b.client.NetworkingV1().NetworkPolicies("").Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		return 0, err
	}
	defer watcher.Stop()
	started := time.Now()
	failed := make(chan error, 1)
	go func() { failed <- start() }()
	timeout := time.After(5 * time.Minute)
	for count := 0; count < n; {
		select {
		case event, ok := <-watcher.ResultChan():
			if !ok {
				return 0, fmt.Errorf("the watch ended after %d of %d changes", count, n)
			}
			if event.Type == watch.Modified {
				count++
			}
		case err := <-failed:
			if err != nil {
				return 0, err
			}
			failed = nil
		case <-timeout:
			return 0, fmt.Errorf("%d of %d changes came", count, n)
		}
	}
	return time.Since(started), nil
}
