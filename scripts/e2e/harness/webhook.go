package harness

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// AwaitRefusals waits until the API server denies an invalid policy. Before that, the API server does not use the
// webhook's configuration yet.
func AwaitRefusals(t *testing.T, namespace string) {
	t.Helper()
	require.Eventually(t, func() bool {
		_, _, err := TryKubectl(t, PolicyManifest(namespace, "probe", InvalidPolicy), "apply", "--dry-run=server", "-f", "-")
		return err != nil
	}, Timeout, 100*time.Millisecond, "the API server denies no invalid policy")
}

// Post sends a review and returns the HTTP status of the answer.
func (w *Webhook) Post(t testing.TB, client *http.Client, body []byte) int {
	t.Helper()
	response, err := client.Post("https://"+w.Address+"/validate", "application/json", bytes.NewReader(body))
	require.NoError(t, err)
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	require.NoError(t, err)
	return response.StatusCode
}

// Dial opens a TLS connection for HTTP/1.1.
func (w *Webhook) Dial(t testing.TB) *tls.Conn {
	t.Helper()
	connection, err := tls.Dial("tcp", w.Address, w.ClientTLS(t))
	require.NoError(t, err)
	t.Cleanup(func() { connection.Close() })
	require.NoError(t, connection.SetDeadline(time.Now().Add(Timeout)))
	return connection
}

// Webhook is a running egress-webhook.
type Webhook struct {
	*Process
	Address  string
	CertsDir string // holds ca.crt, tls.crt and tls.key
}

// StartWebhook runs egress-webhook with a new certificate. No API server sends reviews to this webhook.
func StartWebhook(t testing.TB, args ...string) *Webhook {
	t.Helper()
	w := &Webhook{Address: FreeAddress(t), CertsDir: t.TempDir()}
	output, err := exec.Command(Root+"/scripts/generate-certs.sh", w.CertsDir).CombinedOutput()
	require.NoError(t, err, string(output))
	w.Start(t, args...)
	return w
}

// Start runs the program at w.Address. A test may call it again after Stop. When the test ends, the program gets SIGTERM.
// It then drains for ten seconds, so Run waits for it.
func (w *Webhook) Start(t testing.TB, args ...string) {
	t.Helper()
	w.Process = StartProcess(t, "egress-webhook", append([]string{"--addr", w.Address, "--ip-family", "ipv4", "--ranges-file", RangesFile,
		"--tls-cert-file", w.CertsDir + "/tls.crt", "--tls-key-file", w.CertsDir + "/tls.key"}, args...)...)
	started := w.Process
	t.Cleanup(func() {
		if !started.Ended {
			started.Ended = true
			require.NoError(t, started.Command.Process.Signal(syscall.SIGTERM))
			draining.mu.Lock()
			defer draining.mu.Unlock()
			draining.webhooks = append(draining.webhooks, started)
		}
	})
}

// draining has the webhooks of tests that have ended.
var draining struct {
	mu       sync.Mutex
	webhooks []*Process
}

// awaitDrained waits until they end. A clean stop has exit status 0.
func awaitDrained() (err error) {
	for _, p := range draining.webhooks {
		if failed := p.Command.Wait(); failed != nil {
			err = errors.Join(err, fmt.Errorf("stop egress-webhook: %w", failed))
		}
	}
	return err
}

// StartRegisteredWebhook runs egress-webhook and applies the configuration in deploy/. In the configuration it replaces
// the Service by the address of the process, because the cluster has no Service network.
func StartRegisteredWebhook(t *testing.T, args ...string) *Webhook {
	t.Helper()
	w := StartWebhook(t, args...)
	bundle, err := os.ReadFile(w.CertsDir + "/ca.crt")
	require.NoError(t, err)
	client := fmt.Sprintf(`{"url": "https://%s/validate", "caBundle": %q}`, w.Address, base64.StdEncoding.EncodeToString(bundle))
	patched := Kubectl(t, "", "patch", "--local", "-f", Root+"/deploy/base/webhook-configuration.yaml", "-o", "yaml", "--type", "json", "-p",
		fmt.Sprintf(`[{"op": "replace", "path": "/webhooks/0/clientConfig", "value": %[1]s}, {"op": "replace", "path": "/webhooks/1/clientConfig", "value": %[1]s}]`, client))
	Kubectl(t, patched, "apply", "-f", "-")
	t.Cleanup(func() { Kubectl(t, "", "delete", "-f", Root+"/deploy/base/webhook-configuration.yaml") })
	return w
}

// ClientTLS returns a client configuration that trusts the webhook's certificate.
func (w *Webhook) ClientTLS(t testing.TB) *tls.Config {
	t.Helper()
	bundle, err := os.ReadFile(w.CertsDir + "/ca.crt")
	require.NoError(t, err)
	trusted := x509.NewCertPool()
	require.True(t, trusted.AppendCertsFromPEM(bundle))
	return &tls.Config{RootCAs: trusted}
}

// VerdictCounts returns how many reviews the webhook has allowed and denied, from its metrics.
func (w *Webhook) VerdictCounts(t testing.TB) (allowed, denied float64) {
	t.Helper()
	for _, operation := range []string{"CREATE", "UPDATE"} {
		allowed += w.Metric(t, fmt.Sprintf(`egress_webhook_reviews_total{operation=%q,verdict="allowed"}`, operation))
		denied += w.Metric(t, fmt.Sprintf(`egress_webhook_reviews_total{operation=%q,verdict="denied"}`, operation))
	}
	return allowed, denied
}

// RefusedCount returns how many requests the webhook has refused for a reason, from its metrics.
func (w *Webhook) RefusedCount(t testing.TB, reason string) float64 {
	t.Helper()
	return w.Metric(t, fmt.Sprintf(`egress_webhook_requests_refused_total{reason=%q}`, reason))
}
