package webhook

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"egress-agent/scripts/e2e/harness"
)

// TestWebhookReviewsWhatConfigurationSends checks which requests the API server sends to the webhook, which it does not
// send, and the results. It counts reviews by the webhook's metrics.
func TestWebhookReviewsWhatConfigurationSends(t *testing.T) {
	harness.SkipUnlessAll(t)
	t.Parallel()
	const hooked, open = "hook-on", "hook-off"
	whole := t
	harness.CreateNamespace(t, hooked)
	harness.CreateNamespace(t, open)
	old := func(name string) string { return harness.PolicyManifest(hooked, name, harness.InvalidPolicy) }
	harness.Kubectl(t, old("old")+"---\n"+withFinalizer(old("held"))+"---\n"+strings.ReplaceAll(old("unlabelled"), "managed", "other"), "apply", "-f", "-")
	w := harness.StartRegisteredWebhook(t)
	harness.Kubectl(t, "", "label", "namespace", hooked, "egress-validation=enabled")
	harness.AwaitRefusals(t, hooked)

	// sends requires that do causes this number of reviews of each verdict.
	sends := func(t *testing.T, allowed, denied int, do func()) {
		t.Helper()
		allowedBefore, deniedBefore := w.VerdictCounts(t)
		do()
		allowedAfter, deniedAfter := w.VerdictCounts(t)
		require.Equal(t, []float64{float64(allowed), float64(denied)}, []float64{allowedAfter - allowedBefore, deniedAfter - deniedBefore}, "reviews allowed and denied")
	}
	passes := func(t *testing.T, stdin string, args ...string) {
		t.Helper()
		sends(t, 1, 0, func() { harness.Kubectl(t, stdin, args...) })
	}
	denied := func(t *testing.T, stdin string, args ...string) {
		t.Helper()
		sends(t, 0, 1, func() {
			_, stderr, err := harness.TryKubectl(t, stdin, args...)
			require.Error(t, err)
			require.Contains(t, stderr, `admission webhook "policy.egress-controller.io" denied the request: `+harness.InvalidMessage)
		})
	}
	unsent := func(t *testing.T, stdin string, args ...string) {
		t.Helper()
		sends(t, 0, 0, func() { harness.Kubectl(t, stdin, args...) })
	}
	gone := func(t *testing.T, name string) {
		t.Helper()
		require.Empty(t, harness.Kubectl(t, "", "get", "configmap", "-n", hooked, name, "--ignore-not-found"))
	}
	good := func(name string) string { return harness.PolicyManifest(hooked, name, harness.TenantA) }

	step := func(name string, f func(t *testing.T)) {
		if !t.Run(name, f) {
			t.FailNow()
		}
	}
	step("create", func(t *testing.T) {
		denied(t, harness.PolicyManifest(hooked, "a", harness.InvalidPolicy), "create", "-f", "-")
		gone(t, "a")
		passes(t, good("a"), "create", "-f", "-")
	})
	step("update", func(t *testing.T) {
		denied(t, harness.PolicyManifest(hooked, "a", harness.InvalidPolicy), "replace", "-f", "-")
		passes(t, harness.PolicyManifest(hooked, "a", harness.TenantB), "replace", "-f", "-")
		require.Contains(t, harness.Kubectl(t, "", "get", "configmap", "-n", hooked, "a", "-o", "yaml"), "partners")
	})
	step("patch", func(t *testing.T) {
		for _, kind := range []string{"merge", "strategic"} {
			denied(t, "", "patch", "configmap", "-n", hooked, "a", "--type", kind, "-p", harness.PolicyPatch(t, harness.InvalidPolicy))
			passes(t, "", "patch", "configmap", "-n", hooked, "a", "--type", kind, "-p", harness.PolicyPatch(t, harness.TenantA))
			harness.Kubectl(t, "", "patch", "configmap", "-n", hooked, "a", "--type", kind, "-p", harness.PolicyPatch(t, harness.TenantB))
		}
	})
	step("apply, client-side and server-side", func(t *testing.T) {
		for name, args := range map[string][]string{"client": {"apply", "-f", "-"}, "server": {"apply", "--server-side", "-f", "-"}} {
			denied(t, harness.PolicyManifest(hooked, name, harness.InvalidPolicy), args...)
			gone(t, name)
			passes(t, good(name), args...)
			denied(t, harness.PolicyManifest(hooked, name, harness.InvalidPolicy), args...)
			passes(t, harness.PolicyManifest(hooked, name, harness.TenantB), args...)
		}
	})
	step("dry run", func(t *testing.T) {
		denied(t, harness.PolicyManifest(hooked, "dry", harness.InvalidPolicy), "apply", "--dry-run=server", "-f", "-")
		passes(t, good("dry"), "apply", "--dry-run=server", "-f", "-")
		gone(t, "dry")
	})
	step("a label is added or removed", func(t *testing.T) {
		denied(t, "", "label", "--overwrite", "configmap", "-n", hooked, "unlabelled", "egress-controller=managed")
		unsent(t, "", "label", "--overwrite", "configmap", "-n", hooked, "old", "egress-controller=other")
		unsent(t, "", "annotate", "configmap", "-n", hooked, "old", "example.com/note=unseen")
		denied(t, "", "label", "--overwrite", "configmap", "-n", hooked, "old", "egress-controller=managed")
	})
	step("an old invalid object can be changed and deleted", func(t *testing.T) {
		unsent(t, "", "annotate", "configmap", "-n", hooked, "held", "example.com/note=new")
		denied(t, "", "patch", "configmap", "-n", hooked, "held", "-p", harness.PolicyPatch(t, harness.InvalidPolicy+" "))
		unsent(t, "", "delete", "configmap", "-n", hooked, "held", "--wait=false")
		require.NotEmpty(t, harness.Kubectl(t, "", "get", "configmap", "-n", hooked, "held", "-o", "jsonpath={.metadata.deletionTimestamp}"))
		unsent(t, "", "patch", "configmap", "-n", hooked, "held", "--type", "merge", "-p", `{"data": {"policy.json": "[]"}}`)
		unsent(t, "", "patch", "configmap", "-n", hooked, "held", "--type", "merge", "-p", `{"metadata": {"finalizers": null}}`)
		gone(t, "held")
	})
	step("generateName", func(t *testing.T) {
		generated := func(policy string) string {
			return strings.ReplaceAll(harness.PolicyManifest(hooked, "gen-", policy), "  name:", "  generateName:")
		}
		denied(t, generated(harness.InvalidPolicy), "create", "-f", "-")
		passes(t, generated(harness.TenantA), "create", "-f", "-")
	})
	step("an immutable ConfigMap", func(t *testing.T) {
		denied(t, harness.PolicyManifest(hooked, "fixed", harness.InvalidPolicy)+"immutable: true\n", "apply", "-f", "-")
		passes(t, good("fixed")+"immutable: true\n", "apply", "-f", "-")
		unsent(t, "", "annotate", "configmap", "-n", hooked, "fixed", "example.com/note=new")
	})
	step("two objects in one file", func(t *testing.T) {
		sends(t, 1, 1, func() {
			stdout, stderr, err := harness.TryKubectl(t, harness.PolicyManifest(hooked, "two-bad", harness.InvalidPolicy)+"---\n"+good("two-good"), "apply", "-f", "-")
			require.Error(t, err)
			require.Equal(t, "configmap/two-good created\n", stdout)
			require.Contains(t, stderr, harness.InvalidMessage)
		})
		gone(t, "two-bad")
	})
	step("requests that are never sent", func(t *testing.T) {
		unsent(t, strings.ReplaceAll(harness.PolicyManifest(hooked, "plain", harness.InvalidPolicy), "{egress-controller: managed}", "{}"), "apply", "-f", "-")
		unsent(t, strings.ReplaceAll(strings.ReplaceAll(harness.PolicyManifest(hooked, "secret", "x"), "ConfigMap", "Secret"), "\ndata:", "\nstringData:"), "apply", "-f", "-")
		unsent(t, harness.PolicyManifest(open, "bad", harness.InvalidPolicy), "apply", "-f", "-")
		unsent(t, "", "delete", "configmap", "-n", hooked, "two-good")
		for _, system := range labelSystemNamespaces(t) {
			unsent(t, harness.PolicyManifest(system, "bad", harness.InvalidPolicy), "apply", "-f", "-")
			unsent(t, "", "delete", "configmap", "-n", system, "bad")
		}
	})
	step("while the webhook does not run", func(t *testing.T) {
		harness.Kubectl(t, good("stays"), "apply", "-f", "-")
		w.Stop(t)
		for _, command := range [][]string{{"apply", "-f", "-"}, {"apply", "--server-side", "-f", "-"}} {
			_, stderr, err := harness.TryKubectl(t, good("down"), command...)
			require.Error(t, err)
			require.Contains(t, stderr, `failed calling webhook "policy.egress-controller.io"`)
		}
		gone(t, "down")
		harness.Kubectl(t, "", "delete", "configmap", "-n", hooked, "stays")
		harness.Kubectl(t, strings.ReplaceAll(harness.PolicyManifest(hooked, "plain-too", harness.TenantA), "{egress-controller: managed}", "{}"), "apply", "-f", "-")
		harness.Kubectl(t, harness.PolicyManifest(open, "down", harness.TenantA), "apply", "-f", "-")
		for _, system := range labelSystemNamespaces(t) {
			harness.Kubectl(t, harness.PolicyManifest(system, "down", harness.TenantA), "apply", "-f", "-")
			harness.Kubectl(t, "", "delete", "configmap", "-n", system, "down")
		}
	})
	step("after a restart of the webhook", func(t *testing.T) {
		w.Start(whole)
		harness.Eventually(t, "the API server sends reviews again", func() bool {
			_, _, err := harness.TryKubectl(t, good("back"), "apply", "-f", "-")
			return err == nil
		})
		denied(t, harness.PolicyManifest(hooked, "back", harness.InvalidPolicy), "apply", "-f", "-")
	})
}

func withFinalizer(manifest string) string {
	return strings.Replace(manifest, "metadata:\n", "metadata:\n  finalizers: [example.com/hold]\n", 1)
}

// labelSystemNamespaces opts in the namespaces that the webhook must never block, until the test ends, and returns
// their names.
func labelSystemNamespaces(t *testing.T) []string {
	t.Helper()
	names := []string{"kube-system", "egress-system"}
	for _, name := range names {
		harness.Kubectl(t, "", "label", "namespace", name, "egress-validation=enabled")
		t.Cleanup(func() { harness.Kubectl(t, "", "label", "namespace", name, "egress-validation-") })
	}
	return names
}
