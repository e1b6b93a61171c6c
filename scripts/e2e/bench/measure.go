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
func (b *bench) add(what string, figure, floor time.Duration, limit float64) {
	b.rows = append(b.rows, []string{what, rounded(figure), rounded(floor), fmt.Sprintf("%.2f", float64(figure)/float64(floor)), fmt.Sprintf("%.2f", limit)})
}

func rounded(d time.Duration) string {
	if d > time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}

// converge starts an agent in a cluster without NetworkPolicies, and measures the time until a watch delivers the last
// one. The floor is a bare client that creates the same NetworkPolicies with the same concurrency. It repeats both,
// because either varies by a fifth, and takes medians.
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
		var p *process
		figure, err := b.timed(ctx, n, func() (err error) { p, err = b.start(); return err })
		if err != nil {
			return err
		}
		if err := p.stop(); err != nil {
			return err
		}
		made, err := b.client.NetworkingV1().NetworkPolicies("").List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		if err := b.deletePolicies(ctx); err != nil {
			return err
		}
		floor, err := b.timed(ctx, n, func() error { return b.create(ctx, made.Items) })
		if err != nil {
			return err
		}
		figures, floors = append(figures, figure), append(floors, floor)
	}
	b.add(fmt.Sprintf("first convergence, %d policies in %d namespaces", n, b.size.namespaces), measure.Median(figures), measure.Median(floors), 1.15)
	return nil
}

// timed returns the time from the call of start until a watch has delivered n new NetworkPolicies.
func (b *bench) timed(ctx context.Context, n int, start func() error) (time.Duration, error) {
	seen, stop, err := b.created(ctx)
	if err != nil {
		return 0, err
	}
	defer stop()
	started := time.Now()
	if err := start(); err != nil {
		return 0, err
	}
	last, err := nth(ctx, seen, n)
	return last.at.Sub(started), err
}

// create creates NetworkPolicies with the name, the metadata and the spec of those given.
func (b *bench) create(ctx context.Context, policies []networkingv1.NetworkPolicy) error {
	return cluster.Each(len(policies), func(i int) error {
		of := &policies[i]
		copied := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{
			Name: of.Name, Labels: of.Labels, Annotations: of.Annotations, OwnerReferences: of.OwnerReferences,
		}, Spec: of.Spec}
		_, err := b.bare.NetworkingV1().NetworkPolicies(of.Namespace).Create(ctx, copied, metav1.CreateOptions{})
		return err
	})
}

// deletePolicies deletes every NetworkPolicy. No agent may run, which would restore them.
func (b *bench) deletePolicies(ctx context.Context) error {
	list, err := b.client.NetworkingV1().NetworkPolicies("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	return cluster.Each(len(list.Items), func(i int) error {
		return b.client.NetworkingV1().NetworkPolicies(list.Items[i].Namespace).Delete(ctx, list.Items[i].Name, metav1.DeleteOptions{})
	})
}

// latency creates ConfigMaps one by one, and measures the time until a watch delivers the NetworkPolicy of each. The
// floor is a bare watcher that creates a fixed NetworkPolicy for each ConfigMap; the two take turns. It repeats this
// and takes medians, because the slowest of a few hundred vary by chance.
func (b *bench) latency(ctx context.Context) error {
	p, err := b.start()
	if err != nil {
		return err
	}
	if err := b.awaitSynced(ctx, p, b.size.policies); err != nil {
		return err
	}
	stopWatcher, err := b.bareWatcher(ctx)
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
			at := (len(ofAgent) - 1) * percent / 100
			figures[i], floors[i] = append(figures[i], ofAgent[at]), append(floors[i], ofBare[at])
		}
	}
	for i, percent := range percents {
		b.add(fmt.Sprintf("one ConfigMap to its NetworkPolicy, p%d of %d", percent, b.size.latencies), measure.Median(figures[i]), measure.Median(floors[i]), 1.3)
	}
	return p.stop()
}

// latencies returns the latencies of the agent and of the bare watcher, sorted. Its policies have the numbers from
// first on, in all namespaces.
func (b *bench) latencies(ctx context.Context, first int) (ofAgent, ofBare []time.Duration, err error) {
	seen, stop, err := b.created(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer stop()
	measure := func(i int, configMap *corev1.ConfigMap) (time.Duration, error) {
		started := time.Now()
		if _, err := b.client.CoreV1().ConfigMaps(b.namespace(i)).Create(ctx, configMap, metav1.CreateOptions{}); err != nil {
			return 0, err
		}
		last, err := nth(ctx, seen, 1)
		return last.at.Sub(started), err
	}
	for i := first; i < first+b.size.latencies; i++ {
		figure, err := measure(i, configMap(fmt.Sprintf("latency-%d", i), i))
		if err != nil {
			return nil, nil, err
		}
		bare := configMap(fmt.Sprintf("bare-%d", i), i)
		bare.Labels = map[string]string{"bench": "bare"}
		floor, err := measure(i, bare)
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

// bareWatcher creates a NetworkPolicy for each ConfigMap with the label bench=bare, until stop.
func (b *bench) bareWatcher(ctx context.Context) (stop func(), err error) {
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
				// If this fails, the measurement waits for it and times out.
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
	if err := await(ctx, "the standby", func() bool { _, err := second.metric("egress_agent_leader"); return err == nil }); err != nil {
		return err
	}
	seen, stop, err := b.created(ctx)
	if err != nil {
		return err
	}
	defer stop()
	if err := first.command.Process.Kill(); err != nil {
		return err
	}
	killed := time.Now()
	_ = first.command.Wait()
	if _, err := b.client.CoreV1().ConfigMaps(b.namespace(0)).Create(ctx, configMap("failover", 0), metav1.CreateOptions{}); err != nil {
		return err
	}
	last, err := nth(ctx, seen, 1)
	if err != nil {
		return err
	}
	const lease = 15 * time.Second
	b.rows = append(b.rows, []string{"failover, to the standby's first write", rounded(last.at.Sub(killed)), rounded(lease), rounded(last.at.Sub(killed)-lease) + " more", "2s more"})
	return second.stop()
}

// awaitSynced waits until the agent is ready, has synced n policies and has an empty queue.
func (b *bench) awaitSynced(ctx context.Context, p *process, n int) error {
	if err := await(ctx, "the agent to be ready", p.isReady); err != nil {
		return err
	}
	return await(ctx, "every policy to be synced", func() bool {
		syncs, err := p.metric("egress_agent_sync_duration_seconds")
		if err != nil || syncs < float64(n) {
			return false
		}
		waiting, err := p.metric("egress_agent_queue_depth")
		return err == nil && waiting == 0
	})
}
