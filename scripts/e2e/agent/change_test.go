package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"egress-agent/scripts/e2e/harness"
)

// syntheticRowCount is the number of IPv4 CIDRs to which AWS's AMAZON aggregates in all regions, on 2026-08-22.
const syntheticRowCount = 1753

// TestLargeChangeWidensBeforeItNarrows changes the ports of a policy of many CIDRs and watches every version. The first
// write has the old and the new ports, the second, some time later, only the new ones. If the agent is killed in
// between, its successor does the second write. The ranges are AWS's if IP_RANGES_DATA is set, and synthetic otherwise.
func TestLargeChangeWidensBeforeItNarrows(t *testing.T) {
	document := amazonDocument(t)
	arguments := []string{"--ranges-file", document, "--settle", "3s"}
	agent := harness.StartAgent(t, arguments...)
	harness.CreateNamespace(t, "tenant-large")
	policy := func(ports string) string {
		return `{"allowedDestinations": [{"name": "aws", "awsService": "amazon", "ports": [` + ports + `]}]}`
	}
	harness.Kubectl(t, harness.PolicyManifest("tenant-large", "egress", policy("443")), "apply", "-f", "-")
	harness.AwaitNetworkPolicy(t, "tenant-large", "egress", "there", harness.Exists)
	require.Equal(t, []string{"[443] on 1753"}, summarize(harness.GetNetworkPolicy(t, "tenant-large", "egress")))

	versions := watchVersions(t, "tenant-large")
	harness.Kubectl(t, harness.PolicyManifest("tenant-large", "egress", policy("443, 80")), "apply", "-f", "-")
	first, at := nextVersion(t, versions)
	require.Equal(t, []string{"[80 443] on 1753", "[443] on 1753"}, first)
	second, later := nextVersion(t, versions)
	require.Equal(t, []string{"[80 443] on 1753"}, second)
	require.GreaterOrEqual(t, later.Sub(at), 2*time.Second, "the agent waits three seconds between the writes")

	harness.Kubectl(t, harness.PolicyManifest("tenant-large", "egress", policy("8443")), "apply", "-f", "-")
	first, _ = nextVersion(t, versions)
	require.Equal(t, []string{"[8443] on 1753", "[80 443] on 1753"}, first)
	agent.Kill(t)
	harness.StartAgent(t, arguments...)
	second, _ = nextVersion(t, versions)
	require.Equal(t, []string{"[8443] on 1753"}, second)
	harness.AwaitQuiet(t)
	require.Empty(t, versions, "the agent has stored no other version")
}

// amazonDocument returns the path of a document in which AMAZON aggregates to syntheticRowCount CIDRs.
func amazonDocument(t *testing.T) string {
	if dir := os.Getenv("IP_RANGES_DATA"); dir != "" {
		return filepath.Join(dir, "ip-ranges.json")
	}
	type row struct {
		Prefix  string `json:"ip_prefix"`
		Region  string `json:"region"`
		Service string `json:"service"`
	}
	rows := make([]row, 0, syntheticRowCount)
	for i := range syntheticRowCount {
		rows = append(rows, row{fmt.Sprintf("198.%d.%d.%d/27", 18+i>>10, i>>2&255, i&3*64), "us-east-1", "AMAZON"}) // no two aggregate
	}
	data, err := json.Marshal(map[string]any{"syncToken": "1", "createDate": "1970-01-01-00-00-01", "prefixes": rows})
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "ip-ranges.json")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

// watchVersions returns a channel of all later versions of a namespace's NetworkPolicies.
func watchVersions(t *testing.T, namespace string) <-chan watch.Event {
	t.Helper()
	client := harness.Control(t).Admin.NetworkingV1().NetworkPolicies(namespace)
	list, err := client.List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	watcher, err := client.Watch(context.Background(), metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	require.NoError(t, err)
	t.Cleanup(watcher.Stop)
	versions := make(chan watch.Event, 100)
	go func() {
		for event := range watcher.ResultChan() {
			versions <- event
		}
	}()
	return versions
}

// nextVersion returns what the next version allows, and when the API server stored it, to the second.
func nextVersion(t *testing.T, versions <-chan watch.Event) ([]string, time.Time) {
	t.Helper()
	select {
	case event := <-versions:
		require.Equal(t, watch.Modified, event.Type)
		policy := event.Object.(*networkingv1.NetworkPolicy)
		require.Len(t, policy.ManagedFields, 1, "only the agent has written it")
		return summarize(policy), policy.ManagedFields[0].Time.Time
	case <-time.After(harness.Timeout):
		require.FailNow(t, "no other version came")
		return nil, time.Time{}
	}
}

// summarize returns each rule except the DNS rule, as "[PORTS] on NUMBER", where NUMBER counts its CIDRs.
func summarize(policy *networkingv1.NetworkPolicy) []string {
	var rules []string
	for _, rule := range policy.Spec.Egress {
		var ports []string
		for _, port := range rule.Ports {
			ports = append(ports, port.Port.String())
		}
		if rule.To[0].IPBlock != nil {
			rules = append(rules, fmt.Sprintf("[%s] on %d", strings.Join(ports, " "), len(rule.To)))
		}
	}
	return rules
}
