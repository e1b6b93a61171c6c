package platform

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"egress-agent/scripts/e2e/harness"
)

const base = "egress-platform-baseline"

// wide opens everything on ports 1 to 443.
const wide = `{"allowedDestinations": [{"name": "web", "cidr": "0.0.0.0/0", "ports": [{"port": 1, "endPort": 443}]}]}`

// lose are the ways in which tools and people lose a policy.
var lose = []struct {
	name string
	do   func(t *testing.T, namespace string)
}{
	{"Argo CD prunes the old object before it applies the new one", func(t *testing.T, namespace string) {
		harness.Kubectl(t, "", "delete", "configmap", "-n", namespace, "egress")
		time.Sleep(300 * time.Millisecond)
		_, _, _ = harness.TryKubectl(t, harness.PolicyManifest(namespace, "egress-bk8ct2hm45", wide), "create", "-f", "-") // with the webhook, it is refused
	}},
	{"a Helm hook with before-hook-creation", func(t *testing.T, namespace string) {
		for range 3 {
			harness.Kubectl(t, "", "delete", "configmap", "-n", namespace, "egress")
			harness.Kubectl(t, harness.PolicyManifest(namespace, "egress", harness.TenantA), "create", "-f", "-")
		}
	}},
	{"a forced replace", func(t *testing.T, namespace string) {
		for range 3 {
			harness.Kubectl(t, harness.PolicyManifest(namespace, "egress", harness.TenantA), "replace", "--force", "-f", "-")
		}
	}},
	{"kubectl delete", func(t *testing.T, namespace string) {
		harness.Kubectl(t, "", "delete", "configmap", "-n", namespace, "egress")
	}},
	{"the label removed", func(t *testing.T, namespace string) {
		harness.Kubectl(t, "", "label", "configmap", "-n", namespace, "egress", "egress-controller-")
	}},
}

// TestGovernedNamespaceStaysClosed loses a policy in each way, with the webhook and without it. At no time may the
// namespace be without an egress NetworkPolicy, or a denied point be open.
func TestGovernedNamespaceStaysClosed(t *testing.T) {
	harness.SkipUnlessAll(t)
	for _, withWebhook := range []bool{false, true} {
		t.Run(fmt.Sprintf("webhook %t", withWebhook), func(t *testing.T) {
			deleteSnapshot(t)
			applyDocument(t, "baseline", baseline)
			harness.StartAgentWithRanges(t)
			label := "egress-validation=disabled"
			if withWebhook {
				label = "egress-validation=enabled"
				harness.StartRegisteredWebhook(t, "--platform-file", mountSnapshot(t))
			}
			t.Run("ways", func(t *testing.T) { loseInEachWay(t, withWebhook, label) })
		})
	}
}

func loseInEachWay(t *testing.T, withWebhook bool, label string) {
	for i, way := range lose {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			namespace := fmt.Sprintf("lose-%t-%d", withWebhook, i)
			harness.CreateNamespace(t, namespace, "tier=tenant", label)
			harness.AwaitNetworkPolicy(t, namespace, base, "there", harness.Exists)
			samples := sample(t, namespace)
			if withWebhook {
				harness.AwaitRefusals(t, namespace)
			}
			harness.Kubectl(t, harness.PolicyManifest(namespace, "egress", harness.TenantA), "create", "-f", "-")
			harness.AwaitNetworkPolicy(t, namespace, "egress", "there", harness.Exists)
			way.do(t, namespace)
			harness.AwaitQuiet(t)
			samples.require(t)
			require.True(t, allows(t, list(t, namespace), point{"10.200.0.1", 443}), "the base opens it")
		})
	}
}

// TestTenantsCannotRemoveTheBase deletes and edits the NetworkPolicies of a governed namespace, as a tenant with the
// right to do so might.
func TestTenantsCannotRemoveTheBase(t *testing.T) {
	deleteSnapshot(t)
	applyDocument(t, "baseline", baseline)
	harness.StartAgentWithRanges(t)
	harness.CreateNamespace(t, "tenant-deletes", "tier=tenant")
	harness.AwaitNetworkPolicy(t, "tenant-deletes", base, "there", harness.Exists)
	harness.Kubectl(t, "", "delete", "networkpolicy", "-n", "tenant-deletes", "--all")
	harness.AwaitNetworkPolicy(t, "tenant-deletes", base, "back", harness.Exists)
	harness.Kubectl(t, "", "patch", "networkpolicy", "-n", "tenant-deletes", base, "-p", `{"spec": {"egress": [{}]}}`)
	awaitOpen(t, "tenant-deletes", point{"8.8.8.8", 443}, false)
	harness.Kubectl(t, "", "label", "networkpolicy", "-n", "tenant-deletes", base, "egress-controller/platform-", "app.kubernetes.io/managed-by-")
	harness.Eventually(t, "the labels are back", func() bool {
		return harness.GetNetworkPolicy(t, "tenant-deletes", base).Labels["egress-controller/platform"] == "base"
	})
	harness.Kubectl(t, harness.PolicyManifest("tenant-deletes", base, `{"defaultAction": "allow", "allowedDestinations": []}`), "create", "-f", "-")
	harness.AwaitEvent(t, "tenant-deletes", base, "NameConflict")
	require.False(t, allows(t, list(t, "tenant-deletes"), point{"8.8.8.8", 443}))
}

// TestGuardrailsCut stores policies without a webhook. The agent applies only what the guardrails permit, also after the
// guardrails change.
func TestGuardrailsCut(t *testing.T) {
	deleteSnapshot(t)
	harness.StartAgentWithRanges(t)
	harness.CreateNamespace(t, "guarded", "tier=tenant")
	harness.Kubectl(t, harness.PolicyManifest("guarded", "web", wide), "create", "-f", "-")
	harness.Kubectl(t, harness.PolicyManifest("guarded", "all", `{"defaultAction": "allow", "allowedDestinations": []}`), "create", "-f", "-")
	awaitOpen(t, "guarded", point{"169.254.169.254", 80}, true)
	applyDocument(t, "baseline", baseline)
	for _, p := range denied {
		awaitOpen(t, "guarded", p, false)
	}
	require.True(t, allows(t, list(t, "guarded"), point{"8.8.8.8", 443}))
	event := harness.AwaitEvent(t, "guarded", "web", "Guarded")
	require.Contains(t, event.Message, "Denied by guardrail metadata of platform document baseline (node credentials): web opens 169.254.169.254/32")
	harness.AwaitQuiet(t)
	mark, err := harness.Control(t).Mark()
	require.NoError(t, err)
	harness.Kubectl(t, document("baseline", strings.Replace(baseline, `"ports": [25]`, `"ports": [26]`, 1)), "apply", "-f", "-")
	awaitOpen(t, "guarded", point{"8.8.8.8", 26}, false)
	awaitOpen(t, "guarded", point{"8.8.8.8", 25}, true)
	harness.AwaitQuiet(t)
	writes := harness.NetworkPolicyWrites(t, mark, "guarded")
	require.ElementsMatch(t, []string{"update networkpolicies guarded/all", "update networkpolicies guarded/web"}, writes, "the base does not change")

	t.Run("an invalid document leaves the last valid one in force", func(t *testing.T) {
		harness.Kubectl(t, document("baseline", `{"namespaces": {}, "guardrails": {"within": []}}`), "apply", "-f", "-")
		event := harness.AwaitEvent(t, "egress-system", "baseline", "Invalid")
		require.Contains(t, event.Message, "Invalid within: [] closes everything that tenants open")
		require.Contains(t, event.Message, "until it is corrected, the last valid version stays in force")
		harness.AwaitQuiet(t)
		require.False(t, allows(t, list(t, "guarded"), point{"8.8.8.8", 26}))
	})
	t.Run("the document deleted and restored", func(t *testing.T) {
		harness.Kubectl(t, "", "delete", "configmap", "-n", "egress-system", "baseline")
		harness.AwaitNetworkPolicy(t, "guarded", base, "gone", harness.IsGone)
		awaitOpen(t, "guarded", point{"8.8.8.8", 26}, true)
		harness.Kubectl(t, document("baseline", baseline), "apply", "-f", "-")
		harness.AwaitNetworkPolicy(t, "guarded", base, "there", harness.Exists)
		for _, p := range denied {
			awaitOpen(t, "guarded", p, false)
		}
	})
	t.Run("a selector that matches every namespace", func(t *testing.T) {
		harness.Kubectl(t, document("baseline", strings.Replace(baseline, `{"matchLabels": {"tier": "tenant"}}`, `{}`, 1)), "apply", "-f", "-")
		harness.AwaitNetworkPolicy(t, "default", base, "there", harness.Exists)
		for _, exempt := range []string{"kube-system", "kube-public", "kube-node-lease", "egress-system"} {
			require.Empty(t, list(t, exempt), exempt)
		}
		harness.Kubectl(t, document("baseline", baseline), "apply", "-f", "-")
		harness.AwaitNetworkPolicy(t, "default", base, "gone", harness.IsGone)
		harness.AwaitNetworkPolicy(t, "guarded", base, "there", harness.Exists)
	})
	t.Run("the label of a namespace flaps", func(t *testing.T) {
		for i := range 10 {
			harness.Kubectl(t, "", "label", "namespace", "guarded", "--overwrite", fmt.Sprintf("tier=%s", []string{"other", "tenant"}[i%2]))
		}
		harness.AwaitNetworkPolicy(t, "guarded", base, "there", harness.Exists)
		for _, p := range denied {
			awaitOpen(t, "guarded", p, false)
		}
	})
}

// TestWebhookRefusesByPlatformDocuments runs the webhook with the copy that the agent makes for it.
func TestWebhookRefusesByPlatformDocuments(t *testing.T) {
	deleteSnapshot(t)
	harness.StartAgentWithRanges(t)
	webhook := harness.StartRegisteredWebhook(t, "--platform-file", mountSnapshot(t))
	harness.CreateNamespace(t, "refused", "tier=tenant", "egress-validation=enabled")
	harness.AwaitRefusals(t, "refused")
	applyDocument(t, "baseline", baseline)
	var message string
	harness.Eventually(t, "the webhook refuses a policy that a guardrail closes", func() bool {
		_, stderr, err := harness.TryKubectl(t, harness.PolicyManifest("refused", "web", wide), "create", "--dry-run=server", "-f", "-")
		message = stderr
		return err != nil
	})
	require.Contains(t, message, "Denied by guardrail metadata of platform document baseline (node credentials): web opens 169.254.169.254/32 on TCP 1-443; narrow it (allowedDestinations[0])")
	require.Contains(t, message, "Denied by guardrail smtp of platform document baseline: web opens 0.0.0.0/0 on TCP 25; narrow it (allowedDestinations[0])")
	require.NotZero(t, webhook.Metric(t, "egress_webhook_platform_changed_timestamp_seconds"))
	_, stderr, err := harness.TryKubectl(t, document("broken", `{"namespaces": {}}`), "create", "-f", "-")
	require.Error(t, err)
	require.Contains(t, stderr, "Platform document validation failed: Must specify allowedDestinations, guardrails or both (platform.json)")
	t.Run("without the webhook, its own namespace is not held up", func(t *testing.T) {
		webhook.Stop(t)
		harness.Kubectl(t, document("broken", `{"namespaces": {}}`), "create", "-f", "-")
		harness.AwaitEvent(t, "egress-system", "broken", "Invalid")
		harness.Kubectl(t, "", "delete", "configmap", "-n", "egress-system", "broken")
	})
}

// TestNamespacesInherit moves a namespace in and out of a tree.
func TestNamespacesInherit(t *testing.T) {
	deleteSnapshot(t)
	applyDocument(t, "baseline", baseline)
	harness.StartAgentWithRanges(t, "--parent-label", "accurate.cybozu.com/parent")
	harness.CreateNamespace(t, "division")
	harness.CreateNamespace(t, "team", "tier=tenant", "accurate.cybozu.com/parent=division")
	harness.CreateNamespace(t, "project", "tier=tenant", "accurate.cybozu.com/parent=team")
	harness.Kubectl(t, harness.PolicyManifest("division", "shared", wide), "create", "-f", "-")
	harness.Kubectl(t, "", "annotate", "configmap", "-n", "division", "shared", "egress-controller/inherit=true")
	const inherited = "egress-inherited-division.shared"
	for _, namespace := range []string{"team", "project"} {
		harness.AwaitNetworkPolicy(t, namespace, inherited, "there", harness.Exists)
		require.True(t, allows(t, list(t, namespace), point{"8.8.8.8", 443}))
		for _, p := range denied {
			require.False(t, allows(t, list(t, namespace), p), "the child's guardrails cut it")
		}
	}
	harness.Kubectl(t, "", "patch", "configmap", "-n", "division", "shared", "-p", harness.PolicyPatch(t, harness.TenantA))
	awaitOpen(t, "project", point{"8.8.8.8", 443}, false)
	harness.Kubectl(t, "", "label", "namespace", "team", "accurate.cybozu.com/parent-")
	harness.AwaitNetworkPolicy(t, "project", inherited, "gone", harness.IsGone)
	harness.Kubectl(t, "", "label", "namespace", "team", "accurate.cybozu.com/parent=division")
	harness.AwaitNetworkPolicy(t, "project", inherited, "there", harness.Exists)
	harness.Kubectl(t, "", "delete", "configmap", "-n", "division", "shared")
	harness.AwaitNetworkPolicy(t, "team", inherited, "gone", harness.IsGone)
	harness.AwaitNetworkPolicy(t, "project", inherited, "gone", harness.IsGone)
}

// TestKilledAgentLeavesNothingOpen kills the agent at random moments while the guardrails and the labels of namespaces
// change.
func TestKilledAgentLeavesNothingOpen(t *testing.T) {
	harness.SkipUnlessAll(t)
	deleteSnapshot(t)
	applyDocument(t, "baseline", baseline)
	agent := harness.StartAgentWithRanges(t)
	const count = 20
	name := func(i int) string { return fmt.Sprintf("killed-%d", i) }
	for i := range count {
		harness.CreateNamespace(t, name(i), "tier=tenant")
		harness.Kubectl(t, harness.PolicyManifest(name(i), "egress", wide), "create", "-f", "-")
	}
	for i := range count {
		harness.AwaitNetworkPolicy(t, name(i), base, "there", harness.Exists)
		harness.AwaitNetworkPolicy(t, name(i), "egress", "there", harness.Exists)
	}
	samples := sample(t, name(0))
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 12 {
		changed := strings.Replace(baseline, `"cidr": "10.200.0.0/24"`, fmt.Sprintf(`"cidr": "10.200.%d.0/24"`, round), 1)
		changed = strings.Replace(changed, `"denied": [`, fmt.Sprintf(`"denied": [{"name": "round", "cidr": "203.0.113.%d/32"}, `, round), 1)
		harness.Kubectl(t, document("baseline", changed), "apply", "-f", "-")
		time.Sleep(time.Duration(random.IntN(150)) * time.Millisecond)
		agent.Kill(t)
		agent = harness.StartAgentWithRanges(t)
		for i := range count {
			awaitOpen(t, name(i), point{fmt.Sprintf("203.0.113.%d", round), 443}, false)
			awaitOpen(t, name(i), point{fmt.Sprintf("10.200.%d.1", round), 443}, true)
		}
	}
	samples.require(t)
}
