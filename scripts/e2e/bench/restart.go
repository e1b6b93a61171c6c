package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"egress-agent/scripts/e2e/measure"
)

func (b *bench) restart(ctx context.Context) error { return b.restartWith(ctx, b.size.many, nil) }

// figures are the results for one number of policies.
type figures struct {
	time time.Duration
	heap float64
}

func (b *bench) scale(ctx context.Context) error {
	return b.restartWith(ctx, 2*b.size.many, &b.restarted)
}

// restartWith creates policies until n are applied. Then it measures the time until a new agent has synced all
// policies. The floor is a client that lists the same objects once. Another row compares with a client that must start
// first. half has the figures for half as many policies. If half is nil, restartWith adds the rows of the first
// restart.
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
		states, err := first.Metric("egress_agent_policies")
		return err == nil && int(states) == n
	}
	if err := measure.Await(ctx, "every policy to be applied", applied); err != nil {
		return err
	}
	if err := first.Stop(); err != nil {
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
		b.add(fmt.Sprintf("restart with %d policies, until all are synced", n), restart, floor, 1.5)
		b.rows = append(b.rows, []string{"the same, against a client that starts and lists", rounded(restart), rounded(started),
			fmt.Sprintf("%.2f", float64(restart)/float64(started)), ""})
	}
	if err := b.idle(ctx, p, n, half == nil); err != nil {
		return err
	}
	writes, err := b.control.Writes(mark, "egress-agent")
	if err != nil {
		return err
	}
	if half == nil {
		b.rows = append(b.rows, []string{"writes during restart and idle time", fmt.Sprint(len(writes)), "", "", "0"})
	}
	if len(writes) > 0 {
		return fmt.Errorf("an agent without work sent %d writes, such as %s", len(writes), writes[0])
	}
	if now.heap, err = b.liveHeap(ctx, p); err != nil {
		return err
	}
	resident, err := p.Resident()
	if err != nil {
		return err
	}
	if half == nil {
		b.restarted = now
		b.rows = append(b.rows,
			[]string{fmt.Sprintf("live heap with %d policies", n), megabytes(now.heap), "", "", "60 MB"},
			[]string{fmt.Sprintf("resident with %d policies", n), megabytes(float64(resident)), "", "", "150 MB"})
	} else {
		b.rows = append(b.rows,
			[]string{fmt.Sprintf("%d to %d policies, time", n/2, n), rounded(now.time), rounded(half.time), fmt.Sprintf("%.2f", float64(now.time)/float64(half.time)), "2.10"},
			[]string{fmt.Sprintf("%d to %d policies, live heap", n/2, n), megabytes(now.heap), megabytes(half.heap), fmt.Sprintf("%.2f", now.heap/half.heap), "2.00"})
	}
	return p.Stop()
}

// restarts starts an agent several times, and returns the last agent. Before each start, both bare clients list once.
// restart is the time of the agent, floor of a client that lists, started of a client that starts and lists. All times
// are medians.
func (b *bench) restarts(ctx context.Context, n int) (p *measure.Agent, restart, floor, started time.Duration, err error) {
	var figures, floors, starts []time.Duration
	for len(figures) < b.size.times {
		if p != nil {
			if err := p.Stop(); err != nil {
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
		if err := b.awaitSynced(ctx, p, n); err != nil {
			return nil, 0, 0, 0, err
		}
		figures, floors, starts = append(figures, time.Since(p.StartedAt)), append(floors, floor), append(starts, started)
	}
	return p, measure.Median(figures), measure.Median(floors), measure.Median(starts), nil
}

// list reads once the objects that an agent reads when it starts.
func list(ctx context.Context, client kubernetes.Interface) error {
	options := metav1.ListOptions{LabelSelector: "egress-controller=managed", ResourceVersion: "0"}
	if _, err := client.CoreV1().ConfigMaps("").List(ctx, options); err != nil {
		return err
	}
	_, err := client.NetworkingV1().NetworkPolicies("").List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	return err
}

// timeToList measures list with a client that already has a connection, and memory from the operating system.
func (b *bench) timeToList(ctx context.Context) (time.Duration, error) {
	started := time.Now()
	err := list(ctx, b.bare)
	return time.Since(started), err
}

// timeToStartAndList measures a new process that calls list. The new process takes twice as long, because it must first
// get the memory for the objects from the operating system.
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

// liveHeap returns the size of the live heap in bytes, at a garbage collection after the work of the agent. It reads
// the metrics until this causes a garbage collection.
func (b *bench) liveHeap(ctx context.Context, p *measure.Agent) (float64, error) {
	const metric = "go_gc_heap_live_bytes"
	previous, err := p.Metric(metric)
	if err != nil {
		return 0, err
	}
	live := previous
	err = measure.Await(ctx, "a collection", func() bool {
		live, err = p.Metric(metric)
		return err != nil || live != previous
	})
	return live, err
}

// idle measures the CPU time of an agent without work. It adds a row if addsRow is true.
func (b *bench) idle(ctx context.Context, p *measure.Agent, n int, addsRow bool) error {
	start, err := p.CPU()
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(b.size.idle):
	}
	end, err := p.CPU()
	if err == nil && addsRow {
		percent := 100 * float64(end-start) / float64(b.size.idle)
		b.rows = append(b.rows, []string{fmt.Sprintf("idle, %d policies, of a core", n), fmt.Sprintf("%.2f %%", percent), "", "", "1 %"})
	}
	return err
}

func megabytes(bytes float64) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", bytes/1e6), ".0") + " MB"
}
