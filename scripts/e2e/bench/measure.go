package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/scripts/e2e/cluster"
	"egress-agent/scripts/e2e/measure"
)

// add appends a row with a time, its floor and their ratio.
func (b *bench) add(name string, figure, floor time.Duration, limit float64) {
	ratio := float64(figure) / float64(floor)
	b.rows = append(b.rows, []string{name, rounded(figure), rounded(floor), fmt.Sprintf("%.2f", ratio), fmt.Sprintf("%.2f", limit)})
}

func rounded(d time.Duration) string {
	if d > time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}

// converge starts an agent in a cluster without NetworkPolicies, and measures the time until a watch delivers the last
// NetworkPolicy. The floor is a bare client that creates the same NetworkPolicies with the same concurrency. converge
// repeats both measurements and takes medians, because the times vary by a fifth.
func (b *bench) converge(ctx context.Context) error {
	n := b.size.policies
	if err := b.createPolicies(ctx, 0, n); err != nil {
		return err
	}
	b.next = n
	var figures, floors []time.Duration
	for len(figures) < b.size.times {
		if err := b.deletePolicies(ctx); err != nil {
			return err
		}
		var p *measure.Agent
		figure, err := b.timeToCreate(ctx, n, func() (err error) { p, err = b.start(); return err })
		if err != nil {
			return err
		}
		if err := p.Stop(); err != nil {
			return err
		}
		created, err := b.client.NetworkingV1().NetworkPolicies("").List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		if err := b.deletePolicies(ctx); err != nil {
			return err
		}
		floor, err := b.timeToCreate(ctx, n, func() error { return b.create(ctx, created.Items) })
		if err != nil {
			return err
		}
		figures, floors = append(figures, figure), append(floors, floor)
	}
	b.add(fmt.Sprintf("first convergence, %d policies in %d namespaces", n, b.size.namespaces),
		measure.Median(figures), measure.Median(floors), 1.15)
	return nil
}

// timeToCreate calls start, and returns the time until a watch has delivered n new NetworkPolicies.
func (b *bench) timeToCreate(ctx context.Context, n int, start func() error) (time.Duration, error) {
	created, stop, err := cluster.WatchCreated(ctx, b.client)
	if err != nil {
		return 0, err
	}
	defer stop()
	started := time.Now()
	if err := start(); err != nil {
		return 0, err
	}
	last, err := awaitNth(ctx, created, n)
	return last.At.Sub(started), err
}

// create creates copies of templates, with the same name, metadata and spec.
func (b *bench) create(ctx context.Context, templates []networkingv1.NetworkPolicy) error {
	return cluster.Each(len(templates), func(i int) error {
		template := &templates[i]
		copied := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{
			Name: template.Name, Labels: template.Labels, Annotations: template.Annotations, OwnerReferences: template.OwnerReferences,
		}, Spec: template.Spec}
		_, err := b.bare.NetworkingV1().NetworkPolicies(template.Namespace).Create(ctx, copied, metav1.CreateOptions{})
		return err
	})
}

// deletePolicies deletes every NetworkPolicy. No agent may run meanwhile, because it would restore them.
func (b *bench) deletePolicies(ctx context.Context) error {
	return cluster.Each(b.size.namespaces, func(i int) error {
		return b.client.NetworkingV1().NetworkPolicies(b.namespace(i)).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
	})
}

// latency creates ConfigMaps one by one, and measures the time until a watch delivers the NetworkPolicy of each. The
// floor is a bare watcher that creates a fixed NetworkPolicy for each ConfigMap. The agent and the bare watcher take
// turns. latency repeats the measurement and takes medians, because the slowest of a few hundred times vary by chance.
func (b *bench) latency(ctx context.Context) error {
	p, err := b.start()
	if err != nil {
		return err
	}
	if err := b.awaitSynced(ctx, p, b.size.policies); err != nil {
		return err
	}
	stopWatcher, err := b.startBareWatcher(ctx)
	if err != nil {
		return err
	}
	defer stopWatcher()
	percents := []int{50, 99}
	figures, floors := make([][]time.Duration, len(percents)), make([][]time.Duration, len(percents))
	for round := range b.size.times {
		ofAgent, ofBare, err := b.latencies(ctx, round*b.size.latencies)
		if err != nil {
			return err
		}
		for i, percent := range percents {
			index := (len(ofAgent) - 1) * percent / 100
			figures[i], floors[i] = append(figures[i], ofAgent[index]), append(floors[i], ofBare[index])
		}
	}
	for i, percent := range percents {
		b.add(fmt.Sprintf("one ConfigMap to its NetworkPolicy, p%d of %d", percent, b.size.latencies),
			measure.Median(figures[i]), measure.Median(floors[i]), 1.3)
	}
	return p.Stop()
}

// latencies returns the sorted latencies of the agent and of the bare watcher. It creates policies with the numbers
// from first on, in all namespaces.
func (b *bench) latencies(ctx context.Context, first int) (ofAgent, ofBare []time.Duration, err error) {
	created, stop, err := cluster.WatchCreated(ctx, b.client)
	if err != nil {
		return nil, nil, err
	}
	defer stop()
	latency := func(i int, configMap *corev1.ConfigMap) (time.Duration, error) {
		started := time.Now()
		if _, err := b.client.CoreV1().ConfigMaps(b.namespace(i)).Create(ctx, configMap, metav1.CreateOptions{}); err != nil {
			return 0, err
		}
		last, err := awaitNth(ctx, created, 1)
		return last.At.Sub(started), err
	}
	for i := first; i < first+b.size.latencies; i++ {
		figure, err := latency(i, configMap(fmt.Sprintf("latency-%d", i), i))
		if err != nil {
			return nil, nil, err
		}
		bare := configMap(fmt.Sprintf("bare-%d", i), i)
		bare.Labels = map[string]string{"bench": "bare"}
		floor, err := latency(i, bare)
		if err != nil {
			return nil, nil, err
		}
		ofAgent, ofBare = append(ofAgent, figure), append(ofBare, floor)
	}
	slices.Sort(ofAgent)
	slices.Sort(ofBare)
	return ofAgent, ofBare, cluster.Each(b.size.latencies, func(i int) error {
		return b.client.NetworkingV1().NetworkPolicies(b.namespace(first+i)).Delete(ctx, fmt.Sprintf("bare-%d", first+i), metav1.DeleteOptions{})
	})
}

// startBareWatcher creates a NetworkPolicy for each new ConfigMap with the label bench=bare, until stop is called.
func (b *bench) startBareWatcher(ctx context.Context) (stop func(), err error) {
	template, err := b.client.NetworkingV1().NetworkPolicies("").List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return nil, err
	}
	watcher, err := b.bare.CoreV1().ConfigMaps("").Watch(ctx, metav1.ListOptions{LabelSelector: "bench=bare"})
	if err != nil {
		return nil, err
	}
	go func() {
		for event := range watcher.ResultChan() {
			if configMap, ok := event.Object.(*corev1.ConfigMap); ok {
				policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: configMap.Name}, Spec: template.Items[0].Spec}
				// If this fails, the measurement waits in vain for the NetworkPolicy, and reports a timeout.
				_, _ = b.bare.NetworkingV1().NetworkPolicies(configMap.Namespace).Create(ctx, policy, metav1.CreateOptions{})
			}
		}
	}()
	return watcher.Stop, nil
}

// failover kills the leader of two agents, and measures the time until the standby's first write.
func (b *bench) failover(ctx context.Context) error {
	first, err := b.start("--leader-elect")
	if err != nil {
		return err
	}
	if err := b.awaitSynced(ctx, first, b.size.policies); err != nil {
		return err
	}
	second, err := b.start("--leader-elect")
	if err != nil {
		return err
	}
	if err := measure.Await(ctx, "the standby", func() bool { _, err := second.Metric("egress_agent_leader"); return err == nil }); err != nil {
		return err
	}
	created, stop, err := cluster.WatchCreated(ctx, b.client)
	if err != nil {
		return err
	}
	defer stop()
	killedAt := time.Now()
	first.Kill()
	if _, err := b.client.CoreV1().ConfigMaps(b.namespace(0)).Create(ctx, configMap("failover", 0), metav1.CreateOptions{}); err != nil {
		return err
	}
	last, err := awaitNth(ctx, created, 1)
	if err != nil {
		return err
	}
	const lease = 15 * time.Second
	duration := last.At.Sub(killedAt)
	b.rows = append(b.rows, []string{
		"failover, to the standby's first write", rounded(duration), rounded(lease), rounded(duration-lease) + " more", "2s more",
	})
	return second.Stop()
}

// awaitSynced waits until the agent is ready, has synced n policies and has an empty queue.
func (b *bench) awaitSynced(ctx context.Context, p *measure.Agent, n int) error {
	if err := measure.Await(ctx, "the agent to be ready", p.IsReady); err != nil {
		return err
	}
	return measure.Await(ctx, "every policy to be synced", func() bool {
		syncs, err := p.Metric("egress_agent_sync_duration_seconds")
		if err != nil || syncs < float64(n) {
			return false
		}
		waiting, err := p.Metric("egress_agent_queue_depth")
		return err == nil && waiting == 0
	})
}
