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

// agent measures changes of ordinary tenants. For the floor there is no hostile namespace. For the figure a hostile
// tenant stores the worst policies in a hostile namespace, and edits one of these policies again and again.
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
	command := exec.CommandContext(ctx, filepath.Join(control.Programs, "kubectl"),
		"--kubeconfig", control.Kubeconfig, "apply", "-f", filepath.Join(b.base, "agent-rbac.yaml"))
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, output)
	}
	client, err := cluster.Bare(control.Kubeconfig)
	if err != nil {
		return err
	}
	err = errors.Join(hostile.CreateTenants(ctx, client), hostile.CreateNamespace(ctx, client, hostileNamespace))
	if err != nil {
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
	program, log := filepath.Join(b.programs, "egress-agent"), filepath.Join(b.dir, "agent.log")
	p, err := hostile.StartAgent(container, program, kubeconfig, b.ranges, log)
	if err != nil {
		return err
	}
	defer p.Kill()
	fmt.Fprintln(os.Stderr, "measuring the agent: changes without a hostile namespace")
	floors, err := measureChanges(ctx, client, p, 1)
	if err != nil {
		return err
	}
	floorPeak := p.Peak()
	fmt.Fprintln(os.Stderr, "measuring the agent: changes beside a hostile namespace")
	figures, err := measureBesideHostile(ctx, client, p)
	for _, percent := range []int{50, 99} {
		figure := p.Ended()
		if err == nil {
			figure = percentile(figures, percent)
		}
		limit := map[int]string{50: "", 99: "2 s"}[percent]
		b.rows = append(b.rows, []string{
			fmt.Sprintf("a change beside a hostile namespace, p%d of %d", percent, changeCount), figure, percentile(floors, percent), limit,
		})
	}
	result := megabytes(p.Peak())
	if ended := p.Ended(); ended != "" {
		result += ", " + ended
	}
	b.rows = append(b.rows, []string{"the agent's peak", result, megabytes(floorPeak), "268 MB"}) // 256 MiB
	if errors.Is(err, hostile.ErrEnded) {
		return nil // the table shows that the agent ended
	}
	return err
}

// measureBesideHostile stores the hostile tenant's policies, and edits one of them 20 times a second. Meanwhile it
// measures changes of ordinary tenants.
func measureBesideHostile(ctx context.Context, client *kubernetes.Clientset, p *pod.Process) ([]time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	editsDone := make(chan struct{})
	defer func() { cancel(); <-editsDone }()
	if err := errors.Join(
		store(ctx, client, "amazon", 200, func(int) string { return hostile.Amazon(1) }),
		store(ctx, client, "ports", 50, func(i int) string { return hostile.AmazonPorts(1000, 1000*i) }),
		store(ctx, client, "subsets", 20, func(int) string { return hostile.Subsets(1000, 20) }),
		store(ctx, client, "cidrs", 40, func(i int) string { return hostile.CIDRs(16_000, 16_000*i) }),
		store(ctx, client, "blank", 100, func(int) string { return hostile.Blank(900_000) }),
	); err != nil {
		close(editsDone)
		return nil, err
	}
	go func() {
		defer close(editsDone)
		for i := 0; ctx.Err() == nil; i++ {
			edited := hostile.ConfigMap("subsets-0", hostile.Subsets(999, 1+i%20))
			_, _ = client.CoreV1().ConfigMaps(hostileNamespace).Update(ctx, edited, metav1.UpdateOptions{})
			time.Sleep(50 * time.Millisecond)
		}
	}()
	return measureChanges(ctx, client, p, 1+changeCount)
}

// store creates count policies of the hostile tenant, named NAME-0, NAME-1 and so on.
func store(ctx context.Context, client *kubernetes.Clientset, name string, count int, policy func(i int) string) error {
	return cluster.Each(count, func(i int) error {
		c := hostile.ConfigMap(fmt.Sprintf("%s-%d", name, i), policy(i))
		_, err := client.CoreV1().ConfigMaps(hostileNamespace).Create(ctx, c, metav1.CreateOptions{})
		return err
	})
}

// measureChanges edits policies of ordinary tenants one by one. The changes have the numbers from first on. It returns
// the sorted times until the agent applied each change. If a change takes longer than maxChangeTime, it is the last.
func measureChanges(ctx context.Context, client *kubernetes.Clientset, p *pod.Process, first int) ([]time.Duration, error) {
	var times []time.Duration
	for i := range changeCount {
		changeCtx, cancel := context.WithTimeout(ctx, maxChangeTime)
		took, err := hostile.Change(changeCtx, client, first+i, p.Ended)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil { // further changes would take as long
			times = append(times, maxChangeTime)
			break
		}
		if err != nil {
			return nil, err
		}
		times = append(times, took)
	}
	slices.Sort(times)
	return times, nil
}

func percentile(sorted []time.Duration, percent int) string {
	return sorted[(len(sorted)-1)*percent/100].Round(100 * time.Microsecond).String()
}
