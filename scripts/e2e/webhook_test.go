package e2e

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWebhook is what an API server sends the webhook, what it does not send, and what comes of it. What was sent
// is told by the webhook's own counters.
func TestWebhook(t *testing.T) {
	t.Parallel()
	const hooked, open = "hook-on", "hook-off"
	whole := t
	namespace(t, hooked)
	namespace(t, open)
	old := func(name string) string { return manifest(hooked, name, bad) }
	kubectl(t, old("old")+"---\n"+withFinalizer(old("held"))+"---\n"+strings.ReplaceAll(old("unlabelled"), "managed", "other"), "apply", "-f", "-")
	w := startWebhook(t)
	kubectl(t, "", "label", "namespace", hooked, "egress-validation=enabled")
	refusesSoon(t, hooked)

	// sends requires that something makes the API server ask for so many verdicts.
	sends := func(t *testing.T, allowed, denied int, do func()) {
		t.Helper()
		allowedBefore, deniedBefore := w.verdicts(t)
		do()
		allowedAfter, deniedAfter := w.verdicts(t)
		require.Equal(t, []float64{float64(allowed), float64(denied)}, []float64{allowedAfter - allowedBefore, deniedAfter - deniedBefore}, "reviews allowed and denied")
	}
	passes := func(t *testing.T, stdin string, args ...string) {
		t.Helper()
		sends(t, 1, 0, func() { kubectl(t, stdin, args...) })
	}
	denied := func(t *testing.T, stdin string, args ...string) {
		t.Helper()
		sends(t, 0, 1, func() {
			_, stderr, err := tryKubectl(stdin, args...)
			require.Error(t, err)
			require.Contains(t, stderr, `admission webhook "policy.egress-controller.io" denied the request: `+badMessage)
		})
	}
	unseen := func(t *testing.T, stdin string, args ...string) {
		t.Helper()
		sends(t, 0, 0, func() { kubectl(t, stdin, args...) })
	}
	gone := func(t *testing.T, name string) {
		t.Helper()
		require.Empty(t, kubectl(t, "", "get", "configmap", "-n", hooked, name, "--ignore-not-found"))
	}
	good := func(name string) string { return manifest(hooked, name, tenantA) }

	step := func(name string, f func(t *testing.T)) {
		if !t.Run(name, f) {
			t.FailNow()
		}
	}
	step("create", func(t *testing.T) {
		denied(t, manifest(hooked, "a", bad), "create", "-f", "-")
		gone(t, "a")
		passes(t, good("a"), "create", "-f", "-")
	})
	step("update", func(t *testing.T) {
		denied(t, manifest(hooked, "a", bad), "replace", "-f", "-")
		passes(t, manifest(hooked, "a", tenantB), "replace", "-f", "-")
		require.Contains(t, kubectl(t, "", "get", "configmap", "-n", hooked, "a", "-o", "yaml"), "partners")
	})
	step("patch", func(t *testing.T) {
		for _, kind := range []string{"merge", "strategic"} {
			denied(t, "", "patch", "configmap", "-n", hooked, "a", "--type", kind, "-p", patchOf(t, bad))
			passes(t, "", "patch", "configmap", "-n", hooked, "a", "--type", kind, "-p", patchOf(t, tenantA))
			kubectl(t, "", "patch", "configmap", "-n", hooked, "a", "--type", kind, "-p", patchOf(t, tenantB))
		}
	})
	step("apply, client-side and server-side", func(t *testing.T) {
		for name, args := range map[string][]string{"client": {"apply", "-f", "-"}, "server": {"apply", "--server-side", "-f", "-"}} {
			denied(t, manifest(hooked, name, bad), args...)
			gone(t, name)
			passes(t, good(name), args...)
			denied(t, manifest(hooked, name, bad), args...)
			passes(t, manifest(hooked, name, tenantB), args...)
		}
	})
	step("dry run", func(t *testing.T) {
		denied(t, manifest(hooked, "dry", bad), "apply", "--dry-run=server", "-f", "-")
		passes(t, good("dry"), "apply", "--dry-run=server", "-f", "-")
		gone(t, "dry")
	})
	step("a label added, a label removed", func(t *testing.T) {
		denied(t, "", "label", "--overwrite", "configmap", "-n", hooked, "unlabelled", "egress-controller=managed")
		unseen(t, "", "label", "--overwrite", "configmap", "-n", hooked, "old", "egress-controller=other")
		unseen(t, "", "annotate", "configmap", "-n", hooked, "old", "example.com/note=unseen")
		denied(t, "", "label", "--overwrite", "configmap", "-n", hooked, "old", "egress-controller=managed")
	})
	step("an old bad object is not locked", func(t *testing.T) {
		unseen(t, "", "annotate", "configmap", "-n", hooked, "held", "example.com/note=new")
		denied(t, "", "patch", "configmap", "-n", hooked, "held", "-p", patchOf(t, bad+" "))
		unseen(t, "", "delete", "configmap", "-n", hooked, "held", "--wait=false")
		require.NotEmpty(t, kubectl(t, "", "get", "configmap", "-n", hooked, "held", "-o", "jsonpath={.metadata.deletionTimestamp}"))
		unseen(t, "", "patch", "configmap", "-n", hooked, "held", "--type", "merge", "-p", `{"data": {"policy.json": "[]"}}`)
		unseen(t, "", "patch", "configmap", "-n", hooked, "held", "--type", "merge", "-p", `{"metadata": {"finalizers": null}}`)
		gone(t, "held")
	})
	step("generateName", func(t *testing.T) {
		generated := func(policy string) string {
			return strings.ReplaceAll(manifest(hooked, "gen-", policy), "  name:", "  generateName:")
		}
		denied(t, generated(bad), "create", "-f", "-")
		passes(t, generated(tenantA), "create", "-f", "-")
	})
	step("an immutable ConfigMap", func(t *testing.T) {
		denied(t, manifest(hooked, "fixed", bad)+"immutable: true\n", "apply", "-f", "-")
		passes(t, good("fixed")+"immutable: true\n", "apply", "-f", "-")
		unseen(t, "", "annotate", "configmap", "-n", hooked, "fixed", "example.com/note=new")
	})
	step("two objects in one file", func(t *testing.T) {
		sends(t, 1, 1, func() {
			stdout, stderr, err := tryKubectl(manifest(hooked, "two-bad", bad)+"---\n"+good("two-good"), "apply", "-f", "-")
			require.Error(t, err)
			require.Equal(t, "configmap/two-good created\n", stdout)
			require.Contains(t, stderr, badMessage)
		})
		gone(t, "two-bad")
	})
	step("what is never sent", func(t *testing.T) {
		unseen(t, strings.ReplaceAll(manifest(hooked, "plain", bad), "{egress-controller: managed}", "{}"), "apply", "-f", "-")
		unseen(t, strings.ReplaceAll(strings.ReplaceAll(manifest(hooked, "secret", "x"), "ConfigMap", "Secret"), "\ndata:", "\nstringData:"), "apply", "-f", "-")
		unseen(t, manifest(open, "bad", bad), "apply", "-f", "-")
		unseen(t, "", "delete", "configmap", "-n", hooked, "two-good")
		for _, system := range systemNamespaces(t) {
			unseen(t, manifest(system, "bad", bad), "apply", "-f", "-")
			unseen(t, "", "delete", "configmap", "-n", system, "bad")
		}
	})
	step("with the webhook down", func(t *testing.T) {
		kubectl(t, good("stays"), "apply", "-f", "-")
		w.stop(t)
		for _, command := range [][]string{{"apply", "-f", "-"}, {"apply", "--server-side", "-f", "-"}} {
			_, stderr, err := tryKubectl(good("down"), command...)
			require.Error(t, err)
			require.Contains(t, stderr, `failed calling webhook "policy.egress-controller.io"`)
		}
		gone(t, "down")
		kubectl(t, "", "delete", "configmap", "-n", hooked, "stays")
		kubectl(t, strings.ReplaceAll(manifest(hooked, "plain-too", tenantA), "{egress-controller: managed}", "{}"), "apply", "-f", "-")
		kubectl(t, manifest(open, "down", tenantA), "apply", "-f", "-")
		for _, system := range systemNamespaces(t) {
			kubectl(t, manifest(system, "down", tenantA), "apply", "-f", "-")
			kubectl(t, "", "delete", "configmap", "-n", system, "down")
		}
	})
	step("it comes back by itself", func(t *testing.T) {
		w.up(whole)
		eventually(t, "the API server asks again", func() bool {
			_, _, err := tryKubectl(good("back"), "apply", "-f", "-")
			return err == nil
		})
		denied(t, manifest(hooked, "back", bad), "apply", "-f", "-")
	})
}

func withFinalizer(manifest string) string {
	return strings.Replace(manifest, "metadata:\n", "metadata:\n  finalizers: [example.com/hold]\n", 1)
}

// systemNamespaces are those that the webhook must never hold up, opted in for the test.
func systemNamespaces(t *testing.T) []string {
	t.Helper()
	names := []string{"kube-system", "egress-system"}
	for _, name := range names {
		kubectl(t, "", "label", "namespace", name, "egress-validation=enabled")
		t.Cleanup(func() { kubectl(t, "", "label", "namespace", name, "egress-validation-") })
	}
	return names
}
