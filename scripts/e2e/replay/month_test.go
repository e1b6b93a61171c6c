package replay

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/agent"
	"egress-agent/scripts/e2e/harness"
)

// TestReplayWritesOncePerChange serves the documents of a month, each at its time, and counts the writes. The agent
// must write a NetworkPolicy once for each document that changes the addresses that it opens, after holds, and at no
// other time. It must write the ConfigMap of ranges once for each document. The test computes the expected addresses
// with code of its own.
func TestReplayWritesOncePerChange(t *testing.T) {
	files := rangesDocuments(t)
	ranges, services := newPublishedRanges(), map[string]*serviceOpening{"s3": {}, "ec2": {}, "amazon": {}, "dynamodb": {}}
	clock, s := harness.NewClock(time.Time{}), harness.StartRangesServer(t)
	publish := func(file string) (token string) {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		token = strings.TrimSuffix(filepath.Base(file), ".json")
		seconds, err := strconv.ParseInt(token, 10, 64)
		require.NoError(t, err)
		published := time.Unix(seconds, 0)
		require.NoError(t, ranges.publish(data, published))
		for service, e := range services {
			e.now = ranges.open[serviceRegion{strings.ToUpper(service), "us-east-1"}]
		}
		answer := harness.ServeDocument(data, published)
		s.SetAnswer(func(w http.ResponseWriter, r *http.Request) {
			clock.Set(published) // the first refresh that gets it is at its time
			answer(w, r)
		})
		return token
	}
	hasToken := func(token string) func(*corev1.ConfigMap) bool {
		return func(c *corev1.ConfigMap) bool { return c.Annotations["egress-controller/sync-token"] == token }
	}

	harness.Eventually(t, "the policies of other tests are deleted", func() bool {
		return harness.Kubectl(t, "", "get", "configmaps", "-A", "-l", "egress-controller=managed", "-o", "name") == ""
	})
	first := publish(files[0])
	for service := range services {
		harness.CreateNamespace(t, "tenant-"+service)
		t.Cleanup(func() { harness.Kubectl(t, "", "delete", "configmap,networkpolicy", "-n", "tenant-"+service, "--all") })
		policy := fmt.Sprintf(`{"allowedDestinations": [{"name": "aws", "awsService": %q, "regions": ["us-east-1"], "ports": [443]}]}`, service)
		harness.Kubectl(t, harness.PolicyManifest("tenant-"+service, "egress", policy), "apply", "-f", "-")
	}
	e := harness.StartEmbeddedAgent(t, s, func(o *agent.Options) { o.Source.Feed.Now, o.Source.Interval = clock.Now, 20*time.Millisecond })
	settled := func() {
		for service, expected := range services {
			harness.AwaitNetworkPolicy(t, "tenant-"+service, "egress", "what AWS publishes and what is held", func(p *networkingv1.NetworkPolicy) bool {
				return p != nil && slices.Equal(addressesOf(p), expected.now)
			})
			expected.countChange()
		}
	}
	harness.AwaitSavedRanges(t, "the first publication", hasToken(first))
	settled()

	e.AwaitRefreshes(t, "unchanged")
	writtenBefore := e.RangesMetric(t, "policies_written_total", "")
	mark, err := harness.Control(t).Mark()
	require.NoError(t, err)
	for _, file := range files[1:] {
		harness.AwaitSavedRanges(t, "the next publication", hasToken(publish(file)))
		settled()
	}
	e.AwaitRefreshes(t, "unchanged")
	writes := make(map[string]int)
	for _, write := range harness.AgentWrites(t, mark, "tenant-s3", "tenant-ec2", "tenant-amazon", "tenant-dynamodb", "egress-system") {
		if !strings.Contains(write, " events ") {
			writes[write]++
		}
	}
	want := map[string]int{"update configmaps egress-system/egress-ranges": len(files) - 1}
	for service, expected := range services {
		if expected.changes > 0 {
			want["update networkpolicies tenant-"+service+"/egress"] = expected.changes
		}
		t.Logf("%s in us-east-1: %d publications of %d change it", service, expected.changes, len(files)-1)
	}
	require.Equal(t, want, writes)
	require.LessOrEqual(t, services["s3"].changes, 5)
	require.Positive(t, services["amazon"].changes)
	written := 0
	for _, expected := range services {
		written += expected.changes
	}
	require.EqualValues(t, written, e.RangesMetric(t, "policies_written_total", "")-writtenBefore)
	require.EqualValues(t, len(files), e.RangesMetric(t, "refresh_total", "accepted"))
	require.Zero(t, e.RangesMetric(t, "refresh_total", "refused"))
	require.Contains(t, harness.AwaitEvent(t, "tenant-amazon", "egress", "RangesChanged").Message, "The ranges changed, CIDRs added: ")
}

// rangesDocuments returns the files of a month of documents, oldest first, each named by its syncToken. With E2E_ALL they
// are AWS's from the folder history in IP_RANGES_DATA, if it is set. Otherwise they are synthetic.
func rangesDocuments(t *testing.T) []string {
	files, err := filepath.Glob(filepath.Join(os.Getenv("IP_RANGES_DATA"), "history", "*.json"))
	require.NoError(t, err)
	slices.Sort(files)
	if len(files) > 0 && harness.RunsAll() {
		return files
	}
	files = nil
	dir := t.TempDir()
	for n := range 60 {
		token := strconv.Itoa(1_700_000_000 + n*int((12*time.Hour).Seconds()))
		file := filepath.Join(dir, token+".json")
		require.NoError(t, os.WriteFile(file, syntheticDocument(t, token, n), 0o600))
		files = append(files, file)
	}
	return files
}

// syntheticDocument returns document n of a month. As in AWS's documents, prefixes appear, and disappear for 12 to 36
// hours. S3 gets one more prefix, and later loses it for good.
func syntheticDocument(t *testing.T, token string, n int) []byte {
	type row struct {
		Prefix  string `json:"ip_prefix"`
		Region  string `json:"region"`
		Service string `json:"service"`
		Group   string `json:"network_border_group"`
	}
	var rows []row
	add := func(service string, i int) {
		prefix := fmt.Sprintf("198.18.%d.0/24", 2*i) // no two are adjacent
		rows = append(rows, row{prefix, "us-east-1", service, "us-east-1"})
	}
	for i := range 100 {
		if (n+7*i)%30 < i%4 {
			continue // it has disappeared
		}
		add("AMAZON", i)
		if i%10 == 3 {
			add("EC2", i)
		}
	}
	for i := 100; i < 110; i++ {
		add("S3", i)
		add("DYNAMODB", i+10)
	}
	if n >= 20 && n < 40 {
		add("S3", 125)
	}
	data, err := json.Marshal(map[string]any{"syncToken": token, "createDate": "2023-11-14-22-13-20", "prefixes": rows, "ipv6_prefixes": []row{}})
	require.NoError(t, err)
	return data
}

// serviceOpening is what NetworkPolicies must open for one service in us-east-1.
type serviceOpening struct {
	now, before spans
	changes     int
}

// countChange counts a change if the open addresses differ from those of the last call.
func (o *serviceOpening) countChange() {
	if o.before != nil && !slices.Equal(o.before, o.now) {
		o.changes++
	}
	o.before = o.now
}

// addressesOf returns the addresses that a NetworkPolicy opens, whatever the port.
func addressesOf(policy *networkingv1.NetworkPolicy) spans {
	var found []span
	for _, rule := range policy.Spec.Egress {
		for _, peer := range rule.To {
			if peer.IPBlock != nil {
				found = append(found, spanOf(netip.MustParsePrefix(peer.IPBlock.CIDR)))
			}
		}
	}
	return join(found)
}
