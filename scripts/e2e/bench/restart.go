package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

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
// has been looked at. The floor is to list the same objects once; what it takes a client that has to start first is
// told beside it. Half as many came before.
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
	p, restart, floor, started, err := b.restarts(ctx, n)
	if err != nil {
		return err
	}
	now := figures{time: restart}
	if half == nil {
		b.add(fmt.Sprintf("restart with %d policies, until all are checked", n), restart, floor, 1.5)
		b.rows = append(b.rows, row{"the same, beside a client that has to start, too", rounded(restart), rounded(started), fmt.Sprintf("%.2f", float64(restart)/float64(started)), ""})
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
	if now.heap, err = b.liveHeap(ctx, p); err != nil {
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

// restarts starts an agent some times, after a list by each of both clients, and leaves the last. All figures are
// medians.
func (b *bench) restarts(ctx context.Context, n int) (p *process, restart, floor, started time.Duration, err error) {
	var figures, floors, starts []time.Duration
	for len(figures) < b.size.times {
		if p != nil {
			if err := p.stop(); err != nil {
				return nil, 0, 0, 0, err
			}
		}
		if floor, err = b.timeToList(ctx); err != nil {
			return nil, 0, 0, 0, err
		}
		if started, err = b.timeToStartAndList(ctx); err != nil {
			return nil, 0, 0, 0, err
		}
		if p, err = b.start(); err != nil {
			return nil, 0, 0, 0, err
		}
		if err := b.checked(ctx, p, n); err != nil {
			return nil, 0, 0, 0, err
		}
		figures, floors, starts = append(figures, time.Since(p.started)), append(floors, floor), append(starts, started)
	}
	return p, median(figures), median(floors), median(starts), nil
}

func median(durations []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(durations))
	return sorted[len(sorted)/2]
}

// list reads all that an agent reads when it starts, once.
func list(ctx context.Context, client kubernetes.Interface) error {
	if _, err := client.CoreV1().ConfigMaps("").List(ctx, metav1.ListOptions{LabelSelector: "egress-controller=managed", ResourceVersion: "0"}); err != nil {
		return err
	}
	_, err := client.NetworkingV1().NetworkPolicies("").List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	return err
}

// timeToList is that of a client that has run for long: its connection is there, and its memory.
func (b *bench) timeToList(ctx context.Context) (time.Duration, error) {
	started := time.Now()
	err := list(ctx, b.bare)
	return time.Since(started), err
}

// timeToStartAndList is that of a process, as an agent that starts is one: the memory for what is listed takes it
// as long as the list itself.
func (b *bench) timeToStartAndList(ctx context.Context) (time.Duration, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	command := exec.CommandContext(ctx, self, listCommand, b.kubeconfig)
	command.Stderr = os.Stderr
	started := time.Now()
	err = command.Run()
	return time.Since(started), err
}

// liveHeap is what is live at a collection that begins after the work is done. Reading the metrics is what
// brings one about.
func (b *bench) liveHeap(ctx context.Context, p *process) (float64, error) {
	const metric = "go_gc_heap_live_bytes"
	before, err := p.metric(metric)
	if err != nil {
		return 0, err
	}
	live := before
	err = await(ctx, "a collection", func() bool {
		live, err = p.metric(metric)
		return err != nil || live != before
	})
	return live, err
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
