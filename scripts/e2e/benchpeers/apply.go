package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/scripts/e2e/bare"
	"egress-agent/scripts/e2e/cluster"
	"egress-agent/scripts/e2e/measure"
)

// quiet is how long a measurement waits for a further NetworkPolicy. What is missing then is lost.
const quiet = time.Minute

// program is a running program, or several of one.
type program interface {
	CPU() (time.Duration, error)
	Peak() (int64, error)
}

// applier creates a NetworkPolicy for each policy.
type applier struct {
	name       string
	userAgents []string // the prefixes of its requests' user agents
	kind       string   // of the namespaces that it works in
	mayLose    bool     // whether a lost NetworkPolicy belongs into the table; otherwise it is an error
	// start starts its programs. stop stops them and removes what they leave behind. A nil start starts nothing, and
	// the measurement then awaits no NetworkPolicy.
	start func(ctx context.Context) (running []program, stop func(context.Context) error, err error)
}

// measureApplies measures the appliers that need no other project's programs, for each number of policies.
func (b *bench) measureApplies(ctx context.Context, counts []int) ([][]string, error) {
	appliers := []applier{
		{name: "ConfigMaps alone", kind: kindNone},
		{name: "bare client", userAgents: []string{"bare"}, kind: kindNone, start: b.startBareWatch},
		{name: "egress-agent", userAgents: []string{"egress-agent"}, kind: kindNone, start: b.startAgent},
	}
	var rows [][]string
	for _, count := range counts {
		for _, a := range appliers {
			row, err := b.measureApplier(ctx, a, count)
			if err != nil {
				return nil, fmt.Errorf("%s, %d ConfigMaps: %w", a.name, count, err)
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

func (b *bench) startAgent(context.Context) ([]program, func(context.Context) error, error) {
	agent, err := measure.StartAgent(b.control.Dir, b.programs+"/egress-agent", b.kubeconfig, b.ranges)
	if err != nil {
		return nil, nil, err
	}
	return []program{agent.Process}, func(context.Context) error { return agent.Stop() }, nil
}

func (b *bench) startBareWatch(context.Context) ([]program, func(context.Context) error, error) {
	watcher, err := measure.Start(b.control.Dir, b.self, nil, watchCommand, b.kubeconfig)
	if err != nil {
		return nil, nil, err
	}
	return []program{watcher}, func(context.Context) error { watcher.Kill(); return nil }, nil
}

// measureApplier creates count policies while an applier runs, and returns its row of the table.
func (b *bench) measureApplier(ctx context.Context, a applier, count int) (row []string, err error) {
	progress("measuring:", a.name, "with", count, "ConfigMaps")
	var running []program
	if a.start != nil {
		started, stop, err := a.start(ctx)
		if err != nil {
			return nil, err
		}
		running = started
		defer func() { err = errors.Join(err, stop(ctx), b.clean(ctx, a.kind)) }()
		if err := b.awaitApplier(ctx, a); err != nil {
			return nil, err
		}
	} else {
		defer func() { err = errors.Join(err, b.clean(ctx, a.kind)) }()
	}
	before, err := b.use(running)
	if err != nil {
		return nil, err
	}
	mark, err := b.control.Mark()
	if err != nil {
		return nil, err
	}
	delivered, stop, err := cluster.WatchCreated(ctx, b.client)
	if err != nil {
		return nil, err
	}
	defer stop()
	c := b.create(ctx, a.kind, count)
	if c.err != nil && !a.mayLose {
		return nil, fmt.Errorf("%d ConfigMaps were not created: %w", c.failed, c.err)
	}
	took, times, lost := c.took, c.times, 0
	if a.start != nil {
		policies, err := cluster.AwaitCreated(ctx, delivered, count, quiet)
		if err != nil && !errors.Is(err, cluster.ErrQuiet) {
			return nil, err
		}
		if times, err = latencies(policies, c.startedAt); err != nil {
			return nil, err
		}
		if len(policies) > 0 {
			took = policies[len(policies)-1].At.Sub(c.startedAt[0])
		}
		if lost = count - len(policies); lost > 0 && !a.mayLose {
			return nil, fmt.Errorf("%d NetworkPolicies are missing", lost)
		}
	}
	after, err := b.use(running)
	if err != nil {
		return nil, err
	}
	name := a.name
	if after.restarts > 0 {
		name = fmt.Sprintf("%s; %d restarts", a.name, after.restarts)
	}
	var writes []string
	if a.start != nil {
		if writes, err = b.awaitLastWrite(ctx, mark, a.userAgents); err != nil {
			return nil, err
		}
		byResource := countResources(writes)
		progress("writes:", byResource)
		if byResource["networkpolicies"] != count && !a.mayLose {
			return nil, fmt.Errorf("%d writes of NetworkPolicies for %d policies", byResource["networkpolicies"], count)
		}
	}
	progress("ConfigMaps created in", rounded(c.took), "slowest", percentile(c.times, 100), "and NetworkPolicy", percentile(times, 100))
	row = []string{fmt.Sprintf("%d, %s", count, name), rounded(took), percentile(times, 50), percentile(times, 99),
		strconv.Itoa(lost), strconv.Itoa(len(writes)), "", "",
		rounded(after.APIServer - before.APIServer), rounded(after.Etcd - before.Etcd), rounded(after.clients - before.clients)}
	if a.start != nil {
		row[6], row[7] = megabytes(after.peak), rounded(after.cpu-before.cpu)
	}
	progress(strings.Join(row, "  "))
	return row, nil
}

// use is what processes have used so far.
type use struct {
	cluster.CPU
	clients  time.Duration // CPU time of this process, which runs the clients
	cpu      time.Duration // CPU time of the measured programs
	peak     int64         // sum of their largest resident sizes, in bytes
	restarts int           // how often programs have started again
}

func (b *bench) use(running []program) (u use, err error) {
	if u.CPU, err = b.control.CPU(); err != nil {
		return u, err
	}
	if u.clients, err = measure.CPU(os.Getpid()); err != nil {
		return u, err
	}
	for _, p := range running {
		cpu, cpuErr := p.CPU()
		peak, peakErr := p.Peak()
		if err := errors.Join(cpuErr, peakErr); err != nil {
			return u, err
		}
		if supervised, ok := p.(*measure.Supervised); ok {
			u.restarts += supervised.Restarts()
		}
		u.cpu, u.peak = u.cpu+cpu, u.peak+peak
	}
	return u, nil
}

// latencies returns the sorted times from the start of a ConfigMap's create until a watch delivered its NetworkPolicy.
// It returns an error if a NetworkPolicy does not open exactly what its policy opens.
func latencies(policies []cluster.Delivered, startedAt []time.Time) ([]time.Duration, error) {
	var times []time.Duration
	for _, p := range policies {
		i, err := strconv.Atoi(strings.TrimPrefix(p.Name, "policy-"))
		if err != nil || i >= len(startedAt) {
			return nil, fmt.Errorf("nobody asked for NetworkPolicy %s/%s", p.Namespace, p.Name)
		}
		if err := check(p.NetworkPolicy, i); err != nil {
			return nil, err
		}
		times = append(times, p.At.Sub(startedAt[i]))
	}
	slices.Sort(times)
	return times, nil
}

// check returns an error unless p is a NetworkPolicy for policy i.
func check(p *networkingv1.NetworkPolicy, i int) error {
	expected, err := bare.Spec(policy(i))
	if err == nil && !equality.Semantic.DeepEqual(p.Spec, expected) {
		err = fmt.Errorf("NetworkPolicy %s/%s has the spec %v, expected %v", p.Namespace, p.Name, p.Spec, expected)
	}
	return err
}

// awaitApplier waits until an applier creates the NetworkPolicy of a new policy. Then it deletes what it created.
func (b *bench) awaitApplier(ctx context.Context, a applier) error {
	deadline := time.Now().Add(2 * time.Minute)
	for attempt := 0; time.Now().Before(deadline); attempt++ {
		name := fmt.Sprintf("probe-%d", attempt) // an applier may never create what it has missed
		_, err := b.client.CoreV1().ConfigMaps(namespace(a.kind, 0)).Create(ctx, configMap(name, policy(0)), metav1.CreateOptions{})
		if err != nil { // a webhook that does not answer yet
			time.Sleep(time.Second)
			continue
		}
		for range 50 {
			p, err := b.client.NetworkingV1().NetworkPolicies(namespace(a.kind, 0)).Get(ctx, name, metav1.GetOptions{})
			if err == nil {
				if err := check(p, 0); err != nil {
					return err
				}
				// The deletion causes work, too. An idle applier does not write.
				if err := b.clean(ctx, a.kind); err != nil {
					return err
				}
				mark, err := b.control.Mark()
				if err != nil {
					return err
				}
				_, err = b.awaitLastWrite(ctx, mark, a.userAgents)
				return err
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	return errors.New("it creates no NetworkPolicy within two minutes")
}

// countResources returns the number of writes of each resource.
func countResources(writes []string) map[string]int {
	counts := make(map[string]int)
	for _, write := range writes {
		counts[strings.Fields(write)[1]]++ // VERB RESOURCE NAMESPACE/NAME
	}
	return counts
}

// awaitLastWrite waits until the clients with the user agents have sent no write for four seconds, and returns the writes
// since mark. It leaves out the writes of Leases, which depend on the time only.
func (b *bench) awaitLastWrite(ctx context.Context, mark cluster.Mark, userAgents []string) ([]string, error) {
	last := -1
	for {
		var writes []string
		for _, prefix := range userAgents {
			sent, err := b.control.Writes(mark, prefix)
			if err != nil {
				return nil, err
			}
			writes = append(writes, slices.DeleteFunc(sent, func(write string) bool {
				// The clients of this program have the user agent bare, too. They write only ConfigMaps meanwhile.
				return strings.Contains(write, " leases ") || prefix == "bare" && strings.Contains(write, " configmaps ")
			})...)
		}
		if len(writes) == last {
			return writes, nil
		}
		last = len(writes)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(4 * time.Second):
		}
	}
}
