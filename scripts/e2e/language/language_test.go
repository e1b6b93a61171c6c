package language

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"egress-agent/scripts/e2e/harness"
)

// TestAPIServerPeers replaces the endpoint of the API server. At no version of the NetworkPolicy may both the old and the
// new address be closed, and the old one closes in the end.
func TestAPIServerPeers(t *testing.T) {
	harness.StartAgentWithRanges(t, "--settle", "2s")
	harness.CreateNamespace(t, "api")
	slices := harness.Control(t).Admin.DiscoveryV1().EndpointSlices("default")
	original, err := slices.Get(t.Context(), "kubernetes", metav1.GetOptions{})
	require.NoError(t, err)
	service, err := harness.Control(t).Admin.CoreV1().Services("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})
	require.NoError(t, err)
	endpoint, clusterIP := original.Endpoints[0].Addresses[0]+"/32", service.Spec.ClusterIP+"/32"
	port := *original.Ports[0].Port

	harness.Kubectl(t, harness.PolicyManifest("api", "egress", `{"allowedDestinations": [{"name": "api", "entity": "kube-apiserver"}]}`), "create", "-f", "-")
	made := harness.AwaitNetworkPolicy(t, "api", "egress", "open", harness.HasCIDR(endpoint))
	require.True(t, opens(made, clusterIP, 443))
	require.True(t, opens(made, endpoint, port))
	require.Equal(t, port == 443, opens(made, endpoint, 443), "each address with its own port")

	versions := watchPolicy(t, "api", "egress")
	const other = "198.51.100.7"
	replace(t, original, other) // the API server puts its own address back within seconds
	harness.AwaitNetworkPolicy(t, "api", "egress", "open to the new address", harness.HasCIDR(other+"/32"))
	harness.AwaitNetworkPolicy(t, "api", "egress", "closed to the new address again", func(policy *networkingv1.NetworkPolicy) bool {
		return harness.Opens(policy, endpoint) && !harness.Opens(policy, other+"/32")
	})
	seen := versions()
	require.GreaterOrEqual(t, len(seen), 2)
	for i, policy := range seen {
		require.True(t, opens(policy, clusterIP, 443), "the Service is always open")
		if i > 0 {
			isKept := func(cidr string) bool { return harness.Opens(seen[i-1], cidr) && harness.Opens(policy, cidr) }
			require.True(t, isKept(endpoint) || isKept(other+"/32"), "an address stays open over each write")
		}
	}
	mark, err := harness.Control(t).Mark()
	require.NoError(t, err)
	harness.AwaitQuiet(t)
	require.Empty(t, harness.NetworkPolicyWrites(t, mark, "api"), "idle")
}

// replace replaces the address of an EndpointSlice.
func replace(t *testing.T, slice *discoveryv1.EndpointSlice, address string) {
	t.Helper()
	patch := fmt.Sprintf(`[{"op": "replace", "path": "/endpoints", "value": [{"addresses": [%q], "conditions": {"ready": true}}]}]`, address)
	_, err := harness.Control(t).Admin.DiscoveryV1().EndpointSlices("default").Patch(t.Context(), slice.Name, types.JSONPatchType, []byte(patch), metav1.PatchOptions{})
	require.NoError(t, err)
}

// watchPolicy watches a NetworkPolicy. The function that it returns stops the watch and returns all versions, the current
// one first.
func watchPolicy(t *testing.T, namespace, name string) func() []*networkingv1.NetworkPolicy {
	t.Helper()
	policies := harness.Control(t).Admin.NetworkingV1().NetworkPolicies(namespace)
	current, err := policies.Get(t.Context(), name, metav1.GetOptions{})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	watcher, err := policies.Watch(ctx, metav1.ListOptions{ResourceVersion: current.ResourceVersion})
	require.NoError(t, err)
	done := make(chan []*networkingv1.NetworkPolicy, 1)
	go func() {
		versions := []*networkingv1.NetworkPolicy{current}
		for event := range watcher.ResultChan() {
			if policy, ok := event.Object.(*networkingv1.NetworkPolicy); ok && event.Type == watch.Modified {
				versions = append(versions, policy)
			}
		}
		done <- versions
	}()
	return func() []*networkingv1.NetworkPolicy {
		stop()
		watcher.Stop()
		return <-done
	}
}

// opens reports whether a NetworkPolicy opens a TCP port on a CIDR that it lists.
func opens(policy *networkingv1.NetworkPolicy, cidr string, port int32) bool {
	return slices.ContainsFunc(policy.Spec.Egress, func(rule networkingv1.NetworkPolicyEgressRule) bool {
		isPeer := slices.ContainsFunc(rule.To, func(peer networkingv1.NetworkPolicyPeer) bool {
			return peer.IPBlock != nil && peer.IPBlock.CIDR == cidr
		})
		return isPeer && (len(rule.Ports) == 0 || slices.ContainsFunc(rule.Ports, func(allowed networkingv1.NetworkPolicyPort) bool {
			return allowed.Port.IntVal == port
		}))
	})
}

// TestSelectors stores policies for some pods of a namespace, and with pods as destinations. The API server must accept
// each NetworkPolicy, and store it as the agent wrote it.
func TestSelectors(t *testing.T) {
	harness.StartAgentWithRanges(t)
	harness.CreateNamespace(t, "pods")
	harness.Kubectl(t, harness.PolicyManifest("pods", "web", `{"podSelector": {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["test"]}]},
		"allowedDestinations": [
			{"name": "backend", "pods": {"app": "backend"}, "ports": [8080]},
			{"name": "own", "pods": {}, "ports": [9000]},
			{"name": "metrics", "namespace": "monitoring", "ports": [9090]},
			{"name": "traces", "namespace": "monitoring", "pods": {"app": "tempo"}, "ports": [8080]}]}`), "create", "-f", "-")
	made := harness.AwaitNetworkPolicy(t, "pods", "web", "there", harness.Exists)
	require.Equal(t, metav1.LabelSelector{
		MatchLabels:      map[string]string{"app": "web"},
		MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "tier", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"test"}}},
	}, made.Spec.PodSelector)
	var peers []string
	for _, rule := range made.Spec.Egress[1:] { // the first rule is for DNS
		for _, peer := range rule.To {
			namespace := "own"
			if peer.NamespaceSelector != nil {
				namespace = metav1.FormatLabelSelector(peer.NamespaceSelector)
			}
			peers = append(peers, fmt.Sprintf("%s %s %d", namespace, metav1.FormatLabelSelector(peer.PodSelector), rule.Ports[0].Port.IntVal))
		}
	}
	require.Equal(t, []string{
		"own <none> 9000", "own app=backend 8080", "kubernetes.io/metadata.name=monitoring app=tempo 8080", "kubernetes.io/metadata.name=monitoring <none> 9090",
	}, peers)

	harness.Kubectl(t, "", "patch", "networkpolicy", "-n", "pods", "web", "--type=json", "-p", `[{"op": "replace", "path": "/spec/podSelector", "value": {}}]`)
	harness.AwaitNetworkPolicy(t, "pods", "web", "restored", func(policy *networkingv1.NetworkPolicy) bool {
		return policy.Spec.PodSelector.MatchLabels["app"] == "web"
	})
	harness.AwaitEvent(t, "pods", "web", "Restored")
	mark, err := harness.Control(t).Mark()
	require.NoError(t, err)
	harness.Kubectl(t, "", "annotate", "configmap", "-n", "pods", "web", "touched=yes")
	harness.AwaitQuiet(t)
	require.Empty(t, harness.NetworkPolicyWrites(t, mark, "pods"))
}

// TestDestinationsExpire waits for the times of destinations, with a real clock. Each must close within a second, and not
// before its time.
func TestDestinationsExpire(t *testing.T) {
	agent := harness.StartAgentWithRanges(t)
	harness.CreateNamespace(t, "expires")
	start := time.Now().UTC().Truncate(time.Second).Add(6 * time.Second)
	destinations := []string{`{"name": "always", "cidr": "10.9.0.0/24", "ports": [443]}`}
	const count = 5
	for i := range count {
		destinations = append(destinations, fmt.Sprintf(`{"name": "d%d", "cidr": "10.%d.0.0/24", "ports": [443], "expires": %q}`, i, i, start.Add(time.Duration(i)*time.Second).Format(time.RFC3339)))
	}
	harness.Kubectl(t, harness.PolicyManifest("expires", "egress", `{"allowedDestinations": [`+strings.Join(destinations, ", ")+`]}`), "create", "-f", "-")
	harness.AwaitNetworkPolicy(t, "expires", "egress", "there", harness.Exists)
	require.True(t, time.Now().Before(start), "the machine is too slow for the times of the test")
	for i := range count {
		cidr, expires := fmt.Sprintf("10.%d.0.0/24", i), start.Add(time.Duration(i)*time.Second)
		harness.AwaitNetworkPolicy(t, "expires", "egress", "closed to "+cidr, func(policy *networkingv1.NetworkPolicy) bool {
			isOpen := isCovered(policy, cidr)
			require.True(t, isOpen || !time.Now().Before(expires), "closed too early")
			return !isOpen
		})
		t.Logf("%s closed after %s", cidr, time.Since(expires))
	}
	policy := harness.GetNetworkPolicy(t, "expires", "egress")
	require.Equal(t, start.Add((count-1)*time.Second).Format(time.RFC3339), policy.Annotations["egress-controller/expired"])
	event := harness.AwaitEvent(t, "expires", "egress", "Expired")
	require.Contains(t, event.Message, "These destinations have expired and open nothing: d0 on ")
	require.Zero(t, agent.Metric(t, "egress_agent_next_expiry_timestamp_seconds"))

	mark, err := harness.Control(t).Mark()
	require.NoError(t, err)
	agent.Stop(t)
	harness.StartAgentWithRanges(t)
	harness.AwaitQuiet(t)
	require.Empty(t, harness.NetworkPolicyWrites(t, mark, "expires"), "another agent finds nothing to do")
}

// isCovered reports whether a NetworkPolicy opens every address of a CIDR.
func isCovered(policy *networkingv1.NetworkPolicy, cidr string) bool {
	inner := netip.MustParsePrefix(cidr)
	return slices.ContainsFunc(policy.Spec.Egress, func(rule networkingv1.NetworkPolicyEgressRule) bool {
		return slices.ContainsFunc(rule.To, func(peer networkingv1.NetworkPolicyPeer) bool {
			if peer.IPBlock == nil {
				return false
			}
			outer := netip.MustParsePrefix(peer.IPBlock.CIDR)
			return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
		})
	})
}

// TestWebhookRefusesExpired creates and edits policies with a destination that has expired.
func TestWebhookRefusesExpired(t *testing.T) {
	const expired = `{"name": "vpn", "cidr": "10.2.0.0/24", "ports": [443], "expires": "2026-01-31"}`
	const other = `{"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]}`
	harness.CreateNamespace(t, "refused")
	harness.Kubectl(t, harness.PolicyManifest("refused", "stored", `{"allowedDestinations": [`+expired+`]}`), "create", "-f", "-") // without the webhook
	harness.StartRegisteredWebhook(t)
	harness.Kubectl(t, "", "label", "namespace", "refused", "egress-validation=enabled")
	harness.AwaitRefusals(t, "refused")

	_, stderr, err := harness.TryKubectl(t, harness.PolicyManifest("refused", "new", `{"allowedDestinations": [`+expired+`]}`), "create", "-f", "-")
	require.Error(t, err)
	require.Contains(t, stderr, "Expired: vpn opens nothing since 2026-02-01T00:00:00Z; remove it, or set a later date (allowedDestinations[0].expires)")

	_, stderr, err = harness.TryKubectl(t, harness.PolicyManifest("refused", "stored", `{"allowedDestinations": [`+other+`, `+expired+`]}`), "replace", "-f", "-")
	require.NoError(t, err, stderr)
	require.Contains(t, stderr, "Warning: vpn has expired, 2026-01-31, and opens nothing; remove it (allowedDestinations[1].expires)")

	changed := strings.Replace(expired, "443", "8443", 1)
	_, stderr, err = harness.TryKubectl(t, harness.PolicyManifest("refused", "stored", `{"allowedDestinations": [`+changed+`]}`), "replace", "-f", "-")
	require.Error(t, err)
	require.Contains(t, stderr, "Expired: vpn opens nothing since")
}
