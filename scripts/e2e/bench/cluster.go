package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"egress-agent/scripts/e2e/cluster"
	"egress-agent/scripts/e2e/measure"
)

// bench has the state that the measurements share.
type bench struct {
	size       size
	control    *cluster.Cluster
	client     *kubernetes.Clientset // has the administrator's rights
	bare       *kubernetes.Clientset // measures floors; it has the agent's account, so that the API server treats both alike
	agent      string                // the file of the program
	kubeconfig string                // the file of the agent's kubeconfig
	ranges     string                // the file of AWS's document
	rows       [][]string            // of the table to print
	next       int                   // the number of the next policy
	restarted  figures               // of the restart with size.many policies
}

func newBench(ctx context.Context, control *cluster.Cluster, agent, ranges string, s size) (*bench, error) {
	client, err := cluster.Bare(control.Kubeconfig)
	if err != nil {
		return nil, err
	}
	command := exec.CommandContext(ctx, filepath.Join(control.Programs, "kubectl"),
		"--kubeconfig", control.Kubeconfig, "apply", "-f", "deploy/base/agent-rbac.yaml")
	if output, err := command.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, output)
	}
	kubeconfig, err := control.ServiceAccountKubeconfig(ctx, "egress-system", "egress-agent")
	if err != nil {
		return nil, err
	}
	bare, err := cluster.Bare(kubeconfig)
	if err != nil {
		return nil, err
	}
	b := &bench{size: s, control: control, client: client, bare: bare, agent: agent, kubeconfig: kubeconfig, ranges: ranges}
	return b, cluster.Each(s.namespaces, func(i int) error {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: b.namespace(i)}}
		_, err := client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{})
		return err
	})
}

func (b *bench) namespace(i int) string { return fmt.Sprintf("tenant-%d", i%b.size.namespaces) }

// policy returns the document of policy i: S3 in us-east-1, and a CIDR that no other policy has.
func policy(i int) string {
	return fmt.Sprintf(`{"defaultAction": "deny", "allowedDestinations": [
  {"name": "s3", "awsService": "s3", "regions": ["us-east-1"], "ports": [443]},
  {"name": "db", "cidr": "10.%d.%d.0/24", "ports": [5432]}]}`, i>>8&255, i&255)
}

func configMap(name string, i int) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"egress-controller": "managed"}},
		Data:       map[string]string{"policy.json": policy(i)},
	}
}

// createPolicies creates the ConfigMaps first to last-1.
func (b *bench) createPolicies(ctx context.Context, first, last int) error {
	return cluster.Each(last-first, func(i int) error {
		i += first
		policy := configMap(fmt.Sprintf("policy-%d", i), i)
		_, err := b.client.CoreV1().ConfigMaps(b.namespace(i)).Create(ctx, policy, metav1.CreateOptions{})
		return err
	})
}

// process is a running agent.
type process struct {
	command *exec.Cmd
	health  string // the address of /readyz and /metrics
	started time.Time
}

func (b *bench) start(args ...string) (*process, error) {
	health, err := measure.FreeAddress()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(b.control.Dir, "agent.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &process{health: health, started: time.Now()}
	p.command = exec.Command(b.agent, append([]string{
		"--kubeconfig", b.kubeconfig, "--ranges-file", b.ranges, "--ip-family", "ipv4", "--http-addr", health,
		"--leader-elect=false", "--log-level", "warn"}, args...)...)
	p.command.Stderr = log
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return p, p.command.Start()
}

func (p *process) stop() error {
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return p.command.Wait()
}

// metric returns the value of a metric. The value of a histogram is its number of observations.
func (p *process) metric(name string) (float64, error) {
	response, err := http.Get("http://" + p.health + "/metrics")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(response.Body)
	if err != nil {
		return 0, err
	}
	family := families[name]
	if family == nil {
		return 0, fmt.Errorf("no metric %s", name)
	}
	m := family.GetMetric()[0] // if there are several, the first by labels
	return m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount()), nil
}

// isReady reports whether the agent is ready. A call costs the agent less CPU time than a call of metric.
func (p *process) isReady() bool {
	response, err := http.Get("http://" + p.health + "/readyz")
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// await calls isDone until it returns true. It pauses 10 ms between two calls, because each call takes CPU time from
// the agent. goal is the text of the condition in the error.
func await(ctx context.Context, goal string, isDone func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for !isDone() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", goal, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// watchCreated returns a channel of the NetworkPolicies that are created from now on, each with the time when the watch
// delivered it. stop ends the watch.
func (b *bench) watchCreated(ctx context.Context) (created <-chan networkPolicy, stop func(), err error) {
	list, err := b.client.NetworkingV1().NetworkPolicies("").List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return nil, nil, err
	}
	watcher, err := b.client.NetworkingV1().NetworkPolicies("").Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		return nil, nil, err
	}
	delivered := make(chan networkPolicy, 100_000)
	go func() {
		defer close(delivered)
		for event := range watcher.ResultChan() {
			if policy, ok := event.Object.(*networkingv1.NetworkPolicy); ok && event.Type == watch.Added {
				delivered <- networkPolicy{policy, time.Now()}
			}
		}
	}()
	return delivered, watcher.Stop, nil
}

type networkPolicy struct {
	*networkingv1.NetworkPolicy
	deliveredAt time.Time
}

// awaitNth waits for n NetworkPolicies, and returns the last of these.
func awaitNth(ctx context.Context, created <-chan networkPolicy, n int) (last networkPolicy, err error) {
	for range n {
		select {
		case p, ok := <-created:
			if !ok {
				return last, fmt.Errorf("the watch ended")
			}
			last = p
		case <-ctx.Done():
			return last, ctx.Err()
		case <-time.After(time.Minute):
			return last, fmt.Errorf("no NetworkPolicy was created for a minute")
		}
	}
	return last, nil
}
