package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"egress-agent/scripts/e2e/cluster"
	"egress-agent/scripts/e2e/harness"
	"egress-agent/scripts/e2e/measure"
)

const (
	benchNamespaces = 100
	benchPolicies   = 2000
	benchAffected   = 40
)

// BenchmarkRefresh serves AWS's real document with one more prefix in S3 us-east-1, in a cluster of 2,000 policies of
// which 40 name that service. It measures the time from the document's last byte until a watch delivers the last
// NetworkPolicy. The floor is a bare client that updates 40 NetworkPolicies of the same size with the same concurrency.
// The memory is the peak resident size above the resident size before.
func BenchmarkRefresh(b *testing.B) {
	dir := os.Getenv("IP_RANGES_DATA")
	if dir == "" {
		b.Skip("IP_RANGES_DATA is not set: it names a folder with AWS's ip-ranges.json")
	}
	data, err := os.ReadFile(filepath.Join(dir, "ip-ranges.json"))
	require.NoError(b, err)
	var d map[string]any
	require.NoError(b, json.Unmarshal(data, &d))
	first, err := strconv.ParseInt(d["syncToken"].(string), 10, 64)
	require.NoError(b, err)

	client, err := cluster.Bare(harness.Control(b).Kubeconfig)
	require.NoError(b, err)
	s := harness.StartRangesServer(b)
	publish := func(n int) (servedAt func() time.Time) {
		var mu sync.Mutex
		var at time.Time // when the last byte was sent, of the first request
		next := harness.ServeDocument(documentWithPrefixes(b, d, first, n), time.Unix(first+int64(n), 0))
		s.SetAnswer(func(w http.ResponseWriter, r *http.Request) {
			next(&throttledWriter{w}, r)
			mu.Lock()
			defer mu.Unlock()
			if at.IsZero() {
				at = time.Now()
			}
		})
		return func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return at
		}
	}
	publish(0)
	populate(b, client)
	b.Setenv("SSL_CERT_FILE", s.CAFile)
	agent := harness.StartAgent(b, "--ranges-url", s.URL(), "--refresh-interval", "1s")
	var specs []networkingv1.NetworkPolicySpec
	require.Eventually(b, func() bool {
		list, err := client.NetworkingV1().NetworkPolicies("").List(b.Context(), metav1.ListOptions{})
		require.NoError(b, err)
		specs = nil
		written := 0
		for _, policy := range list.Items {
			if strings.HasPrefix(policy.Namespace, "bench-") {
				written++
			}
			if policy.Name == "affected" {
				specs = append(specs, policy.Spec)
			}
		}
		return written == benchPolicies && len(specs) == benchAffected
	}, 2*time.Minute, 100*time.Millisecond)
	floor := createUnmanaged(b, client, specs[0])
	changed := watchAll(b, client)

	var refresh, bare time.Duration
	var peak int64
	n, pid := 0, agent.Command.Process.Pid
	b.ResetTimer()
	for b.Loop() {
		n++
		time.Sleep(2 * time.Second) // idle
		idle, err := measure.Memory(pid, "VmRSS")
		require.NoError(b, err)
		require.NoError(b, measure.ResetPeak(pid))
		served := publish(n)
		last := changed(benchAffected, "affected")
		highest, err := measure.Memory(pid, "VmHWM")
		require.NoError(b, err)
		peak = max(peak, highest-idle)
		refresh += last.Sub(served())

		started := time.Now()
		updateAll(b, client, floor, n)
		bare += changed(benchAffected, "floor").Sub(started)
	}
	b.ReportMetric(0, "ns/op") // it mostly waits
	b.ReportMetric(float64(bare.Microseconds())/float64(n)/1e3, "ms-floor")
	b.ReportMetric(float64(refresh.Microseconds())/float64(n)/1e3, "ms-refresh")
	b.ReportMetric(float64(refresh)/float64(bare), "x-floor(at-most-1.5)")
	b.ReportMetric(float64(peak)/1e6, "MB-above-idle(at-most-25)")
}

// throttledWriter sends at 100 Mbit/s, as a network would. On loopback the server would send the last byte before the
// agent reads the first.
type throttledWriter struct{ http.ResponseWriter }

func (p *throttledWriter) Write(data []byte) (int, error) {
	const chunk, pause = 62500, 5 * time.Millisecond
	start := time.Now()
	for sent := 0; sent < len(data); {
		time.Sleep(time.Until(start.Add(time.Duration(sent/chunk) * pause)))
		n, err := p.ResponseWriter.Write(data[sent:min(sent+chunk, len(data))])
		if err == nil {
			err = http.NewResponseController(p.ResponseWriter).Flush()
		}
		if err != nil {
			return sent, err
		}
		sent += n
	}
	return len(data), nil
}

// documentWithPrefixes returns AWS's document with n more prefixes in S3 us-east-1. No two of them aggregate.
func documentWithPrefixes(b *testing.B, d map[string]any, first int64, n int) []byte {
	more := make(map[string]any)
	for field, value := range d {
		more[field] = value
	}
	more["syncToken"] = strconv.FormatInt(first+int64(n), 10)
	rows := slices.Clone(d["prefixes"].([]any))
	for i := range n {
		rows = append(rows, map[string]string{"ip_prefix": fmt.Sprintf("198.18.%d.0/24", 2*i), "region": "us-east-1", "service": "S3", "network_border_group": "us-east-1"})
	}
	more["prefixes"] = rows
	data, err := json.Marshal(more)
	require.NoError(b, err)
	return data
}

func requireEach(b *testing.B, n int, do func(i int) error) {
	require.NoError(b, cluster.Each(n, do))
}

func populate(b *testing.B, client *kubernetes.Clientset) {
	name := func(i int) string { return fmt.Sprintf("bench-%d", i%benchNamespaces) }
	requireEach(b, benchNamespaces, func(i int) error {
		_, err := client.CoreV1().Namespaces().Create(b.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name(i)}}, metav1.CreateOptions{})
		return err
	})
	b.Cleanup(func() {
		requireEach(b, benchNamespaces, func(i int) error {
			return client.CoreV1().Namespaces().Delete(context.Background(), name(i), metav1.DeleteOptions{})
		})
	})
	requireEach(b, benchPolicies, func(i int) error {
		configMap := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("policy-%d", i), Labels: map[string]string{"egress-controller": "managed"}}}
		configMap.Data = map[string]string{"policy.json": strings.Replace(harness.S3Policy, `"s3"`, `"dynamodb"`, 2)}
		if i < benchAffected {
			configMap.Name = "affected"
			configMap.Data["policy.json"] = harness.S3Policy
		}
		_, err := client.CoreV1().ConfigMaps(name(i)).Create(b.Context(), configMap, metav1.CreateOptions{})
		return err
	})
}

// createUnmanaged creates NetworkPolicies that the agent does not manage.
func createUnmanaged(b *testing.B, client *kubernetes.Clientset, spec networkingv1.NetworkPolicySpec) []*networkingv1.NetworkPolicy {
	policies := make([]*networkingv1.NetworkPolicy, benchAffected)
	requireEach(b, benchAffected, func(i int) (err error) {
		policies[i], err = client.NetworkingV1().NetworkPolicies(fmt.Sprintf("bench-%d", benchNamespaces-1-i)).Create(b.Context(),
			&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "floor"}, Spec: spec}, metav1.CreateOptions{})
		return err
	})
	return policies
}

func updateAll(b *testing.B, client *kubernetes.Clientset, policies []*networkingv1.NetworkPolicy, n int) {
	requireEach(b, len(policies), func(i int) error {
		desired := policies[i].DeepCopy()
		desired.Annotations = map[string]string{"n": strconv.Itoa(n)}
		rule := &desired.Spec.Egress[len(desired.Spec.Egress)-1]
		rule.To = append(rule.To, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: fmt.Sprintf("198.18.%d.0/24", 2*n)}})
		updated, err := client.NetworkingV1().NetworkPolicies(desired.Namespace).Update(b.Context(), desired, metav1.UpdateOptions{})
		if err == nil {
			policies[i] = updated
		}
		return err
	})
}

// watchAll returns a function that waits for n changes of NetworkPolicies with a name, and returns when the last came.
func watchAll(b *testing.B, client *kubernetes.Clientset) func(n int, name string) time.Time {
	list, err := client.NetworkingV1().NetworkPolicies("").List(b.Context(), metav1.ListOptions{})
	require.NoError(b, err)
	watcher, err := client.NetworkingV1().NetworkPolicies("").Watch(b.Context(), metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	require.NoError(b, err)
	b.Cleanup(watcher.Stop)
	return func(n int, name string) time.Time {
		timeout := time.After(harness.Timeout)
		for {
			select {
			case event := <-watcher.ResultChan():
				if policy, ok := event.Object.(*networkingv1.NetworkPolicy); ok && event.Type == watch.Modified && policy.Name == name {
					n--
				}
				if n == 0 {
					return time.Now()
				}
			case <-timeout:
				require.FailNow(b, "not all changed", "%d more", n)
			}
		}
	}
}
