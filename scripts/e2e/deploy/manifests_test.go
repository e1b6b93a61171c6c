package deploy

import (
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

	"egress-agent/scripts/e2e/harness"
)

// otherKinds are the objects of each overlay whose CRDs are not installed here. The dry run leaves them out.
var otherKinds = map[string][]string{
	"cert-manager": {"Certificate egress-webhook", "Certificate egress-webhook-ca", "Issuer egress-webhook-ca", "Issuer egress-webhook-selfsigned"},
	"prometheus":   {"PrometheusRule egress-control", "ServiceMonitor egress-control"},
}

// warningsIn returns the lines that kubectl printed, without one warning: tests that ran before may have created the
// namespace and the agent's rights, without kubectl's annotation.
func warningsIn(stderr string) []string {
	return slices.DeleteFunc(slices.Collect(strings.Lines(stderr)), func(line string) bool {
		return strings.Contains(line, "is missing the kubectl.kubernetes.io/last-applied-configuration annotation")
	})
}

// TestManifestsPassServerDryRun sends what deploy/ and each overlay would apply to the API server, as a dry run.
func TestManifestsPassServerDryRun(t *testing.T) {
	stdout, stderr, err := harness.TryKubectl(t, "", "apply", "--dry-run=server", "-k", harness.Root+"/deploy")
	require.NoError(t, err, stderr)
	require.Empty(t, warningsIn(stderr), "no warning, also not from Pod Security")
	require.Equal(t, 18, strings.Count(stdout, "(server dry run)"))

	base := kustomize(t, harness.Root+"/deploy")
	require.Len(t, base, 18)
	require.Len(t, deployments(t, base), 2)
	inBase := make(map[string]bool)
	for _, object := range base {
		text, err := yaml.Marshal(object)
		require.NoError(t, err)
		inBase[string(text)] = true
	}

	overlays, err := os.ReadDir(harness.Root + "/deploy/overlays")
	require.NoError(t, err)
	components, err := os.ReadDir(harness.Root + "/deploy/components")
	require.NoError(t, err)
	require.Len(t, overlays, len(components))
	for i, overlay := range overlays {
		t.Run(overlay.Name(), func(t *testing.T) {
			require.Equal(t, components[i].Name(), overlay.Name())
			all := kustomize(t, filepath.Join(harness.Root, "deploy/overlays", overlay.Name()))
			require.Greater(t, len(all)+len(deployments(t, all)), len(base))
			var left, out []string
			for _, object := range all {
				if strings.HasSuffix(object.GroupVersionKind().Group, "cert-manager.io") || strings.HasSuffix(object.GroupVersionKind().Group, "coreos.com") {
					out = append(out, object.GetKind()+" "+object.GetName())
					continue
				}
				text, err := yaml.Marshal(object)
				require.NoError(t, err)
				if !inBase[string(text)] { // the API server has judged these already
					left = append(left, string(text))
				}
			}
			slices.Sort(out)
			require.Equal(t, otherKinds[overlay.Name()], out)
			for _, deployment := range deployments(t, all) {
				requireMemoryLimit(t, deployment)
				require.Equal(t, overlay.Name() == "audit", slices.Contains(deployment.Spec.Template.Spec.Containers[0].Args, "--audit"), "the audit trail is opt-in")
			}
			_, stderr, err := harness.TryKubectl(t, strings.Join(left, "---\n"), "apply", "--dry-run=server", "-f", "-")
			require.NoError(t, err, stderr)
			require.Empty(t, warningsIn(stderr))
		})
	}
}

// kustomize returns the objects of a kustomization. It requires the common labels on each.
func kustomize(t *testing.T, dir string) []*unstructured.Unstructured {
	var objects []*unstructured.Unstructured
	for _, document := range strings.Split(harness.Kubectl(t, "", "kustomize", dir), "\n---\n") {
		object := &unstructured.Unstructured{}
		require.NoError(t, yaml.Unmarshal([]byte(document), object))
		require.Equal(t, "egress-control", object.GetLabels()["app.kubernetes.io/part-of"], document)
		require.Contains(t, []string{"egress-agent", "egress-webhook", "egress-mirror", "egress-control"}, object.GetLabels()["app.kubernetes.io/name"], document)
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
	return found
}

// requireMemoryLimit requires that Go's memory limit is nine tenths of the container's.
func requireMemoryLimit(t *testing.T, deployment *appsv1.Deployment) {
	container := deployment.Spec.Template.Spec.Containers[0]
	require.Equal(t, "GOMEMLIMIT", container.Env[0].Name)
	soft := parseMemoryLimit(t, container.Env[0].Value)
	require.InDelta(t, 0.9, float64(soft)/float64(container.Resources.Limits.Memory().Value()), 0.01, deployment.Name)
}

// parseMemoryLimit returns the bytes of a GOMEMLIMIT.
func parseMemoryLimit(t *testing.T, limit string) int64 {
	number, ok := strings.CutSuffix(limit, "MiB")
	require.True(t, ok, limit)
	mebibytes, err := strconv.ParseInt(number, 10, 64)
	require.NoError(t, err)
	return mebibytes << 20
}
