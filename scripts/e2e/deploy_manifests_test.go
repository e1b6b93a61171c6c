package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// foreign are the kinds of others that the overlays have. Their CRDs are not installed here: these objects are
// left out of the dry run.
var foreign = map[string][]string{
	"cert-manager": {"Certificate egress-webhook", "Certificate egress-webhook-ca", "Issuer egress-webhook-ca", "Issuer egress-webhook-selfsigned"},
	"prometheus":   {"PrometheusRule egress-control", "ServiceMonitor egress-control"},
}

// TestManifests has the API server itself judge what deploy/ and each overlay would apply.
func TestManifests(t *testing.T) {
	stdout, stderr, err := tryKubectl("", "apply", "--dry-run=server", "-k", root+"/deploy")
	require.NoError(t, err, stderr)
	require.Empty(t, stderr, "no warning: Pod Security is content, too")
	require.Equal(t, 16, strings.Count(stdout, "(server dry run)"))

	base := render(t, root+"/deploy")
	require.Len(t, base, 16)
	for _, deployment := range deployments(t, base) {
		container := deployment.Spec.Template.Spec.Containers[0]
		limit := container.Resources.Limits.Memory().Value()
		require.Equal(t, "GOMEMLIMIT", container.Env[0].Name)
		soft := bytesOf(t, container.Env[0].Value)
		require.InDelta(t, 0.9, float64(soft)/float64(limit), 0.01, "GOMEMLIMIT of %s is nine tenths of its limit", deployment.Name)
	}

	overlays, err := os.ReadDir(root + "/deploy/overlays")
	require.NoError(t, err)
	components, err := os.ReadDir(root + "/deploy/components")
	require.NoError(t, err)
	require.Len(t, overlays, len(components))
	for i, overlay := range overlays {
		t.Run(overlay.Name(), func(t *testing.T) {
			require.Equal(t, components[i].Name(), overlay.Name())
			all := render(t, filepath.Join(root, "deploy/overlays", overlay.Name()))
			require.Greater(t, len(all)+len(deployments(t, all)), len(base))
			var left, out []string
			for _, object := range all {
				if strings.HasSuffix(object.GroupVersionKind().Group, "cert-manager.io") || strings.HasSuffix(object.GroupVersionKind().Group, "coreos.com") {
					out = append(out, object.GetKind()+" "+object.GetName())
					continue
				}
				text, err := yaml.Marshal(object)
				require.NoError(t, err)
				left = append(left, string(text))
			}
			slices.Sort(out)
			require.Equal(t, foreign[overlay.Name()], out)
			_, stderr, err := tryKubectl(strings.Join(left, "---\n"), "apply", "--dry-run=server", "-f", "-")
			require.NoError(t, err, stderr)
			require.Empty(t, stderr)
		})
	}
}

// render returns the objects of a kustomization. All say what they are of.
func render(t *testing.T, dir string) []*unstructured.Unstructured {
	var objects []*unstructured.Unstructured
	for _, document := range strings.Split(kubectl(t, "", "kustomize", dir), "\n---\n") {
		object := &unstructured.Unstructured{}
		require.NoError(t, yaml.Unmarshal([]byte(document), object))
		require.Equal(t, "egress-control", object.GetLabels()["app.kubernetes.io/part-of"], document)
		require.Contains(t, []string{"egress-agent", "egress-webhook", "egress-control"}, object.GetLabels()["app.kubernetes.io/name"], document)
		objects = append(objects, object)
	}
	return objects
}

func deployments(t *testing.T, objects []*unstructured.Unstructured) []*appsv1.Deployment {
	var found []*appsv1.Deployment
	for _, object := range objects {
		if object.GetKind() == "Deployment" {
			deployment := &appsv1.Deployment{}
			require.NoError(t, runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, deployment))
			found = append(found, deployment)
		}
	}
	require.Len(t, found, 2)
	return found
}

// TestWebhookNotSent stops short of the webhook: nobody is there. What its configuration does not send passes.
func TestWebhookNotSent(t *testing.T) {
	const broken = `{"allowedDestinations": [{"name": "x"}]}`
	namespace(t, "not-sent", "egress-validation=enabled")
	kubectl(t, manifest("not-sent", "old", broken), "create", "-f", "-")
	kubectl(t, manifest("not-sent", "going", broken), "create", "-f", "-")
	kubectl(t, "", "patch", "configmap", "-n", "not-sent", "going", "-p", `{"metadata": {"finalizers": ["example.com/held"]}}`)

	patched := kubectl(t, "", "patch", "--local", "-f", root+"/deploy/base/webhook-configuration.yaml", "-o", "json", "--type", "json", "-p",
		`[{"op": "replace", "path": "/webhooks/0/clientConfig", "value": {"url": "https://`+freeAddress(t)+`/validate"}}]`)
	require.True(t, json.Valid([]byte(patched)))
	kubectl(t, patched, "apply", "-f", "-")
	t.Cleanup(func() { kubectl(t, "", "delete", "-f", root+"/deploy/base/webhook-configuration.yaml") })
	unanswered := func(stdin string, args ...string) bool {
		_, stderr, err := tryKubectl(stdin, args...)
		return err != nil && strings.Contains(stderr, `failed calling webhook "policy.egress-controller.io"`)
	}
	eventually(t, "a new policy is sent", func() bool { return unanswered(manifest("not-sent", "new", broken), "create", "-f", "-") })
	require.True(t, unanswered("", "patch", "configmap", "-n", "not-sent", "old", "-p", `{"data": {"policy.json": "{}"}}`), "a change is sent")
	require.True(t, unanswered("", "patch", "configmap", "-n", "not-sent", "old", "-p", `{"data": {"policy.json": null}}`), "so is its removal")

	kubectl(t, "", "annotate", "configmap", "-n", "not-sent", "old", "a=b")
	kubectl(t, "", "patch", "configmap", "-n", "not-sent", "old", "-p", `{"data": {"other": "x"}}`)
	kubectl(t, "", "delete", "configmap", "-n", "not-sent", "going", "--wait=false")
	kubectl(t, "", "patch", "configmap", "-n", "not-sent", "going", "-p", `{"data": {"policy.json": "{"}}`)
	kubectl(t, "", "patch", "configmap", "-n", "not-sent", "going", "-p", `{"metadata": {"finalizers": null}}`)
	kubectl(t, "", "label", "configmap", "-n", "not-sent", "old", "egress-controller-")
	kubectl(t, "", "patch", "configmap", "-n", "not-sent", "old", "-p", `{"data": {"policy.json": "{"}}`)
	require.True(t, unanswered("", "label", "configmap", "-n", "not-sent", "old", "egress-controller=managed"), "the label is sent when it is put on")
	kubectl(t, "", "create", "configmap", "-n", "not-sent", "unrelated", "--from-literal=a=b")
}

// bytesOf reads a GOMEMLIMIT.
func bytesOf(t *testing.T, limit string) int64 {
	number, ok := strings.CutSuffix(limit, "MiB")
	require.True(t, ok, limit)
	mebibytes, err := strconv.ParseInt(number, 10, 64)
	require.NoError(t, err)
	return mebibytes << 20
}
