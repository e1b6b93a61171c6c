package agent

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/scripts/e2e/harness"
)

// TestRestartUsesSavedRanges restarts the agent while AWS is unreachable. With the saved ranges it writes nothing;
// without them every NetworkPolicy stays as it is.
func TestRestartUsesSavedRanges(t *testing.T) {
	s := harness.StartRangesServer(t)
	s.SetAnswer(harness.ServeDocument([]byte(harness.SampleRanges(t, "ip-ranges.json")), time.Unix(1_700_000_000, 0)))
	t.Setenv("SSL_CERT_FILE", s.CAFile)
	arguments := []string{"--ranges-url", s.URL(), "--refresh-interval", "1s"}
	harness.CreateNamespace(t, "tenant-offline")
	p := harness.StartAgent(t, arguments...)
	harness.Kubectl(t, harness.PolicyManifest("tenant-offline", "egress", harness.TenantA), "apply", "-f", "-")
	harness.AwaitNetworkPolicy(t, "tenant-offline", "egress", "there", harness.HasCIDR("198.18.0.0/24"))
	s.SetAnswer(harness.ServeDocument([]byte(harness.SampleRanges(t, "ip-ranges-next.json")), time.Unix(1_700_021_600, 0)))
	// The agent holds 198.18.4.0/24, which AWS removed, beside the new 198.18.5.0/24.
	before := harness.AwaitNetworkPolicy(t, "tenant-offline", "egress", "changed", harness.HasCIDR("198.18.4.0/23"))
	harness.AwaitQuiet(t)
	p.Stop(t)

	s.Close()
	mark, err := harness.Control(t).Mark()
	require.NoError(t, err)
	p = harness.StartAgent(t, arguments...)
	harness.Eventually(t, "the agent has tried a refresh", func() bool { return strings.Contains(p.Log(t), "refresh AWS ranges failed") })
	harness.AwaitQuiet(t)
	require.Empty(t, harness.AgentWrites(t, mark, "tenant-offline", "egress-system"), "with the ConfigMap")
	require.Equal(t, before, harness.GetNetworkPolicy(t, "tenant-offline", "egress"))

	for what, spoil := range map[string][]string{
		"without the ConfigMap":   {"delete", "configmap", "-n", "egress-system", "egress-ranges"},
		"with a broken ConfigMap": {"create", "configmap", "-n", "egress-system", "egress-ranges", "--from-literal=ip-ranges.json.gz=x"},
	} {
		p.Stop(t)
		harness.DeleteSavedRanges(t)
		if spoil[0] == "create" {
			harness.Kubectl(t, "", spoil...)
		}
		p = harness.StartAgent(t, arguments...)
		require.Contains(t, harness.AwaitEvent(t, "tenant-offline", "egress", "RangesUnavailable").Message, "the NetworkPolicy stays as it is until they are", what)
		require.Equal(t, before, harness.GetNetworkPolicy(t, "tenant-offline", "egress"), what)
		harness.Kubectl(t, "", "delete", "events", "-n", "tenant-offline", "--all")
	}
	harness.Kubectl(t, harness.PolicyManifest("tenant-offline", "new", harness.TenantA), "apply", "-f", "-")
	partial := harness.AwaitNetworkPolicy(t, "tenant-offline", "new", "there", harness.Exists)
	require.True(t, harness.Opens(partial, "10.1.0.0/24"))
	require.Len(t, partial.Spec.Egress, 2, "DNS and the CIDR")
	s.Listen(t)
	harness.AwaitNetworkPolicy(t, "tenant-offline", "new", "complete", harness.HasCIDR("198.18.5.0/24"))
}

// TestHoldEndClosesRemovedPrefix requires that the agent closes a prefix that AWS removed, but only after the hold.
func TestHoldEndClosesRemovedPrefix(t *testing.T) {
	clock := harness.NewClock(time.Unix(1_700_000_000, 0))
	s := harness.StartRangesServer(t)
	s.SetAnswer(harness.ServeDocument([]byte(harness.SampleRanges(t, "ip-ranges.json")), clock.Now()))
	harness.CreateNamespace(t, "tenant-hold")
	harness.Kubectl(t, harness.PolicyManifest("tenant-hold", "egress", harness.S3Policy), "apply", "-f", "-")
	e := harness.StartEmbeddedAgent(t, s, harness.WithClock(clock))
	harness.AwaitNetworkPolicy(t, "tenant-hold", "egress", "there", harness.HasCIDR("198.18.4.0/24"))
	s.SetAnswer(harness.ServeDocument([]byte(harness.SampleRanges(t, "ip-ranges-next.json")), clock.Now().Add(6*time.Hour)))
	held := harness.AwaitNetworkPolicy(t, "tenant-hold", "egress", "changed", harness.HasCIDR("198.18.4.0/23"))

	clock.Advance(24*time.Hour - time.Second)
	e.AwaitRefreshes(t, "unchanged")
	require.Equal(t, held, harness.GetNetworkPolicy(t, "tenant-hold", "egress"))
	s.Close()
	clock.Advance(time.Hour)
	e.AwaitRefreshes(t, "failed")
	require.Equal(t, held, harness.GetNetworkPolicy(t, "tenant-hold", "egress"), "a failed refresh closes nothing")
	require.InDelta(t, time.Hour.Seconds(), e.RangesMetric(t, "age_seconds", ""), 1)
	s.Listen(t)
	after := harness.AwaitNetworkPolicy(t, "tenant-hold", "egress", "closed", harness.HasCIDR("198.18.5.0/24"))
	require.False(t, harness.Opens(after, "198.18.4.0/23"))
	saved := harness.AwaitSavedRanges(t, "without a hold", func(c *corev1.ConfigMap) bool { return c.Annotations["egress-controller/held"] == "0" })
	require.Equal(t, "2023-11-14T22:13:20Z", saved.Annotations["egress-controller/accepted"])
	require.Equal(t, "2023-11-15T23:13:19Z", saved.Annotations["egress-controller/confirmed"])
}

// TestAcceptRangesOverridesRefusal accepts, as an operator would, the document that the agent has refused.
func TestAcceptRangesOverridesRefusal(t *testing.T) {
	s := harness.StartRangesServer(t)
	s.SetAnswer(harness.ServeDocument([]byte(harness.SampleRanges(t, "ip-ranges.json")), time.Unix(1_700_000_000, 0)))
	t.Setenv("SSL_CERT_FILE", s.CAFile)
	arguments := []string{"--ranges-url", s.URL(), "--refresh-interval", "1s", "--removal-hold", "0s"}
	harness.CreateNamespace(t, "tenant-accept")
	harness.Kubectl(t, harness.PolicyManifest("tenant-accept", "egress", harness.S3Policy), "apply", "-f", "-")
	p := harness.StartAgent(t, arguments...)
	harness.AwaitNetworkPolicy(t, "tenant-accept", "egress", "there", harness.HasCIDR("198.18.4.0/24"))
	var d map[string]any
	require.NoError(t, json.Unmarshal([]byte(harness.SampleRanges(t, "ip-ranges-next.json")), &d))
	d["prefixes"] = d["prefixes"].([]any)[:6]
	lossy, err := json.Marshal(d)
	require.NoError(t, err)
	s.SetAnswer(harness.ServeDocument(lossy, time.Unix(1_700_021_600, 0)))
	saved := harness.AwaitSavedRanges(t, "refusing", func(c *corev1.ConfigMap) bool { return c.Annotations["egress-controller/refused"] != "" })
	require.Equal(t, "the document has only 6 of the accepted 13 IPv4 rows; the minimum is 85 %; to accept the document anyway, start with --accept-ranges 1700021600", saved.Annotations["egress-controller/refused"])
	p.Stop(t)
	harness.StartAgent(t, append(arguments, "--accept-ranges", "1700021600")...)
	harness.AwaitNetworkPolicy(t, "tenant-accept", "egress", "changed", func(p *networkingv1.NetworkPolicy) bool { return !harness.Opens(p, "198.18.4.0/24") })
	harness.AwaitSavedRanges(t, "accepted", func(c *corev1.ConfigMap) bool {
		return c.Annotations["egress-controller/refused"] == "" && c.Annotations["egress-controller/sync-token"] == "1700021600"
	})
}

// TestChangedFileIsReloaded changes files: the agent reloads them at once, and so does the webhook, which mounts the
// ranges that the agent saves.
func TestChangedFileIsReloaded(t *testing.T) {
	dir := t.TempDir()
	file, own := dir+"/ip-ranges.json", dir+"/own.json"
	put := func(path, data string) {
		require.NoError(t, os.WriteFile(path+"~", []byte(data), 0o600))
		require.NoError(t, os.Rename(path+"~", path))
	}
	put(file, harness.SampleRanges(t, "ip-ranges.json"))
	put(own, harness.SampleRanges(t, "custom.json"))
	harness.CreateNamespace(t, "tenant-file")
	harness.StartAgent(t, "--ranges-file", file, "--custom-ranges", own)
	harness.Kubectl(t, harness.PolicyManifest("tenant-file", "egress", harness.S3Policy), "apply", "-f", "-")
	harness.Kubectl(t, harness.PolicyManifest("tenant-file", "own", `{"allowedDestinations": [{"name": "b", "awsService": "billing", "ports": [443]}]}`), "apply", "-f", "-")
	harness.AwaitNetworkPolicy(t, "tenant-file", "egress", "there", harness.HasCIDR("198.18.4.0/24"))
	harness.AwaitNetworkPolicy(t, "tenant-file", "own", "there", harness.HasCIDR("10.30.0.0/24"))
	put(file, harness.SampleRanges(t, "ip-ranges-next.json"))
	harness.AwaitNetworkPolicy(t, "tenant-file", "egress", "changed", harness.HasCIDR("198.18.4.0/23"))

	// This file stands for the webhook's mount: first the ranges that the agent saves, later invalid content.
	mounted := dir + "/ip-ranges.json.gz"
	webhook := harness.StartRegisteredWebhook(t, "--ranges-file", mounted)
	saved := harness.AwaitSavedRanges(t, "the next document", func(c *corev1.ConfigMap) bool { return c.Annotations["egress-controller/sync-token"] == "1700021600" })
	put(mounted, string(saved.BinaryData["ip-ranges.json.gz"]))
	harness.Eventually(t, "the webhook uses the agent's ranges", func() bool {
		return strings.Contains(webhook.Log(t), `msg="AWS ranges loaded" syncToken=1700021600 createDate=2023-11-15-04-13-20 rows=19`)
	})
	put(mounted, "broken")
	harness.Eventually(t, "the webhook logs that it cannot read the file", func() bool { return strings.Contains(webhook.Log(t), "ip-ranges.json.gz: not an ip-ranges document") })

	put(own, strings.Replace(harness.SampleRanges(t, "custom.json"), "10.30.0.0/24", "10.40.0.0/24", 1))
	harness.AwaitNetworkPolicy(t, "tenant-file", "own", "changed", harness.HasCIDR("10.40.0.0/24"))
}
