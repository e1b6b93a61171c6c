package agent

import (
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"egress-agent/scripts/e2e/harness"
)

// TestStory is the work of some tenants, in the order in which a new tenant does it.
func TestStory(t *testing.T) {
	whole := t // for what must outlive a step
	agent := harness.StartAgentWithRanges(t)
	harness.StartRegisteredWebhook(t)
	harness.CreateNamespace(t, "tenant-a", "egress-validation=enabled")
	harness.CreateNamespace(t, "tenant-b", "egress-validation=enabled")
	harness.CreateNamespace(t, "tenant-open")
	harness.AwaitRefusals(t, "tenant-a")

	step := func(name string, f func(t *testing.T)) {
		if !t.Run(name, f) {
			t.FailNow() // each step depends on the earlier ones
		}
	}
	step("tenants onboard", func(t *testing.T) {
		harness.Kubectl(t, harness.PolicyManifest("tenant-a", "egress", harness.TenantA)+"---\n"+harness.PolicyManifest("tenant-b", "egress", harness.TenantB), "apply", "-f", "-")
		equalsGolden(t, harness.AwaitNetworkPolicy(t, "tenant-a", "egress", "there", harness.Exists), "tenant-a")
		equalsGolden(t, harness.AwaitNetworkPolicy(t, "tenant-b", "egress", "there", harness.Exists), "tenant-b")
		require.Equal(t, "NetworkPolicy egress is in force, with these numbers of CIDRs: s3=2 db=1", harness.AwaitEvent(t, "tenant-a", "egress", "Applied").Message)
	})
	step("warnings reach the tenant", func(t *testing.T) {
		_, stderr, err := harness.TryKubectl(t, harness.PolicyManifest("tenant-a", "egress", harness.TenantA), "apply", "--dry-run=server", "-f", "-")
		require.NoError(t, err)
		require.NotContains(t, stderr, "Warning", "the webhook does not review an unchanged policy again")
		_, stderr, err = harness.TryKubectl(t, harness.PolicyManifest("tenant-a", "more", harness.TenantA), "apply", "--dry-run=server", "-f", "-")
		require.NoError(t, err)
		require.Equal(t, "Warning: s3 opens S3, which also covers every AWS customer's buckets: 512 IPv4 addresses (allowedDestinations[0].awsService)\n", stderr)
	})
	step("the webhook denies an invalid policy in a namespace that opted in", func(t *testing.T) {
		_, stderr, err := harness.TryKubectl(t, harness.PolicyManifest("tenant-a", "typo", harness.InvalidPolicy), "apply", "-f", "-")
		require.Error(t, err)
		require.Equal(t, `Error from server (Forbidden): error when creating "STDIN": admission webhook "policy.egress-controller.io" denied the request: `+harness.InvalidMessage+"\n", stderr)
		_, _, err = harness.TryKubectl(t, "", "get", "configmap", "typo", "-n", "tenant-a")
		require.Error(t, err, "the policy is not stored")
	})
	step("in another namespace the invalid policy is stored, and denies all", func(t *testing.T) {
		harness.Kubectl(t, harness.PolicyManifest("tenant-open", "typo", harness.InvalidPolicy), "apply", "-f", "-")
		equalsGolden(t, harness.AwaitNetworkPolicy(t, "tenant-open", "typo", "there", harness.Exists), "deny-all")
		event := harness.AwaitEvent(t, "tenant-open", "typo", "Invalid")
		require.Equal(t, harness.InvalidMessage+"; until it is corrected, all egress but DNS is denied", event.Message)
		require.Equal(t, "Warning", event.Type)
		harness.AwaitQuiet(t)
		require.Equal(t, 1, strings.Count(harness.Kubectl(t, "", "get", "events", "-n", "tenant-open", "-o", "name"), "event/"), "the agent reports the invalid policy once")
		harness.Kubectl(t, "", "patch", "networkpolicy", "-n", "tenant-open", "typo", "--type", "merge", "-p", `{"spec": {"egress": [{}]}}`)
		harness.AwaitNetworkPolicy(t, "tenant-open", "typo", "restored", func(p *networkingv1.NetworkPolicy) bool { return p.Generation == 3 })
		equalsGolden(t, harness.GetNetworkPolicy(t, "tenant-open", "typo"), "deny-all")
		harness.Kubectl(t, harness.PolicyManifest("tenant-open", "typo", harness.TenantA), "apply", "-f", "-")
		harness.AwaitNetworkPolicy(t, "tenant-open", "typo", "corrected", func(p *networkingv1.NetworkPolicy) bool { return harness.Opens(p, "10.1.0.0/24") })
	})
	step("after an invalid edit the last valid policy stays", func(t *testing.T) {
		before := harness.GetNetworkPolicy(t, "tenant-open", "typo")
		harness.Kubectl(t, harness.PolicyManifest("tenant-open", "typo", `{"allowedDestinations": [{}]}`), "apply", "-f", "-")
		require.Eventually(t, func() bool {
			events := harness.Kubectl(t, "", "get", "events", "-n", "tenant-open", "-o", "jsonpath={.items[*].message}")
			return strings.Contains(events, "the last valid policy stays in force")
		}, harness.Timeout, 50*time.Millisecond)
		require.Equal(t, before, harness.GetNetworkPolicy(t, "tenant-open", "typo"))
		harness.Kubectl(t, "", "patch", "networkpolicy", "-n", "tenant-open", "typo", "--type", "merge", "-p", `{"spec": {"egress": [{}]}}`)
		after := harness.AwaitNetworkPolicy(t, "tenant-open", "typo", "restored", func(p *networkingv1.NetworkPolicy) bool { return p.Generation == before.Generation+2 })
		require.Equal(t, before.Spec, after.Spec)
		harness.AwaitEvent(t, "tenant-open", "typo", "Restored")
		harness.Kubectl(t, "", "delete", "configmap", "-n", "tenant-open", "typo")
		harness.AwaitNetworkPolicy(t, "tenant-open", "typo", "gone", harness.IsGone)
	})
	step("an edit is applied in place", func(t *testing.T) {
		before := harness.GetNetworkPolicy(t, "tenant-a", "egress")
		harness.Kubectl(t, "", "patch", "configmap", "-n", "tenant-a", "egress", "-p", harness.PolicyPatch(t, harness.TenantAWest))
		after := harness.AwaitNetworkPolicy(t, "tenant-a", "egress", "updated", func(p *networkingv1.NetworkPolicy) bool { return harness.Opens(p, "198.18.8.0/24") })
		require.Equal(t, before.UID, after.UID)
		require.Equal(t, before.Generation+1, after.Generation)
		equalsGolden(t, after, "tenant-a-west")
	})
	step("the agent undoes an edit by hand", func(t *testing.T) {
		before := harness.GetNetworkPolicy(t, "tenant-a", "egress")
		harness.Kubectl(t, "", "patch", "networkpolicy", "-n", "tenant-a", "egress", "--type", "merge", "-p", `{"spec": {"egress": [{}]}}`)
		after := harness.AwaitNetworkPolicy(t, "tenant-a", "egress", "restored", func(p *networkingv1.NetworkPolicy) bool {
			return p.Generation == before.Generation+2
		})
		require.Equal(t, before.Spec, after.Spec)
		require.Equal(t, before.UID, after.UID)
		harness.AwaitEvent(t, "tenant-a", "egress", "Restored")
		harness.Kubectl(t, "", "label", "networkpolicy", "-n", "tenant-a", "egress", "app.kubernetes.io/managed-by-")
		harness.AwaitNetworkPolicy(t, "tenant-a", "egress", "labelled again", func(p *networkingv1.NetworkPolicy) bool {
			return p.Labels["app.kubernetes.io/managed-by"] == "egress-agent"
		})
	})
	step("the agent undoes a deletion by hand", func(t *testing.T) {
		before := harness.GetNetworkPolicy(t, "tenant-b", "egress")
		harness.Kubectl(t, "", "delete", "networkpolicy", "-n", "tenant-b", "egress")
		after := harness.AwaitNetworkPolicy(t, "tenant-b", "egress", "restored", func(p *networkingv1.NetworkPolicy) bool {
			return p != nil && p.UID != before.UID
		})
		require.Equal(t, before.Spec, after.Spec)
		harness.AwaitEvent(t, "tenant-b", "egress", "Restored")
	})
	step("labels, annotations and finalizers of others stay", func(t *testing.T) {
		harness.Kubectl(t, "", "label", "networkpolicy", "-n", "tenant-a", "egress", "team=payments")
		harness.Kubectl(t, "", "annotate", "networkpolicy", "-n", "tenant-a", "egress", "example.com/note=kept")
		harness.Kubectl(t, "", "patch", "networkpolicy", "-n", "tenant-a", "egress", "--type", "merge", "-p", `{"metadata": {"finalizers": ["example.com/hold"]}}`)
		harness.Kubectl(t, "", "patch", "configmap", "-n", "tenant-a", "egress", "-p", harness.PolicyPatch(t, harness.TenantA))
		after := harness.AwaitNetworkPolicy(t, "tenant-a", "egress", "updated", func(p *networkingv1.NetworkPolicy) bool { return !harness.Opens(p, "198.18.8.0/24") })
		require.Equal(t, "payments", after.Labels["team"])
		require.Equal(t, "kept", after.Annotations["example.com/note"])
		require.Equal(t, []string{"example.com/hold"}, after.Finalizers)
		harness.Kubectl(t, "", "patch", "networkpolicy", "-n", "tenant-a", "egress", "--type", "merge", "-p", `{"metadata": {"finalizers": null}}`)
	})
	step("the agent never changes a NetworkPolicy that it does not manage", func(t *testing.T) {
		harness.Kubectl(t, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: ours, namespace: tenant-b}\nspec: {podSelector: {}, policyTypes: [Ingress]}\n", "apply", "-f", "-")
		before := harness.GetNetworkPolicy(t, "tenant-b", "ours")
		harness.Kubectl(t, harness.PolicyManifest("tenant-b", "ours", harness.TenantB), "apply", "-f", "-")
		harness.AwaitEvent(t, "tenant-b", "ours", "NameConflict")
		require.Equal(t, before, harness.GetNetworkPolicy(t, "tenant-b", "ours"))
		harness.Kubectl(t, "", "delete", "configmap", "-n", "tenant-b", "ours")
		harness.AwaitQuiet(t)
		require.Equal(t, before, harness.GetNetworkPolicy(t, "tenant-b", "ours"), "the NetworkPolicy stays without the ConfigMap")
		harness.Kubectl(t, harness.PolicyManifest("tenant-b", "ours", harness.TenantB), "apply", "-f", "-")
		harness.Kubectl(t, "", "delete", "networkpolicy", "-n", "tenant-b", "ours")
		harness.AwaitNetworkPolicy(t, "tenant-b", "ours", "the agent's once the other is gone", func(p *networkingv1.NetworkPolicy) bool { return harness.Opens(p, "10.2.0.0/16") })
	})
	step("more ports than AWS VPC CNI enforces", func(t *testing.T) {
		policy := `{"allowedDestinations": [{"name": "apps", "cidr": "10.0.0.0/8", "ports": [` + harness.SparsePorts(1001, 20) + `]}]}`
		harness.Kubectl(t, harness.PolicyManifest("tenant-b", "apps", policy), "apply", "-f", "-")
		harness.Kubectl(t, harness.PolicyManifest("tenant-b", "host", strings.ReplaceAll(strings.ReplaceAll(policy, "10.0.0.0/8", "10.3.0.1/32"), harness.SparsePorts(1001, 20), harness.SparsePorts(3001, 3))), "apply", "-f", "-")
		require.Contains(t, harness.AwaitEvent(t, "tenant-b", "host", "Invalid").Message,
			"Too many ports: 10.3.0.1/32 has 23 ports and port ranges, and DNS takes 2; AWS VPC CNI enforces at most 24 for a CIDR: "+
				"merge or remove ports of this or the namespace's other policies, which apply to the same pods (allowedDestinations)")
		require.False(t, harness.Opens(harness.GetNetworkPolicy(t, "tenant-b", "host"), "10.3.0.1/32"))
		harness.Kubectl(t, harness.PolicyManifest("tenant-b", "apps", strings.ReplaceAll(policy, harness.SparsePorts(1001, 20), harness.SparsePorts(1001, 19))), "apply", "-f", "-")
		harness.AwaitNetworkPolicy(t, "tenant-b", "host", "applied once there is room", func(p *networkingv1.NetworkPolicy) bool { return harness.Opens(p, "10.3.0.1/32") })
		_, stderr, err := harness.TryKubectl(t, harness.PolicyManifest("tenant-b", "apps", strings.ReplaceAll(policy, harness.SparsePorts(1001, 20), harness.SparsePorts(1001, 23))), "apply", "-f", "-")
		require.Error(t, err)
		require.Contains(t, stderr, "Too many ports: 10.0.0.0/8 has 23 ports and port ranges, and DNS takes 2; AWS VPC CNI enforces at most 24 for a CIDR: merge or remove ports of apps (allowedDestinations)")
		harness.Kubectl(t, "", "delete", "configmap", "-n", "tenant-b", "apps", "host")
		harness.AwaitNetworkPolicy(t, "tenant-b", "apps", "gone", harness.IsGone)
		harness.AwaitNetworkPolicy(t, "tenant-b", "host", "gone", harness.IsGone)
	})
	step("the agent shortens a long name", func(t *testing.T) {
		name := strings.Repeat("long-", 20) + "name"
		harness.Kubectl(t, harness.PolicyManifest("tenant-b", name, harness.TenantB), "apply", "-f", "-")
		policy := harness.AwaitNetworkPolicy(t, "tenant-b", "long-long-long-long-long-long-long-long-long-l-8f24b2dceb", "there", harness.Exists)
		require.Equal(t, name, policy.OwnerReferences[0].Name)
		harness.Kubectl(t, "", "delete", "configmap", "-n", "tenant-b", name)
		harness.AwaitNetworkPolicy(t, "tenant-b", policy.Name, "gone", harness.IsGone)
	})
	step("a restart writes nothing", func(t *testing.T) {
		harness.AwaitQuiet(t)
		mark, err := harness.Control(t).Mark()
		require.NoError(t, err)
		agent.Stop(t)
		agent = harness.StartAgentWithRanges(whole)
		harness.AwaitQuiet(t)
		writes, err := harness.Control(t).Writes(mark, "egress-agent")
		require.NoError(t, err)
		require.Empty(t, writes)
		harness.Kubectl(t, "", "annotate", "configmap", "-n", "tenant-a", "egress", "example.com/note=new")
		harness.AwaitQuiet(t)
		writes, err = harness.Control(t).Writes(mark, "egress-agent")
		require.NoError(t, err)
		require.Empty(t, writes, "an edit that does not change the policy writes nothing")
		harness.Kubectl(t, "", "delete", "networkpolicy", "-n", "tenant-b", "egress")
		harness.AwaitNetworkPolicy(t, "tenant-b", "egress", "restored", harness.Exists)
		writes, err = harness.Control(t).Writes(mark, "egress-agent")
		require.NoError(t, err)
		require.Contains(t, writes, "create networkpolicies tenant-b/egress", "the audit log records writes")
	})
	step("a ConfigMap without the label is not a policy", func(t *testing.T) {
		harness.Kubectl(t, "", "label", "configmap", "-n", "tenant-b", "ours", "egress-controller-")
		harness.AwaitNetworkPolicy(t, "tenant-b", "ours", "gone", harness.IsGone)
	})
	step("a restarted agent applies what changed meanwhile", func(t *testing.T) {
		harness.Kubectl(t, harness.PolicyManifest("tenant-b", "deleted", harness.TenantB), "apply", "-f", "-")
		harness.Kubectl(t, harness.PolicyManifest("tenant-b", "orphaned", harness.TenantB), "apply", "-f", "-")
		harness.AwaitNetworkPolicy(t, "tenant-b", "deleted", "there", harness.Exists)
		harness.AwaitNetworkPolicy(t, "tenant-b", "orphaned", "there", harness.Exists)
		agent.Stop(t)
		harness.Kubectl(t, "", "label", "configmap", "-n", "tenant-a", "egress", "egress-controller-")
		harness.Kubectl(t, "", "delete", "configmap", "-n", "tenant-b", "deleted")
		harness.Kubectl(t, "", "delete", "configmap", "-n", "tenant-b", "orphaned", "--cascade=orphan")
		harness.Kubectl(t, "", "patch", "networkpolicy", "-n", "tenant-b", "egress", "--type", "merge", "-p", `{"spec": {"egress": [{}]}}`)
		require.NotNil(t, harness.GetNetworkPolicy(t, "tenant-a", "egress"))
		agent = harness.StartAgentWithRanges(whole)
		harness.AwaitNetworkPolicy(t, "tenant-a", "egress", "gone", harness.IsGone)
		harness.AwaitNetworkPolicy(t, "tenant-b", "deleted", "gone", harness.IsGone)
		harness.AwaitEventOn(t, "tenant-b", "NetworkPolicy", "orphaned", "NotMade", func(corev1.Event) bool { return true })
		require.NotNil(t, harness.GetNetworkPolicy(t, "tenant-b", "orphaned"), "without the owner reference nothing shows who created it")
		harness.Kubectl(t, "", "delete", "networkpolicy", "-n", "tenant-b", "orphaned")
		equalsGolden(t, harness.AwaitNetworkPolicy(t, "tenant-b", "egress", "restored", func(p *networkingv1.NetworkPolicy) bool { return harness.Opens(p, "10.2.0.0/16") }), "tenant-b")
	})
	step("the agent stops quietly when a namespace is deleted", func(t *testing.T) {
		harness.Kubectl(t, "", "delete", "namespace", "tenant-b", "--timeout=60s")
		harness.AwaitQuiet(t)
		require.NotContains(t, agent.Log(t), "sync failed, retrying", "the agent logs no errors")
	})
}

// TestAppliesCIDRsWithoutRanges starts without AWS ranges. The agent applies destinations with a CIDR, and does not
// change an existing NetworkPolicy.
func TestAppliesCIDRsWithoutRanges(t *testing.T) {
	s := harness.StartRangesServer(t)
	s.SetAnswer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	t.Setenv("SSL_CERT_FILE", s.CAFile)
	harness.StartAgent(t, "--ranges-url", s.URL(), "--refresh-interval", "1s")
	harness.CreateNamespace(t, "tenant-c")
	harness.Kubectl(t, harness.PolicyManifest("tenant-c", "egress", harness.TenantA), "apply", "-f", "-")
	policy := harness.AwaitNetworkPolicy(t, "tenant-c", "egress", "there", harness.Exists)
	require.True(t, harness.Opens(policy, "10.1.0.0/24"))
	require.Len(t, policy.Spec.Egress, 2, "DNS and the CIDR")
	require.Contains(t, harness.AwaitEvent(t, "tenant-c", "egress", "RangesUnavailable").Message, `["s3"]`)

	harness.Kubectl(t, harness.PolicyManifest("tenant-c", "egress", strings.ReplaceAll(harness.TenantA, "10.1.0.0/24", "10.9.0.0/24")), "apply", "-f", "-")
	harness.AwaitQuiet(t)
	require.Equal(t, policy, harness.GetNetworkPolicy(t, "tenant-c", "egress"), "the existing NetworkPolicy stays")

	s.SetAnswer(harness.ServeDocument([]byte(harness.SampleRanges(t, "ip-ranges.json")), time.Unix(1_700_000_000, 0)))
	policy = harness.AwaitNetworkPolicy(t, "tenant-c", "egress", "complete", func(p *networkingv1.NetworkPolicy) bool { return harness.Opens(p, "198.18.0.0/24") })
	require.True(t, harness.Opens(policy, "10.9.0.0/24"))
}

// equalsGolden compares a stored NetworkPolicy with a file in testdata/networkpolicy, without the fields that the API
// server sets. UPDATE_GOLDEN=1 writes the file.
func equalsGolden(t *testing.T, policy *networkingv1.NetworkPolicy, name string) {
	t.Helper()
	policy = policy.DeepCopy()
	policy.APIVersion, policy.Kind = "networking.k8s.io/v1", "NetworkPolicy"
	require.Equal(t, strconv.FormatInt(policy.Generation, 10), policy.Annotations["egress-controller/generation"])
	policy.Annotations["egress-controller/generation"] = "GENERATION"
	policy.UID, policy.ResourceVersion, policy.Generation, policy.ManagedFields = "", "", 0, nil
	policy.CreationTimestamp = metav1.Time{}
	for i := range policy.OwnerReferences {
		require.NotEmpty(t, policy.OwnerReferences[i].UID)
		policy.OwnerReferences[i].UID = "UID"
	}
	got, err := yaml.Marshal(policy)
	require.NoError(t, err)
	golden := harness.Root + "/testdata/networkpolicy/" + name + ".yaml"
	if os.Getenv("UPDATE_GOLDEN") != "" {
		require.NoError(t, os.WriteFile(golden, got, 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
}
