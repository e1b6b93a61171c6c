package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"egress-agent/scripts/e2e/cluster"
	"egress-agent/scripts/e2e/hostile"
	"egress-agent/scripts/e2e/pod"
)

const (
	changeCount      = 200
	maxChangeTime    = time.Minute
	hostileNamespace = "hostile"
)

// agent measures changes of ordinary tenants. The floor has no hostile namespace. The figure has one: a hostile tenant
// stores the worst policies and edits one policy.
func (b *bench) agent(ctx context.Context) error {
	fmt.Fprintln(os.Stderr, "starting the control plane")
	absolute, err := filepath.Abs(b.control)
	if err != nil {
		return err
	}
	control, err := cluster.Start(ctx, absolute, b.dir)
	if err != nil {
		return err
	}
	defer control.Stop()
	command := exec.CommandContext(ctx, filepath.Join(control.Programs, "kubectl"), "--kubeconfig", control.Kubeconfig, "apply", "-f", filepath.Join(b.base, "agent-rbac.yaml"))
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, output)
	}
	client, err := cluster.Bare(control.Kubeconfig)
	if err != nil {
		return err
	}
	if err := errors.Join(hostile.CreateTenants(ctx, client), hostile.CreateNamespace(ctx, client, hostileNamespace)); err != nil {
		return err
	}
	kubeconfig, err := control.ServiceAccountKubeconfig(ctx, "egress-system", "egress-agent")
	if err != nil {
		return err
	}
	container, err := b.container("agent")
	if err != nil {
		return err
	}
	p, err := hostile.StartAgent(container, filepath.Join(b.programs, "egress-agent"), kubeconfig, b.ranges, filepath.Join(b.dir, "agent.log"))
	if err != nil {
		return err
	}
	defer p.Kill()
	fmt.Fprintln(os.Stderr, "measuring the agent: changes without a hostile namespace")
	floors, err := changes(ctx, client, p, 1)
	if err != nil {
		return err
	}
	floorPeak := p.Peak()
	fmt.Fprintln(os.Stderr, "measuring the agent: changes beside a hostile namespace")
	figures, err := beside(ctx, client, p)
	for _, percent := range []int{50, 99} {
		figure := p.Ended()
		if err == nil {
			figure = percentile(figures, percent)
		}
		b.rows = append(b.rows, []string{fmt.Sprintf("a change beside a hostile namespace, p%d of %d", percent, changeCount), figure, percentile(floors, percent), map[int]string{50: "", 99: "2 s"}[percent]})
	}
	result := megabytes(p.Peak())
	if ended := p.Ended(); ended != "" {
		result += ", " + ended
	}
	b.rows = append(b.rows, []string{"the agent's peak", result, megabytes(floorPeak), "268 MB"}) // 256 MiB
	if errors.Is(err, hostile.ErrEnded) {
		return nil // the table shows it
	}
	return err
}

// beside stores the hostile tenant's policies, and measures changes while it edits one policy 20 times a second.
func beside(ctx context.Context, client *kubernetes.Clientset, p *pod.Process) ([]time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	editing := make(chan struct{})
	defer func() { cancel(); <-editing }()
	if err := errors.Join(
		store(ctx, client, "amazon", 200, func(int) string { return hostile.Amazon(1) }),
		store(ctx, client, "ports", 50, func(i int) string { return hostile.AmazonPorts(1000, 1000*i) }),
		store(ctx, client, "subsets", 20, func(int) string { return hostile.Subsets(1000, 20) }),
		store(ctx, client, "cidrs", 40, func(i int) string { return hostile.CIDRs(16_000, 16_000*i) }),
		store(ctx, client, "blank", 100, func(int) string { return hostile.Blank(900_000) }),
	); err != nil {
		close(editing)
		return nil, err
	}
	go func() {
		defer close(editing)
		for i := 0; ctx.Err() == nil; i++ {
			edited := hostile.ConfigMap("subsets-0", hostile.Subsets(999, 1+i%20))
			_, _ = client.CoreV1().ConfigMaps(hostileNamespace).Update(ctx, edited, metav1.UpdateOptions{})
			time.Sleep(50 * time.Millisecond)
		}
	}()
	return changes(ctx, client, p, 1+changeCount)
}

func store(ctx context.Context, client *kubernetes.Clientset, name string, n int, policy func(i int) string) error {
	return cluster.Each(n, func(i int) error {
		c := hostile.ConfigMap(fmt.Sprintf("%s-%d", name, i), policy(i))
		_, err := client.CoreV1().ConfigMaps(hostileNamespace).Create(ctx, c, metav1.CreateOptions{})
		return err
	})
}

// changes edits policies of ordinary tenants one by one, with the numbers from first on. It returns the sorted times
// until each was applied. It ends early with a change that takes longer than maxChangeTime.
func changes(ctx context.Context, client *kubernetes.Clientset, p *pod.Process, first int) ([]time.Duration, error) {
	var all []time.Duration
	for i := range changeCount {
		change, cancel := context.WithTimeout(ctx, maxChangeTime)
		took, err := hostile.Change(change, client, first+i, p.Ended)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil { // the rest would take as long
			all = append(all, maxChangeTime)
			break
		}
		if err != nil {
			return nil, err
		}
		all = append(all, took)
	}
	slices.Sort(all)
	return all, nil
}

func percentile(sorted []time.Duration, percent int) string {
	return sorted[(len(sorted)-1)*percent/100].Round(100 * time.Microsecond).String()
}
