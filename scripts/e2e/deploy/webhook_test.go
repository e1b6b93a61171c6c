package deploy

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"egress-agent/scripts/e2e/harness"
)

// TestConfigurationSkipsUnchangedPolicies registers a webhook that does not run. A request that the configuration does
// not send to it succeeds.
func TestConfigurationSkipsUnchangedPolicies(t *testing.T) {
	const broken = `{"allowedDestinations": [{"name": "x"}]}`
	harness.CreateNamespace(t, "not-sent", "egress-validation=enabled")
	harness.Kubectl(t, harness.PolicyManifest("not-sent", "old", broken), "create", "-f", "-")
	harness.Kubectl(t, harness.PolicyManifest("not-sent", "going", broken), "create", "-f", "-")
	harness.Kubectl(t, "", "patch", "configmap", "-n", "not-sent", "going", "-p", `{"metadata": {"finalizers": ["example.com/held"]}}`)

	patched := harness.Kubectl(t, "", "patch", "--local", "-f", harness.Root+"/deploy/base/webhook-configuration.yaml", "-o", "json", "--type", "json", "-p",
		`[{"op": "replace", "path": "/webhooks/0/clientConfig", "value": {"url": "https://`+harness.FreeAddress(t)+`/validate"}}, {"op": "remove", "path": "/webhooks/1"}]`)
	require.True(t, json.Valid([]byte(patched)))
	harness.Kubectl(t, patched, "apply", "-f", "-")
	t.Cleanup(func() { harness.Kubectl(t, "", "delete", "-f", harness.Root+"/deploy/base/webhook-configuration.yaml") })
	unanswered := func(stdin string, args ...string) bool {
		_, stderr, err := harness.TryKubectl(t, stdin, args...)
		return err != nil && strings.Contains(stderr, `failed calling webhook "policy.egress-controller.io"`)
	}
	harness.Eventually(t, "the API server sends a new policy", func() bool { return unanswered(harness.PolicyManifest("not-sent", "new", broken), "create", "-f", "-") })
	require.True(t, unanswered("", "patch", "configmap", "-n", "not-sent", "old", "-p", `{"data": {"policy.json": "{}"}}`), "the API server sends a change")
	require.True(t, unanswered("", "patch", "configmap", "-n", "not-sent", "old", "-p", `{"data": {"policy.json": null}}`), "the API server sends the removal of the policy")

	harness.Kubectl(t, "", "annotate", "configmap", "-n", "not-sent", "old", "a=b")
	harness.Kubectl(t, "", "patch", "configmap", "-n", "not-sent", "old", "-p", `{"data": {"other": "x"}}`)
	harness.Kubectl(t, "", "delete", "configmap", "-n", "not-sent", "going", "--wait=false")
	harness.Kubectl(t, "", "patch", "configmap", "-n", "not-sent", "going", "-p", `{"data": {"policy.json": "{"}}`)
	harness.Kubectl(t, "", "patch", "configmap", "-n", "not-sent", "going", "-p", `{"metadata": {"finalizers": null}}`)
	harness.Kubectl(t, "", "label", "configmap", "-n", "not-sent", "old", "egress-controller-")
	harness.Kubectl(t, "", "patch", "configmap", "-n", "not-sent", "old", "-p", `{"data": {"policy.json": "{"}}`)
	require.True(t, unanswered("", "label", "configmap", "-n", "not-sent", "old", "egress-controller=managed"), "the API server sends an update that adds the label")
	harness.Kubectl(t, "", "create", "configmap", "-n", "not-sent", "unrelated", "--from-literal=a=b")
}
