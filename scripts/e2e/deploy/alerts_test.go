package deploy

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/scripts/e2e/cluster"
	"egress-agent/scripts/e2e/harness"
)

// scrapeCount is the number of scrapes of a scene. It is more than any alert needs.
const scrapeCount = 40

// scene is a deployment of both programs in which something may be wrong.
type scene struct {
	agent   []string // further flags
	webhook func(t *testing.T, w *harness.Webhook)
	mirror  string      // the kubeconfig of its hub, or empty to run none
	step    func(i int) // runs before each scrape
	scrapes int         // the default is scrapeCount
}

// TestEachAlertFires causes each alert with the real programs, and evaluates the rules on their metrics with
// Prometheus' own engine. If nothing is wrong, no alert may fire.
func TestEachAlertFires(t *testing.T) {
	harness.SkipUnlessAll(t)
	harness.CreateNamespace(t, "alerts")
	rules := alertRules(t)
	neverFired := make(map[string]bool)
	for _, rule := range rules {
		neverFired[rule.Alert] = true
	}
	seen := make(map[string]bool)
	for _, test := range []struct {
		name  string
		fires []string
		set   func(t *testing.T, s *scene)
	}{
		{"nothing is wrong", []string{}, func(t *testing.T, s *scene) {}},
		{"another process holds the Lease, and does nothing", []string{"EgressAgentNotLeading"}, heldLease},
		{"policies cannot be written", []string{"EgressAgentSyncErrors"}, withoutCreateRight},
		{"a policy is invalid", []string{"EgressPolicyNotApplied"}, invalidPolicy},
		{"a NetworkPolicy has another owner", []string{"EgressPolicyNotApplied"}, nameConflict},
		{"a platform document is invalid", []string{"EgressPlatformInvalid"}, invalidDocument},
		{"a guardrail cuts a policy, and the webhook has no copy", []string{"EgressPolicyGuarded", "EgressPlatformStale"}, guardedPolicy},
		{"AWS does not answer", []string{"EgressRangesOld"}, unconfirmedRanges},
		{"nobody replaces the file", []string{"EgressRangesOld"}, oldFile},
		{"a document lacks half", []string{"EgressRangesRefused"}, halfADocument},
		{"the ranges nearly fill a ConfigMap", []string{"EgressRangesNotKept"}, manyRanges},
		{"the certificate expires soon", []string{"EgressWebhookCertificateExpiring"}, expiringCertificate},
		{"too many reviews at once", []string{"EgressWebhookRefusing"}, fillWebhook},
		{"API servers do not trust the webhook", []string{"EgressWebhookRefusing"}, failHandshakes},
		{"the hub lacks copies, and has a policy whose name is taken", []string{"EgressMirrorDeletionsHeld", "EgressMirrorNotCopied"}, emptyHub},
		{"the hub is away", []string{"EgressMirrorHubAway"}, lostHub},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHistory(t)
			runScene(t, h, test.set)
			require.Equal(t, test.fires, h.firing(t, rules))
			for _, alert := range test.fires {
				delete(neverFired, alert)
			}
			for name := range h.names {
				seen[name] = true
			}
		})
	}
	t.Run("nothing runs", func(t *testing.T) {
		h := newHistory(t)
		for range scrapeCount {
			h.scrape(t)
		}
		require.Equal(t, []string{"EgressWebhookDown", "EgressAgentNotLeading"}, h.firing(t, rules))
		delete(neverFired, "EgressWebhookDown")
	})
	require.Empty(t, neverFired, "each alert fires in some scene")
	for _, query := range dashboardQueries(t) {
		expression, err := parser.NewParser(parser.Options{}).ParseExpr(query)
		require.NoError(t, err, query)
		for _, selectors := range parser.ExtractSelectors(expression) {
			require.True(t, seen[selectors[len(selectors)-1].Value], "the programs have the metrics of %s", query)
		}
	}
}

// runScene runs both programs and scrapes them.
func runScene(t *testing.T, h *history, set func(t *testing.T, s *scene)) {
	s := &scene{step: func(int) {}, webhook: func(*testing.T, *harness.Webhook) {}}
	t.Cleanup(func() { harness.Kubectl(t, "", "delete", "configmap,networkpolicy", "-n", "alerts", "--all") })
	createPolicy(t, "good", `{"allowedDestinations": [{"name": "s3", "awsService": "s3", "regions": ["us-east-1"], "ports": [443]}]}`)
	set(t, s)
	if s.agent == nil {
		s.agent = []string{"--ranges-file", writeRanges(t, time.Now(), "")}
	}
	w := &harness.Webhook{Address: harness.FreeAddress(t), CertsDir: t.TempDir()}
	writeCertificate(t, w.CertsDir, 90*24*time.Hour)
	s.webhook(t, w)
	w.Start(t)
	processes := []*harness.Process{w.Process, harness.StartAgent(t, s.agent...)}
	if s.mirror != "" {
		processes = append(processes, harness.StartProcess(t, harness.AgentName, "mirror", "--kubeconfig", harness.Control(t).Kubeconfig, "--from-kubeconfig", s.mirror))
	}
	for i := range cmp.Or(s.scrapes, scrapeCount) {
		s.step(i)
		time.Sleep(30 * time.Millisecond)
		h.scrape(t, processes...)
	}
}

func createPolicy(t *testing.T, name, policy string) {
	t.Helper()
	_, err := harness.Control(t).Admin.CoreV1().ConfigMaps("alerts").Create(context.Background(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"egress-controller": "managed"}},
		Data:       map[string]string{"policy.json": policy},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
}

// writeRanges writes the sample ranges with another publication time and more IPv6 rows, and returns the path.
func writeRanges(t *testing.T, at time.Time, rows string) (path string) {
	text, err := os.ReadFile(harness.RangesFile)
	require.NoError(t, err)
	fresh := strings.Replace(string(text), "1700000000", strconv.FormatInt(at.Unix(), 10), 1)
	require.NotEqual(t, string(text), fresh)
	fresh = strings.Replace(fresh, `"ipv6_prefixes": [`, `"ipv6_prefixes": [`+rows, 1)
	path = filepath.Join(t.TempDir(), "ip-ranges.json")
	require.NoError(t, os.WriteFile(path, []byte(fresh), 0o600))
	return path
}

// writeCertificate writes a certificate that is valid for a time from now on.
func writeCertificate(t *testing.T, dir string, lasts time.Duration) {
	certificate := harness.NewCertificateFor(t, lasts)
	key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(dir+"/tls.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}), 0o600))
	require.NoError(t, os.WriteFile(dir+"/tls.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
}

func heldLease(t *testing.T, s *scene) {
	s.agent = []string{"--ranges-file", writeRanges(t, time.Now(), ""), "--leader-elect=true"}
	holder, seconds, now := "somebody", int32(3600), metav1.NowMicro()
	leases := harness.Control(t).Admin.CoordinationV1().Leases(harness.AgentNamespace)
	harness.Kubectl(t, "", "delete", "lease", "-n", harness.AgentNamespace, harness.AgentName, "--ignore-not-found")
	_, err := leases.Create(t.Context(), &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: harness.AgentName},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, AcquireTime: &now, RenewTime: &now},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { harness.Kubectl(t, "", "delete", "lease", "-n", harness.AgentNamespace, harness.AgentName) })
}

// withoutCreateRight removes the right to create NetworkPolicies, while new policies arrive.
func withoutCreateRight(t *testing.T, s *scene) {
	t.Cleanup(func() { harness.Kubectl(t, "", "replace", "-f", harness.Root+"/deploy/base/agent-rbac.yaml") })
	s.step = func(i int) {
		if i == 0 {
			roles := harness.Control(t).Admin.RbacV1().ClusterRoles()
			role, err := roles.Get(t.Context(), harness.AgentName, metav1.GetOptions{})
			require.NoError(t, err)
			role.Rules = withoutRight(role.Rules, right{resource: "networkpolicies", verb: "create"})
			_, err = roles.Update(t.Context(), role, metav1.UpdateOptions{})
			require.NoError(t, err)
		}
		createPolicy(t, fmt.Sprintf("refused-%d", i), `{"allowedDestinations": []}`)
	}
}

func invalidPolicy(t *testing.T, _ *scene) {
	createPolicy(t, "invalid", `{"allowedDestinations": [{}]}`)
}

func createDocument(t *testing.T, document string) {
	t.Helper()
	configMaps := harness.Control(t).Admin.CoreV1().ConfigMaps(harness.AgentNamespace)
	_, err := configMaps.Create(context.Background(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "platform", Labels: map[string]string{"egress-controller": "platform"}},
		Data:       map[string]string{"platform.json": document},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		harness.Kubectl(t, "", "delete", "configmap", "-n", harness.AgentNamespace, "platform", "egress-platform", "--ignore-not-found")
	})
}

func invalidDocument(t *testing.T, _ *scene) { createDocument(t, `{"namespaces": {}}`) }

func guardedPolicy(t *testing.T, _ *scene) {
	createDocument(t, `{"namespaces": {}, "guardrails": {"denied": [{"name": "ten", "cidr": "10.0.0.0/8"}]}}`)
	createPolicy(t, "guarded", `{"allowedDestinations": [{"name": "one", "cidr": "10.1.0.0/16", "ports": [443]}]}`)
}

func nameConflict(t *testing.T, _ *scene) {
	harness.Kubectl(t, `{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "theirs", "namespace": "alerts"}, "spec": {"podSelector": {}}}`, "create", "-f", "-")
	createPolicy(t, "theirs", `{"allowedDestinations": []}`)
}

// unconfirmedRanges has saved ranges that are two days old, and no server for new ones.
func unconfirmedRanges(t *testing.T, s *scene) {
	text, err := os.ReadFile(writeRanges(t, time.Now().Add(-48*time.Hour), ""))
	require.NoError(t, err)
	var packed bytes.Buffer
	writer := gzip.NewWriter(&packed)
	_, err = writer.Write(text)
	require.NoError(t, err)
	require.NoError(t, writer.Close())
	then := time.Now().Add(-48 * time.Hour).UTC().Format(time.RFC3339)
	_, err = harness.Control(t).Admin.CoreV1().ConfigMaps(harness.AgentNamespace).Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "egress-ranges", Annotations: map[string]string{"egress-controller/accepted": then, "egress-controller/confirmed": then}},
		BinaryData: map[string][]byte{"ip-ranges.json.gz": packed.Bytes()},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	s.agent = []string{"--ranges-url", "https://" + harness.FreeAddress(t) + "/ip-ranges.json"}
}

func oldFile(t *testing.T, s *scene) {
	s.agent = []string{"--ranges-file", writeRanges(t, time.Now().Add(-15*24*time.Hour), "")}
}

// halfADocument replaces the ranges file by a document that lacks most rows. The agent reads it again every second.
func halfADocument(t *testing.T, s *scene) {
	path := writeRanges(t, time.Now().Add(-time.Hour), "")
	s.agent = []string{"--ranges-file", path, "--refresh-interval", "1s"}
	half := fmt.Sprintf(`{"syncToken": "%d", "createDate": "2026-01-01-00-00-00", "prefixes": [{"ip_prefix": "198.18.0.0/25", "region": "us-east-1", "service": "AMAZON", "network_border_group": "us-east-1"}], "ipv6_prefixes": []}`, time.Now().Unix())
	s.step = func(i int) {
		if i == 5 {
			require.NoError(t, os.WriteFile(path, []byte(half), 0o600))
			harness.AwaitSavedRanges(t, "annotated with a refusal", func(c *corev1.ConfigMap) bool { return c.Annotations["egress-controller/refused"] != "" })
		}
		time.Sleep(30 * time.Millisecond)
	}
}

// manyRanges has so many prefixes, in random order, that they nearly fill a ConfigMap even if compressed. To read them
// takes half a minute with the race detector, so the programs run without.
func manyRanges(t *testing.T, s *scene) {
	var rows strings.Builder
	random := rand.New(rand.NewPCG(1, 2))
	for range 115_000 {
		fmt.Fprintf(&rows, `{"ipv6_prefix": "2600:%x:%x:%x::/64", "region": "us-east-1", "service": "EC2", "network_border_group": "us-east-1"},`,
			random.IntN(1<<16), random.IntN(1<<16), random.IntN(1<<16))
	}
	t.Setenv("E2E_BIN", "")
	s.agent = []string{"--ranges-file", writeRanges(t, time.Now(), rows.String())}
	s.step = func(i int) {
		if i == 0 {
			harness.AwaitSavedRanges(t, "nearly full", func(c *corev1.ConfigMap) bool { return len(c.BinaryData["ip-ranges.json.gz"]) > 800<<10 })
		}
	}
}

func expiringCertificate(t *testing.T, s *scene) {
	s.webhook = func(t *testing.T, w *harness.Webhook) { writeCertificate(t, w.CertsDir, 24*time.Hour) }
}

// fillWebhook fills the webhook's memory limit for one client with incomplete bodies, and sends more requests. The
// webhook frees the memory of an incomplete body after some seconds, so it fills it again. The webhook closes each
// connection over the limit of one client.
func fillWebhook(t *testing.T, s *scene) {
	var address string
	s.webhook = func(_ *testing.T, w *harness.Webhook) { address = w.Address }
	dialer := &tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: dialer.Config}}
	begun := strings.Repeat(" ", 40_000) // the webhook reserves 64 KiB of 8 MiB for it
	fill := func() {
		for range 130 {
			connection, err := dialer.DialContext(t.Context(), "tcp", address)
			if err != nil {
				return
			}
			t.Cleanup(func() { connection.Close() })
			fmt.Fprint(connection, "POST /validate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 120000\r\n\r\n"+begun)
		}
	}
	s.step = func(int) {
		for refused, end := 0, time.Now().Add(time.Minute); refused < 3; {
			require.True(t, time.Now().Before(end), "the webhook is never busy")
			response, err := client.Post("https://"+address+"/validate", "application/json", strings.NewReader("{}"))
			if err != nil {
				continue // over the limit of connections
			}
			response.Body.Close()
			if response.StatusCode == http.StatusTooManyRequests {
				refused++
			} else {
				fill()
			}
		}
	}
}

func failHandshakes(t *testing.T, s *scene) {
	var address string
	s.webhook = func(_ *testing.T, w *harness.Webhook) { address = w.Address }
	s.step = func(int) {
		for range 3 {
			connection, err := net.Dial("tcp", address)
			require.NoError(t, err)
			err = tls.Client(connection, &tls.Config{ServerName: "egress-webhook.egress-system.svc"}).Handshake()
			require.Error(t, err)
			connection.Close()
		}
	}
}

// startHub starts a second control plane, and a mirror of it.
func startHub(t *testing.T, s *scene) *cluster.Cluster {
	hub, err := cluster.Start(t.Context(), harness.ControlPlaneDir, t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, hub.Stop()) })
	s.mirror = hub.Kubeconfig
	return hub
}

// emptyHub has only a policy whose name is taken here, and lacks the policies of three copies.
func emptyHub(t *testing.T, s *scene) {
	hub := startHub(t, s)
	create := func(c *cluster.Cluster, name string, labels map[string]string) {
		labels["egress-controller"] = "managed"
		_, err := c.Admin.CoreV1().ConfigMaps("alerts").Create(t.Context(), &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Data: map[string]string{"policy.json": `{"allowedDestinations": []}`},
		}, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	_, err := hub.Admin.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "alerts"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	create(hub, "good", map[string]string{})
	system, err := hub.Admin.CoreV1().Namespaces().Get(t.Context(), metav1.NamespaceSystem, metav1.GetOptions{})
	require.NoError(t, err)
	for i := range 3 {
		create(harness.Control(t), fmt.Sprintf("copy-%d", i), map[string]string{"egress-controller/mirrored-from": string(system.UID)})
	}
	s.scrapes = 9 // in 16 minutes: too few for the alert about a hub that is away
	s.step = func(i int) {
		if i == 0 {
			time.Sleep(5 * time.Second) // the mirror waits for three, and asks for each policy
		}
	}
}

// lostHub has a hub without policies. Later its kubeconfig leads nowhere.
func lostHub(t *testing.T, s *scene) {
	hub := startHub(t, s)
	s.step = func(i int) {
		if i == 1 {
			kubeconfig, err := os.ReadFile(hub.Kubeconfig)
			require.NoError(t, err)
			lost := regexp.MustCompile(`server: .*`).ReplaceAll(kubeconfig, []byte("server: https://"+harness.FreeAddress(t)))
			require.NoError(t, os.WriteFile(hub.Kubeconfig, lost, 0o600))
		}
	}
}
