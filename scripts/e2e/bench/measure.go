package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/scripts/e2e/cluster"
)

// add appends a row that sets a time against its floor.
func (b *bench) add(what string, figure, floor time.Duration, limit float64) {
	b.rows = append(b.rows, row{what, rounded(figure), rounded(floor), fmt.Sprintf("%.2f", float64(figure)/float64(floor)), fmt.Sprintf("%.2f", limit)})
}

func rounded(d time.Duration) string {
	if d > time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}

// converge starts an agent where no policy has been looked at, until the last NetworkPolicy is seen by a
// watch. The floor is a bare client that creates the same NetworkPolicies, as many at a time, to the same.
func (b *bench) converge(ctx context.Context) error {
	n := b.size.policies
	if err := b.createPolicies(ctx, 0, n); err != nil {
		return err
	}
	b.next = n
	seen, stop, err := b.created(ctx)
	if err != nil {
		return err
	}
	defer stop()
	p, err := b.start()
	if err != nil {
		return err
	}
	last, err := nth(ctx, seen, n)
	if err != nil {
		return err
	}
	figure := last.at.Sub(p.started)
	if err := p.stop(); err != nil {
		return err
	}
	list, err := b.client.NetworkingV1().NetworkPolicies("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	// The same, but for the names, and for the label and the owner: nobody is to take care of them.
	started := time.Now()
	err = cluster.Each(n, func(i int) error {
		of := &list.Items[i]
		copied := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "floor-" + of.Name, Annotations: of.Annotations,
			Labels: map[string]string{"app.kubernetes.io/managed-by": "bench"}}, Spec: of.Spec}
		_, err := b.client.NetworkingV1().NetworkPolicies(of.Namespace).Create(ctx, copied, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return err
	}
	if last, err = nth(ctx, seen, n); err != nil {
		return err
	}
	b.add(fmt.Sprintf("first convergence, %d policies in %d namespaces", n, b.size.namespaces), figure, last.at.Sub(started), 1.15)
	return cluster.Each(n, func(i int) error {
		return b.client.NetworkingV1().NetworkPolicies(list.Items[i].Namespace).Delete(ctx, "floor-"+list.Items[i].Name, metav1.DeleteOptions{})
	})
}

// latency creates one ConfigMap after the other, each until its NetworkPolicy is seen by a watch; and in
// turns with them as many for a bare watcher, which creates a fixed NetworkPolicy for each.
func (b *bench) latency(ctx context.Context) error {
	p, err := b.start()
	if err != nil {
		return err
	}
	if err := b.checked(ctx, p, b.size.policies); err != nil {
		return err
	}
	seen, stop, err := b.created(ctx)
	if err != nil {
		return err
	}
	defer stop()
	stopWatcher, err := b.bareWatcher(ctx)
	if err != nil {
		return err
	}
	defer stopWatcher()
	measure := func(configMap *corev1.ConfigMap) (time.Duration, error) {
		started := time.Now()
		if _, err := b.client.CoreV1().ConfigMaps(b.namespace(0)).Create(ctx, configMap, metav1.CreateOptions{}); err != nil {
			return 0, err
		}
		last, err := nth(ctx, seen, 1)
		return last.at.Sub(started), err
	}
	var figures, floors []time.Duration
	for i := range b.size.latencies {
		figure, err := measure(configMap(fmt.Sprintf("latency-%d", i), i))
		if err != nil {
			return err
		}
		bare := configMap(fmt.Sprintf("bare-%d", i), i)
		bare.Labels = map[string]string{"bench": "bare"}
		floor, err := measure(bare)
		if err != nil {
			return err
		}
		figures, floors = append(figures, figure), append(floors, floor)
	}
	slices.Sort(figures)
	slices.Sort(floors)
	for _, percent := range []int{50, 99} {
		at := (len(figures) - 1) * percent / 100
		b.add(fmt.Sprintf("one ConfigMap to its NetworkPolicy, p%d of %d", percent, len(figures)), figures[at], floors[at], 1.3)
	}
	return p.stop()
}

// bareWatcher creates a NetworkPolicy for each ConfigMap labelled for it.
func (b *bench) bareWatcher(ctx context.Context) (stop func(), err error) {
	template, err := b.client.NetworkingV1().NetworkPolicies("").List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return nil, err
	}
	watcher, err := b.client.CoreV1().ConfigMaps("").Watch(ctx, metav1.ListOptions{LabelSelector: "bench=bare"})
	if err != nil {
		return nil, err
	}
	go func() {
		for event := range watcher.ResultChan() {
			if configMap, ok := event.Object.(*corev1.ConfigMap); ok {
				policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: configMap.Name}, Spec: template.Items[0].Spec}
				// What cannot be created is waited for in vain, and found so.
				_, _ = b.client.NetworkingV1().NetworkPolicies(configMap.Namespace).Create(ctx, policy, metav1.CreateOptions{})
			}
		}
	}()
	return watcher.Stop, nil
}

// failover kills the one of two agents that works, and waits for the other's next write.
func (b *bench) failover(ctx context.Context) error {
	first, err := b.start("--leader-elect")
	if err != nil {
		return err
	}
	if err := b.checked(ctx, first, b.size.policies); err != nil {
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
	b.rows = append(b.rows, row{"failover, to the standby's first write", rounded(last.at.Sub(killed)), rounded(lease), rounded(last.at.Sub(killed)-lease) + " more", "2s more"})
	return second.stop()
}

// checked waits until every policy, of n at least, has been looked at.
func (b *bench) checked(ctx context.Context, p *process, n int) error {
	return await(ctx, "every policy to be looked at", func() bool {
		syncs, err := p.metric("egress_agent_sync_duration_seconds")
		if err != nil || syncs < float64(n) {
			return false
		}
		waiting, err := p.metric("egress_agent_queue_depth")
		return err == nil && waiting == 0
	})
}

func (b *bench) restart(ctx context.Context) error { return b.restartWith(ctx, b.size.many, nil) }

// figures are those of one number of policies.
type figures struct {
	time time.Duration
	heap float64
}

func (b *bench) scale(ctx context.Context) error {
	return b.restartWith(ctx, 2*b.size.many, &b.restarted)
}

// restartWith brings the policies to a number, all of them applied, and starts an agent some times: until each
// has been looked at. The floor is to list the same objects once. Half as many came before.
func (b *bench) restartWith(ctx context.Context, n int, half *figures) error {
	first, err := b.start()
	if err != nil {
		return err
	}
	list, err := b.client.CoreV1().ConfigMaps("").List(ctx, metav1.ListOptions{LabelSelector: "egress-controller=managed"})
	if err != nil {
		return err
	}
	if err := b.createPolicies(ctx, b.next, b.next+n-len(list.Items)); err != nil {
		return err
	}
	b.next += n - len(list.Items)
	applied := func() bool {
		states, err := first.metric("egress_agent_policies")
		return err == nil && int(states) == n
	}
	if err := await(ctx, "every policy to be applied", applied); err != nil {
		return err
	}
	if err := first.stop(); err != nil {
		return err
	}

	mark, err := b.control.Mark()
	if err != nil {
		return err
	}
	p, restart, floor, err := b.restarts(ctx, n)
	if err != nil {
		return err
	}
	now := figures{time: restart}
	if half == nil {
		b.add(fmt.Sprintf("restart with %d policies, until all are checked", n), restart, floor, 1.5)
	}
	if err := b.idle(ctx, p, n, half == nil); err != nil {
		return err
	}
	writes, err := b.control.Writes(mark, "egress-agent")
	if err != nil {
		return err
	}
	if half == nil {
		b.rows = append(b.rows, row{"writes of that, and of the time idle", fmt.Sprint(len(writes)), "", "", "0"})
	}
	if len(writes) > 0 {
		return fmt.Errorf("an agent that has nothing to do wrote %d times, such as %s", len(writes), writes[0])
	}
	if now.heap, err = p.metric("go_gc_heap_live_bytes"); err != nil {
		return err
	}
	resident, err := p.resident()
	if err != nil {
		return err
	}
	if half == nil {
		b.restarted = now
		b.rows = append(b.rows,
			row{fmt.Sprintf("live heap with %d policies", n), megabytes(now.heap), "", "", "60 MB"},
			row{fmt.Sprintf("resident with %d policies", n), megabytes(resident), "", "", "150 MB"})
	} else {
		b.rows = append(b.rows,
			row{fmt.Sprintf("%d to %d policies, time", n/2, n), rounded(now.time), rounded(half.time), fmt.Sprintf("%.2f", float64(now.time)/float64(half.time)), "2.10"},
			row{fmt.Sprintf("%d to %d policies, live heap", n/2, n), megabytes(now.heap), megabytes(half.heap), fmt.Sprintf("%.2f", now.heap/half.heap), "2.00"})
	}
	return p.stop()
}

// restarts starts an agent some times, after a floor each, and leaves the last. Both figures are medians.
func (b *bench) restarts(ctx context.Context, n int) (p *process, restart, floor time.Duration, err error) {
	const times = 5
	var figures, floors []time.Duration
	for len(figures) < times {
		if p != nil {
			if err := p.stop(); err != nil {
				return nil, 0, 0, err
			}
		}
		if floor, err = b.list(ctx); err != nil {
			return nil, 0, 0, err
		}
		if p, err = b.start(); err != nil {
			return nil, 0, 0, err
		}
		if err := b.checked(ctx, p, n); err != nil {
			return nil, 0, 0, err
		}
		figures, floors = append(figures, time.Since(p.started)), append(floors, floor)
	}
	slices.Sort(figures)
	slices.Sort(floors)
	return p, figures[times/2], floors[times/2], nil
}

// list reads all that an agent reads when it starts, once, and says how long it took.
func (b *bench) list(ctx context.Context) (time.Duration, error) {
	started := time.Now()
	if _, err := b.client.CoreV1().ConfigMaps("").List(ctx, metav1.ListOptions{LabelSelector: "egress-controller=managed", ResourceVersion: "0"}); err != nil {
		return 0, err
	}
	_, err := b.client.NetworkingV1().NetworkPolicies("").List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	return time.Since(started), err
}

// idle lets the agent be, and tells what it used of a core.
func (b *bench) idle(ctx context.Context, p *process, n int, tell bool) error {
	before, err := p.cpu()
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(b.size.idle):
	}
	after, err := p.cpu()
	if err == nil && tell {
		b.rows = append(b.rows, row{fmt.Sprintf("idle, %d policies, of a core", n), fmt.Sprintf("%.2f %%", 100*float64(after-before)/float64(b.size.idle)), "", "", "1 %"})
	}
	return err
}

func megabytes(bytes float64) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", bytes/1e6), ".0") + " MB"
}
