package deployed

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	tenants = 50 // policies that the agent must not change
	clients = 8  // number of clients that ask for reviews
)

// withoutVerdict are the first failures of underLoad.
var withoutVerdict []string

// underLoad replaces the programs and the certificate while the API server asks for reviews all the time. Each review
// must get its verdict, and the agent must write no NetworkPolicy.
func underLoad(t *testing.T, client *kubernetes.Clientset) {
	do(t, "kubectl create namespace load; kubectl label namespace load egress-validation=enabled")
	for i := range tenants {
		_, err := client.CoreV1().ConfigMaps("load").Create(t.Context(), policy(fmt.Sprintf("policy-%d", i), i), metav1.CreateOptions{})
		require.NoError(t, err)
	}
	do(t, `make images IMG_AGENT=$IMG_AGENT-next IMG_WEBHOOK=$IMG_WEBHOOK-next; `+os.Getenv("LOAD")+` $IMG_AGENT-next $IMG_WEBHOOK-next`)
	var before map[string]string
	require.Eventually(t, func() bool { before = policies(t, client); return len(before) == tenants+1 }, soon, 100*time.Millisecond)

	const drained = 12 * time.Second // a webhook that stops drains for ten
	for _, step := range []struct {
		name, command string
		late          time.Duration // how long failures may come after the command
	}{
		{"update the webhook", "make webhook-deploy IMG_WEBHOOK=$IMG_WEBHOOK-next", drained},
		{"update the agent", "make deploy OVERLAYS=restricted-internet IMG_AGENT=$IMG_AGENT-next", 5 * time.Second},
		{"do not replace the certificate", "make certs", time.Second},
		{"rotate the certificate", "make certs ROTATE=1", drained},
		{"rotate it again", "make certs ROTATE=1", drained},
		{"restart", "make restart", drained},
		{"kill a webhook", "kubectl delete $(kubectl get pods -n " + ours + " -l app.kubernetes.io/name=egress-webhook -o name | head -n 1) -n " + ours, time.Second}, // kubectl waits for its end
		{"apply the manifests again", "kubectl apply -f bin/deploy/manifests.yaml", time.Second},
	} {
		ok := t.Run(step.name, func(t *testing.T) {
			stop := load(t, client)
			time.Sleep(time.Second)
			do(t, step.command)
			time.Sleep(step.late)
			reviews, failures := stop()
			t.Logf("%d reviews, %d of them without a verdict", reviews, len(failures))
			failures = failures[:min(len(failures), 10)]
			withoutVerdict = append(withoutVerdict, failures...)
			require.Greater(t, reviews, 100, "there was load")
			require.Empty(t, failures)
			require.Equal(t, before, policies(t, client), "no NetworkPolicy was written")
		})
		if !ok {
			return
		}
	}
}

// load asks for reviews until stop is called, half of them of an invalid policy. A review without the right verdict is
// a failure.
func load(t *testing.T, client *kubernetes.Clientset) (stop func() (reviews int, failures []string)) {
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	var count atomic.Int64
	var mu sync.Mutex
	var failures []string
	for worker := range clients {
		running.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if err := review(ctx, client, i%2 == 0, worker); err != nil && ctx.Err() == nil {
					mu.Lock()
					failures = append(failures, time.Now().Format(time.TimeOnly)+" "+err.Error())
					mu.Unlock()
				}
				count.Add(1)
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	return func() (int, []string) {
		cancel()
		running.Wait()
		return int(count.Load()), failures
	}
}

func review(ctx context.Context, client *kubernetes.Clientset, good bool, n int) error {
	configMap := policy("egress-load-", n)
	configMap.GenerateName, configMap.Name = configMap.Name, ""
	if !good {
		configMap.Data["policy.json"] = `{"allowedDestinations": [{"name": "x", "cidr": "10.0.0.0/99"}]}`
	}
	_, err := client.CoreV1().ConfigMaps("load").Create(ctx, configMap, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	const denial = `admission webhook "policy.egress-controller.io" denied the request: Policy validation failed: Invalid CIDR format: 10.0.0.0/99 (allowedDestinations[0].cidr)`
	switch {
	case good && err != nil:
		return fmt.Errorf("a valid policy was denied: %w", err)
	case !good && err == nil:
		return fmt.Errorf("an invalid policy was allowed")
	case !good && err.Error() != denial:
		return fmt.Errorf("an invalid policy was denied for another reason: %w", err)
	}
	return nil
}

// policy returns a policy with S3 and a CIDR that no other policy has.
func policy(name string, i int) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"egress-controller": "managed"}},
		Data: map[string]string{"policy.json": fmt.Sprintf(`{"allowedDestinations": [
			{"name": "s3", "awsService": "s3", "regions": ["us-east-1"], "ports": [443]}, {"name": "db", "cidr": "10.0.%d.0/24", "ports": [5432]}]}`, i)},
	}
}
