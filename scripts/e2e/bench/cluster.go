package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

// start runs an agent with the flags of all measurements, followed by args.
func (b *bench) start(args ...string) (*measure.Agent, error) {
	return measure.StartAgent(b.control.Dir, b.agent, b.kubeconfig, b.ranges, args...)
}

// awaitNth waits for n NetworkPolicies, and returns the last of these.
func awaitNth(ctx context.Context, created <-chan cluster.Delivered, n int) (last cluster.Delivered, err error) {
	all, err := cluster.AwaitCreated(ctx, created, n, time.Minute)
	if len(all) > 0 {
		last = all[len(all)-1]
	}
	return last, err
}
