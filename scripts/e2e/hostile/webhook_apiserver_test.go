package hostile

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"egress-agent/scripts/e2e/cluster"
	"egress-agent/scripts/e2e/harness"
)

// throughAPIServer are attacks that fit into a ConfigMap. The API server sends them over its own connections.
var throughAPIServer = []struct {
	name    string
	short   bool
	allowed bool
	policy  func(i int) string
}{
	{"1,500 destinations of amazon everywhere", false, false, func(int) string { return Amazon(1500) }},
	{"policies of 5 KB of amazon", true, false, func(i int) string { return AmazonPorts(90, 100*i) }},
	{"1,000 sets of regions of amazon", false, true, func(int) string { return Subsets(1000, 1) }},
	{"300,000 empty destinations", false, false, func(int) string { return Empty(300_000) }},
}

// TestHostileWebhookBehindAPIServer sends them through a real API server with the configuration of deploy/. Meanwhile
// strangers claim memory, and an ordinary tenant stores policies.
func TestHostileWebhookBehindAPIServer(t *testing.T) {
	t.Parallel()
	for i, attack := range throughAPIServer {
		if !attack.short && !harness.RunsAll() {
			continue
		}
		t.Run(attack.name, func(t *testing.T) {
			client, err := cluster.Bare(harness.Control(t).Kubeconfig)
			require.NoError(t, err)
			w := startWebhook(t)
			name := fmt.Sprintf("reviewed-%d", i)
			w.register(t, client, name)
			var ordinary *probes
			w.withstands(t, attack.name+", through the API server", func() {
				ordinary = w.store(t, client, name, attack.policy, attack.allowed)
			})
			ordinary.require(t)
		})
	}
}

// register registers the webhook for a new namespace, by the configuration in deploy/ with another address. It waits
// until the API server uses it.
func (w *webhook) register(t *testing.T, client *kubernetes.Clientset, namespace string) {
	data, err := os.ReadFile(manifest("webhook-configuration.yaml"))
	require.NoError(t, err)
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	require.NoError(t, yaml.Unmarshal(data, configuration))
	certs, err := certificates()
	require.NoError(t, err)
	bundle, err := os.ReadFile(filepath.Join(certs, "ca.crt"))
	require.NoError(t, err)
	url := "https://" + w.Address + "/validate"
	configuration.Webhooks = configuration.Webhooks[:1] // without the entry of platform documents
	configuration.Webhooks[0].ClientConfig = admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: bundle}
	configurations := client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	_, err = configurations.Create(t.Context(), configuration, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, configurations.Delete(context.Background(), configuration.Name, metav1.DeleteOptions{}))
	})
	_, err = client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{Name: namespace, Labels: map[string]string{"egress-validation": "enabled"}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, client.CoreV1().Namespaces().Delete(context.Background(), namespace, metav1.DeleteOptions{}))
	})
	require.Eventually(t, func() bool {
		_, err := client.CoreV1().ConfigMaps(namespace).Create(t.Context(), ConfigMap("probe", "{}"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil && !apierrors.IsInternalError(err)
	}, harness.Timeout, 50*time.Millisecond, "the API server does not use the webhook")
}

// store lets a hostile tenant store 40 policies, eight at a time, while strangers claim memory. It returns the reviews
// of an ordinary tenant meanwhile.
func (w *webhook) store(t *testing.T, client *kubernetes.Clientset, namespace string, policy func(i int) string, allowed bool) *probes {
	ordinary, done := &probes{}, make(chan struct{})
	go func() {
		defer close(done)
		claims(t, w)
	}()
	go func() {
		_ = cluster.Each(40, func(i int) error {
			_, err := client.CoreV1().ConfigMaps(namespace).Create(t.Context(), ConfigMap(fmt.Sprintf("hostile-%d", i), policy(i)), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			if err == nil && !allowed {
				t.Errorf("policy %d was stored", i)
			}
			return nil
		})
	}()
	for i := 0; ; i++ {
		create := func(namespace string) func() error {
			return func() error {
				_, err := client.CoreV1().ConfigMaps(namespace).Create(t.Context(), ConfigMap(fmt.Sprintf("ordinary-%d", i), Small(i)), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
				return err
			}
		}
		ordinary.add(create(namespace), create(metav1.NamespaceDefault)) // the webhook reviews only the first namespace
		select {
		case <-done:
			return ordinary
		case <-time.After(probeEvery):
		}
	}
}
