package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// webhook is egress-webhook, running.
type webhook struct {
	*process
	address string
	certs   string // the folder of ca.crt, tls.crt and tls.key
}

// runWebhook runs egress-webhook by itself.
func runWebhook(t testing.TB, args ...string) *webhook {
	t.Helper()
	w := &webhook{address: freeAddress(t), certs: t.TempDir()}
	output, err := exec.Command(root+"/scripts/generate-certs.sh", w.certs).CombinedOutput()
	require.NoError(t, err, string(output))
	w.up(t, args...)
	return w
}

// up starts it, at the same address every time.
func (w *webhook) up(t testing.TB, args ...string) {
	t.Helper()
	w.process = start(t, "egress-webhook", append([]string{"--addr", w.address, "--ip-family", "ipv4", "--ranges-file", ranges,
		"--tls-cert-file", w.certs + "/tls.crt", "--tls-key-file", w.certs + "/tls.key"}, args...)...)
}

// startWebhook runs egress-webhook behind the configuration in deploy/, of which only the address is
// changed: there is no Service network here.
func startWebhook(t *testing.T, args ...string) *webhook {
	t.Helper()
	w := runWebhook(t, args...)
	bundle, err := os.ReadFile(w.certs + "/ca.crt")
	require.NoError(t, err)
	patched := kubectl(t, "", "patch", "--local", "-f", root+"/deploy/base/webhook-configuration.yaml", "-o", "yaml", "--type", "json", "-p",
		fmt.Sprintf(`[{"op": "replace", "path": "/webhooks/0/clientConfig", "value": {"url": "https://%s/validate", "caBundle": %q}}]`,
			w.address, base64.StdEncoding.EncodeToString(bundle)))
	kubectl(t, patched, "apply", "-f", "-")
	t.Cleanup(func() { kubectl(t, "", "delete", "-f", root+"/deploy/base/webhook-configuration.yaml") })
	return w
}

// trusting is a client's configuration that trusts the webhook.
func (w *webhook) trusting(t testing.TB) *tls.Config {
	t.Helper()
	bundle, err := os.ReadFile(w.certs + "/ca.crt")
	require.NoError(t, err)
	trusted := x509.NewCertPool()
	require.True(t, trusted.AppendCertsFromPEM(bundle))
	return &tls.Config{RootCAs: trusted}
}

// verdicts counts the reviews that the API server has sent and the webhook has answered, by its own word.
func (w *webhook) verdicts(t testing.TB) (allowed, denied float64) {
	t.Helper()
	for _, operation := range []string{"CREATE", "UPDATE"} {
		allowed += w.metric(t, fmt.Sprintf(`egress_webhook_reviews_total{operation=%q,verdict="allowed"}`, operation))
		denied += w.metric(t, fmt.Sprintf(`egress_webhook_reviews_total{operation=%q,verdict="denied"}`, operation))
	}
	return allowed, denied
}

func (w *webhook) refused(t testing.TB, reason string) float64 {
	t.Helper()
	return w.metric(t, fmt.Sprintf(`egress_webhook_requests_refused_total{reason=%q}`, reason))
}

// review is what an API server asks about a new policy, and may be changed.
func review(t testing.TB, uid, policy string, change ...func(*admissionv1.AdmissionReview)) []byte {
	t.Helper()
	object, err := json.Marshal(corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Name: "egress", Namespace: "tenant-a", Labels: map[string]string{"egress-controller": "managed"}},
		Data:       map[string]string{"policy.json": policy},
	})
	require.NoError(t, err)
	asked := admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: types.UID(uid), Kind: metav1.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}, Operation: admissionv1.Create,
			Namespace: "tenant-a", Name: "egress", Object: runtime.RawExtension{Raw: object},
		},
	}
	for _, f := range change {
		f(&asked)
	}
	body, err := json.Marshal(asked)
	require.NoError(t, err)
	return body
}
