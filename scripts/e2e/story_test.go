package e2e

import (
	"context"
	"encoding/json"
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
)

const (
	tenantA = `{"defaultAction": "deny",
 "allowedDestinations": [
   {"name": "s3", "awsService": "s3", "regions": ["us-east-1"], "ports": [443]},
   {"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]}]}`
	tenantAWest = `{"defaultAction": "deny",
 "allowedDestinations": [
   {"name": "s3", "awsService": "s3", "regions": ["us-east-1", "us-west-2"], "ports": [443]},
   {"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]}]}`
	tenantB = `{"allowedDestinations": [
   {"name": "tables", "awsService": "DynamoDB", "regions": ["us-east-1"], "ports": [443]},
   {"name": "partners", "cidr": "10.2.0.0/16", "ports": [{"port": 8000, "endPort": 8100}, {"port": 53, "protocol": "UDP"}]}]}`
	bad = `{"allowedDestinations": [
   {"name": "s3", "awsService": "s3", "regions": ["us-esat-1"], "ports": [443]},
   {"name": "db", "cidr": "10.1.0.5/24", "prots": [5432]}]}`
	badMessage = `Policy validation failed: Invalid region: us-esat-1; did you mean us-east-1? (allowedDestinations[0].regions[0]); ` +
		`Invalid CIDR format: 10.1.0.5/24 has host bits set; did you mean 10.1.0.0/24? (allowedDestinations[1].cidr); ` +
		`Unknown field: prots; did you mean "ports"? (allowedDestinations[1].prots)`
)

// TestStory is what tenants do, in the order in which they come to it.
func TestStory(t *testing.T) {
	whole := t // for what outlives a step
	agent := startAgent(t, "--ranges-file", ranges)
	startWebhook(t)
	namespace(t, "tenant-a", "egress-validation=enabled")
	namespace(t, "tenant-b", "egress-validation=enabled")
	namespace(t, "tenant-open")
	refusesSoon(t, "tenant-a")

	step := func(name string, f func(t *testing.T)) {
		if !t.Run(name, f) {
			t.FailNow() // each step stands on those before it
		}
	}
	step("tenants onboard", func(t *testing.T) {
		kubectl(t, manifest("tenant-a", "egress", tenantA)+"---\n"+manifest("tenant-b", "egress", tenantB), "apply", "-f", "-")
		equalsGolden(t, eventuallyPolicy(t, "tenant-a", "egress", "there", exists), "tenant-a")
		equalsGolden(t, eventuallyPolicy(t, "tenant-b", "egress", "there", exists), "tenant-b")
		require.Equal(t, "NetworkPolicy egress is in force, with these numbers of CIDRs: s3=2 db=1", eventuallyEvent(t, "tenant-a", "egress", "Applied").Message)
	})
	step("warnings reach the tenant", func(t *testing.T) {
		_, stderr, err := tryKubectl(manifest("tenant-a", "egress", tenantA), "apply", "--dry-run=server", "-f", "-")
		require.NoError(t, err)
		require.NotContains(t, stderr, "Warning", "what is stored already is not judged again")
		_, stderr, err = tryKubectl(manifest("tenant-a", "more", tenantA), "apply", "--dry-run=server", "-f", "-")
		require.NoError(t, err)
		require.Equal(t, "Warning: s3 opens S3, which also covers every AWS customer's buckets: 512 IPv4 addresses (allowedDestinations[0].awsService)\n", stderr)
	})
	step("a bad policy is refused where the namespace opted in", func(t *testing.T) {
		_, stderr, err := tryKubectl(manifest("tenant-a", "typo", bad), "apply", "-f", "-")
		require.Error(t, err)
		require.Equal(t, `Error from server (Forbidden): error when creating "STDIN": admission webhook "policy.egress-controller.io" denied the request: `+badMessage+"\n", stderr)
		_, _, err = tryKubectl("", "get", "configmap", "typo", "-n", "tenant-a")
		require.Error(t, err, "it was not stored")
	})
	step("the same one is stored elsewhere, and denies all", func(t *testing.T) {
		kubectl(t, manifest("tenant-open", "typo", bad), "apply", "-f", "-")
		equalsGolden(t, eventuallyPolicy(t, "tenant-open", "typo", "there", exists), "deny-all")
		event := eventuallyEvent(t, "tenant-open", "typo", "Invalid")
		require.Equal(t, badMessage+"; until it is corrected, all egress but DNS is denied", event.Message)
		require.Equal(t, "Warning", event.Type)
		quiet(t)
		require.Equal(t, 1, strings.Count(kubectl(t, "", "get", "events", "-n", "tenant-open", "-o", "name"), "event/"), "the mistake is told once")
		kubectl(t, "", "patch", "networkpolicy", "-n", "tenant-open", "typo", "--type", "merge", "-p", `{"spec": {"egress": [{}]}}`)
		eventuallyPolicy(t, "tenant-open", "typo", "restored", func(p *networkingv1.NetworkPolicy) bool { return p.Generation == 3 })
		equalsGolden(t, getPolicy(t, "tenant-open", "typo"), "deny-all")
		kubectl(t, manifest("tenant-open", "typo", tenantA), "apply", "-f", "-")
		eventuallyPolicy(t, "tenant-open", "typo", "corrected", func(p *networkingv1.NetworkPolicy) bool { return opens(p, "10.1.0.0/24") })
	})
	step("an invalid edit keeps the last good policy", func(t *testing.T) {
		before := getPolicy(t, "tenant-open", "typo")
		kubectl(t, manifest("tenant-open", "typo", `{"allowedDestinations": [{}]}`), "apply", "-f", "-")
		require.Eventually(t, func() bool {
			events := kubectl(t, "", "get", "events", "-n", "tenant-open", "-o", "jsonpath={.items[*].message}")
			return strings.Contains(events, "the last valid policy stays in force")
		}, soon, 50*time.Millisecond)
		require.Equal(t, before, getPolicy(t, "tenant-open", "typo"))
		kubectl(t, "", "patch", "networkpolicy", "-n", "tenant-open", "typo", "--type", "merge", "-p", `{"spec": {"egress": [{}]}}`)
		after := eventuallyPolicy(t, "tenant-open", "typo", "restored", func(p *networkingv1.NetworkPolicy) bool { return p.Generation == before.Generation+2 })
		require.Equal(t, before.Spec, after.Spec)
		eventuallyEvent(t, "tenant-open", "typo", "Restored")
		kubectl(t, "", "delete", "configmap", "-n", "tenant-open", "typo")
		eventuallyPolicy(t, "tenant-open", "typo", "gone", gone)
	})
	step("an edit is applied in place", func(t *testing.T) {
		before := getPolicy(t, "tenant-a", "egress")
		kubectl(t, "", "patch", "configmap", "-n", "tenant-a", "egress", "-p", patchOf(t, tenantAWest))
		after := eventuallyPolicy(t, "tenant-a", "egress", "updated", func(p *networkingv1.NetworkPolicy) bool { return opens(p, "198.18.8.0/24") })
		require.Equal(t, before.UID, after.UID)
		require.Equal(t, before.Generation+1, after.Generation)
		equalsGolden(t, after, "tenant-a-west")
	})
	step("an edit by hand is undone", func(t *testing.T) {
		before := getPolicy(t, "tenant-a", "egress")
		kubectl(t, "", "patch", "networkpolicy", "-n", "tenant-a", "egress", "--type", "merge", "-p", `{"spec": {"egress": [{}]}}`)
		after := eventuallyPolicy(t, "tenant-a", "egress", "restored", func(p *networkingv1.NetworkPolicy) bool {
			return p.Generation == before.Generation+2
		})
		require.Equal(t, before.Spec, after.Spec)
		require.Equal(t, before.UID, after.UID)
		eventuallyEvent(t, "tenant-a", "egress", "Restored")
		kubectl(t, "", "label", "networkpolicy", "-n", "tenant-a", "egress", "app.kubernetes.io/managed-by-")
		eventuallyPolicy(t, "tenant-a", "egress", "labelled again", func(p *networkingv1.NetworkPolicy) bool {
			return p.Labels["app.kubernetes.io/managed-by"] == "egress-agent"
		})
	})
	step("a deletion by hand is undone", func(t *testing.T) {
		before := getPolicy(t, "tenant-b", "egress")
		kubectl(t, "", "delete", "networkpolicy", "-n", "tenant-b", "egress")
		after := eventuallyPolicy(t, "tenant-b", "egress", "restored", func(p *networkingv1.NetworkPolicy) bool {
			return p != nil && p.UID != before.UID
		})
		require.Equal(t, before.Spec, after.Spec)
		eventuallyEvent(t, "tenant-b", "egress", "Restored")
	})
	step("what others put on a NetworkPolicy stays", func(t *testing.T) {
		kubectl(t, "", "label", "networkpolicy", "-n", "tenant-a", "egress", "team=payments")
		kubectl(t, "", "annotate", "networkpolicy", "-n", "tenant-a", "egress", "example.com/note=kept")
		kubectl(t, "", "patch", "networkpolicy", "-n", "tenant-a", "egress", "--type", "merge", "-p", `{"metadata": {"finalizers": ["example.com/hold"]}}`)
		kubectl(t, "", "patch", "configmap", "-n", "tenant-a", "egress", "-p", patchOf(t, tenantA))
		after := eventuallyPolicy(t, "tenant-a", "egress", "updated", func(p *networkingv1.NetworkPolicy) bool { return !opens(p, "198.18.8.0/24") })
		require.Equal(t, "payments", after.Labels["team"])
		require.Equal(t, "kept", after.Annotations["example.com/note"])
		require.Equal(t, []string{"example.com/hold"}, after.Finalizers)
		kubectl(t, "", "patch", "networkpolicy", "-n", "tenant-a", "egress", "--type", "merge", "-p", `{"metadata": {"finalizers": null}}`)
	})
	step("a NetworkPolicy of others is never touched", func(t *testing.T) {
		kubectl(t, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: ours, namespace: tenant-b}\nspec: {podSelector: {}, policyTypes: [Ingress]}\n", "apply", "-f", "-")
		before := getPolicy(t, "tenant-b", "ours")
		kubectl(t, manifest("tenant-b", "ours", tenantB), "apply", "-f", "-")
		eventuallyEvent(t, "tenant-b", "ours", "NameConflict")
		require.Equal(t, before, getPolicy(t, "tenant-b", "ours"))
		kubectl(t, "", "delete", "configmap", "-n", "tenant-b", "ours")
		quiet(t)
		require.Equal(t, before, getPolicy(t, "tenant-b", "ours"), "it outlives the ConfigMap")
		kubectl(t, manifest("tenant-b", "ours", tenantB), "apply", "-f", "-")
		kubectl(t, "", "delete", "networkpolicy", "-n", "tenant-b", "ours")
		eventuallyPolicy(t, "tenant-b", "ours", "the agent's once the other is gone", func(p *networkingv1.NetworkPolicy) bool { return opens(p, "10.2.0.0/16") })
	})
	step("more ports than the dataplane keeps", func(t *testing.T) {
		policy := `{"allowedDestinations": [{"name": "apps", "cidr": "10.0.0.0/8", "ports": [` + ports(1001, 20) + `]}]}`
		kubectl(t, manifest("tenant-b", "apps", policy), "apply", "-f", "-")
		kubectl(t, manifest("tenant-b", "host", strings.ReplaceAll(strings.ReplaceAll(policy, "10.0.0.0/8", "10.3.0.1/32"), ports(1001, 20), ports(3001, 3))), "apply", "-f", "-")
		require.Contains(t, eventuallyEvent(t, "tenant-b", "host", "Invalid").Message,
			"Too many ports: 10.3.0.1/32 has 23 ports and port ranges, and DNS takes 2; the dataplane keeps 24 for a CIDR: "+
				"join or drop ports of this or the namespace's other policies, which apply to the same pods (allowedDestinations)")
		require.False(t, opens(getPolicy(t, "tenant-b", "host"), "10.3.0.1/32"))
		kubectl(t, manifest("tenant-b", "apps", strings.ReplaceAll(policy, ports(1001, 20), ports(1001, 19))), "apply", "-f", "-")
		eventuallyPolicy(t, "tenant-b", "host", "applied once there is room", func(p *networkingv1.NetworkPolicy) bool { return opens(p, "10.3.0.1/32") })
		_, stderr, err := tryKubectl(manifest("tenant-b", "apps", strings.ReplaceAll(policy, ports(1001, 20), ports(1001, 23))), "apply", "-f", "-")
		require.Error(t, err)
		require.Contains(t, stderr, "Too many ports: 10.0.0.0/8 has 23 ports and port ranges, and DNS takes 2; the dataplane keeps 24 for a CIDR: join or drop ports of apps (allowedDestinations)")
		kubectl(t, "", "delete", "configmap", "-n", "tenant-b", "apps", "host")
		eventuallyPolicy(t, "tenant-b", "apps", "gone", gone)
		eventuallyPolicy(t, "tenant-b", "host", "gone", gone)
	})
	step("a long name is cut", func(t *testing.T) {
		name := strings.Repeat("long-", 20) + "name"
		kubectl(t, manifest("tenant-b", name, tenantB), "apply", "-f", "-")
		policy := eventuallyPolicy(t, "tenant-b", "long-long-long-long-long-long-long-long-long-l-8f24b2dceb", "there", exists)
		require.Equal(t, name, policy.OwnerReferences[0].Name)
		kubectl(t, "", "delete", "configmap", "-n", "tenant-b", name)
		eventuallyPolicy(t, "tenant-b", policy.Name, "gone", gone)
	})
	step("a second look writes nothing", func(t *testing.T) {
		quiet(t)
		mark, err := control.Mark()
		require.NoError(t, err)
		agent.stop(t)
		agent = startAgent(whole, "--ranges-file", ranges)
		quiet(t)
		writes, err := control.Writes(mark, "egress-agent")
		require.NoError(t, err)
		require.Empty(t, writes)
		kubectl(t, "", "annotate", "configmap", "-n", "tenant-a", "egress", "example.com/note=new")
		quiet(t)
		writes, err = control.Writes(mark, "egress-agent")
		require.NoError(t, err)
		require.Empty(t, writes, "an edit that leaves the policy alone writes nothing either")
		kubectl(t, "", "delete", "networkpolicy", "-n", "tenant-b", "egress")
		eventuallyPolicy(t, "tenant-b", "egress", "restored", exists)
		writes, err = control.Writes(mark, "egress-agent")
		require.NoError(t, err)
		require.Contains(t, writes, "create networkpolicies tenant-b/egress", "the log does tell of writes")
	})
	step("without its label a ConfigMap is no policy", func(t *testing.T) {
		kubectl(t, "", "label", "configmap", "-n", "tenant-b", "ours", "egress-controller-")
		eventuallyPolicy(t, "tenant-b", "ours", "gone", gone)
	})
	step("what happened while the agent was down is made up for", func(t *testing.T) {
		kubectl(t, manifest("tenant-b", "deleted", tenantB), "apply", "-f", "-")
		kubectl(t, manifest("tenant-b", "orphaned", tenantB), "apply", "-f", "-")
		eventuallyPolicy(t, "tenant-b", "deleted", "there", exists)
		eventuallyPolicy(t, "tenant-b", "orphaned", "there", exists)
		agent.stop(t)
		kubectl(t, "", "label", "configmap", "-n", "tenant-a", "egress", "egress-controller-")
		kubectl(t, "", "delete", "configmap", "-n", "tenant-b", "deleted")
		kubectl(t, "", "delete", "configmap", "-n", "tenant-b", "orphaned", "--cascade=orphan")
		kubectl(t, "", "patch", "networkpolicy", "-n", "tenant-b", "egress", "--type", "merge", "-p", `{"spec": {"egress": [{}]}}`)
		require.NotNil(t, getPolicy(t, "tenant-a", "egress"))
		agent = startAgent(whole, "--ranges-file", ranges)
		eventuallyPolicy(t, "tenant-a", "egress", "gone", gone)
		eventuallyPolicy(t, "tenant-b", "deleted", "gone", gone)
		eventuallyEventOn(t, "tenant-b", "NetworkPolicy", "orphaned", "NotMade", func(corev1.Event) bool { return true })
		require.NotNil(t, getPolicy(t, "tenant-b", "orphaned"), "without its owner, nothing shows who made it")
		kubectl(t, "", "delete", "networkpolicy", "-n", "tenant-b", "orphaned")
		equalsGolden(t, eventuallyPolicy(t, "tenant-b", "egress", "restored", func(p *networkingv1.NetworkPolicy) bool { return opens(p, "10.2.0.0/16") }), "tenant-b")
	})
	step("a namespace goes with all that is in it", func(t *testing.T) {
		kubectl(t, "", "delete", "namespace", "tenant-b", "--timeout=60s")
		quiet(t)
		require.NotContains(t, agent.logged(t), "will retry", "the agent gives up quietly")
	})
}

// TestRangesUnavailable has no AWS ranges at first: what needs none is applied, what is there stays.
func TestRangesUnavailable(t *testing.T) {
	s := newSource(t)
	s.answers(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	t.Setenv("SSL_CERT_FILE", s.caFile)
	startAgent(t, "--ranges-url", s.url(), "--refresh-interval", "1s")
	namespace(t, "tenant-c")
	kubectl(t, manifest("tenant-c", "egress", tenantA), "apply", "-f", "-")
	policy := eventuallyPolicy(t, "tenant-c", "egress", "there", exists)
	require.True(t, opens(policy, "10.1.0.0/24"))
	require.Len(t, policy.Spec.Egress, 2, "DNS and the CIDR")
	require.Contains(t, eventuallyEvent(t, "tenant-c", "egress", "RangesUnavailable").Message, `["s3"]`)

	kubectl(t, manifest("tenant-c", "egress", strings.ReplaceAll(tenantA, "10.1.0.0/24", "10.9.0.0/24")), "apply", "-f", "-")
	quiet(t)
	require.Equal(t, policy, getPolicy(t, "tenant-c", "egress"), "what is there stays")

	s.answers(document([]byte(sampleDocument(t, "ip-ranges.json")), time.Unix(1_700_000_000, 0)))
	policy = eventuallyPolicy(t, "tenant-c", "egress", "complete", func(p *networkingv1.NetworkPolicy) bool { return opens(p, "198.18.0.0/24") })
	require.True(t, opens(policy, "10.9.0.0/24"))
}

// ports are n of them that no range joins, as a policy lists them.
func ports(first, n int) string {
	var list []string
	for i := range n {
		list = append(list, strconv.Itoa(first+2*i))
	}
	return strings.Join(list, ", ")
}

// refusesSoon waits until the API server has taken up the webhook's configuration.
func refusesSoon(t *testing.T, namespace string) {
	t.Helper()
	require.Eventually(t, func() bool {
		_, _, err := tryKubectl(manifest(namespace, "probe", bad), "apply", "--dry-run=server", "-f", "-")
		return err != nil
	}, soon, 100*time.Millisecond, "bad policies are not refused")
}

// quiet waits until nothing has been written for two seconds.
func quiet(t *testing.T) {
	t.Helper()
	for before := version(t); ; {
		time.Sleep(2 * time.Second)
		after := version(t)
		if before == after {
			return
		}
		before = after
	}
}

// version changes with every write to what a test looks at.
func version(t *testing.T) string {
	t.Helper()
	list, err := control.Admin.NetworkingV1().NetworkPolicies("").List(context.Background(), metav1.ListOptions{})
	require.NoError(t, err)
	var versions []string
	for _, policy := range list.Items {
		versions = append(versions, policy.Namespace+policy.Name+policy.ResourceVersion)
	}
	return strings.Join(versions, " ")
}

func patchOf(t *testing.T, policy string) string {
	t.Helper()
	patch, err := json.Marshal(map[string]any{"data": map[string]string{"policy.json": policy}})
	require.NoError(t, err)
	return string(patch)
}

// equalsGolden compares a stored NetworkPolicy, less what the API server adds and differs by run, to
// a file in testdata/networkpolicy. UPDATE_GOLDEN=1 writes the file.
func equalsGolden(t *testing.T, policy *networkingv1.NetworkPolicy, name string) {
	t.Helper()
	policy = policy.DeepCopy()
	policy.APIVersion, policy.Kind = "networking.k8s.io/v1", "NetworkPolicy"
	policy.UID, policy.ResourceVersion, policy.Generation, policy.ManagedFields = "", "", 0, nil
	policy.CreationTimestamp = metav1.Time{}
	for i := range policy.OwnerReferences {
		require.NotEmpty(t, policy.OwnerReferences[i].UID)
		policy.OwnerReferences[i].UID = "UID"
	}
	got, err := yaml.Marshal(policy)
	require.NoError(t, err)
	golden := root + "/testdata/networkpolicy/" + name + ".yaml"
	if os.Getenv("UPDATE_GOLDEN") != "" {
		require.NoError(t, os.WriteFile(golden, got, 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
}
