package platform

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/scripts/e2e/harness"
)

// baseline governs the namespaces of tier tenant. It denies metadata and mail.
const baseline = `{"namespaces": {"matchLabels": {"tier": "tenant"}},
 "allowedDestinations": [{"name": "logs", "cidr": "10.200.0.0/24", "ports": [443]}],
 "guardrails": {"denied": [{"name": "metadata", "cidr": "169.254.169.254/32", "reason": "node credentials"}, {"name": "smtp", "cidr": "0.0.0.0/0", "ports": [25]}]}}`

// denied are the points that no tenant may open under baseline.
var denied = []point{{"169.254.169.254", 80}, {"169.254.169.254", 443}, {"8.8.8.8", 25}, {"10.1.0.1", 25}}

type point struct {
	address string
	port    int32
}

// document returns a platform ConfigMap as YAML.
func document(name, text string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: egress-system, labels: {egress-controller: platform}}\ndata:\n  platform.json: |\n    %s\n",
		name, strings.ReplaceAll(text, "\n", "\n    "))
}

// applyDocument stores a platform document until the test ends.
func applyDocument(t *testing.T, name, text string) {
	t.Helper()
	harness.Kubectl(t, document(name, text), "apply", "-f", "-")
	t.Cleanup(func() {
		harness.Kubectl(t, "", "delete", "configmap", "-n", "egress-system", name, "--ignore-not-found")
		// The agent may have stopped before it removed what the document made.
		harness.Kubectl(t, "", "delete", "networkpolicy", "-A", "-l", "egress-controller/platform")
	})
}

// deleteSnapshot deletes what the agent has saved for the webhook, so that the next test starts without it.
func deleteSnapshot(t *testing.T) {
	t.Cleanup(func() {
		harness.Kubectl(t, "", "delete", "configmap", "-n", "egress-system", "egress-platform", "--ignore-not-found")
	})
}

// allows reads NetworkPolicies as Kubernetes defines them, and reports whether any of them opens a point.
func allows(t testing.TB, networkPolicies []networkingv1.NetworkPolicy, p point) bool {
	t.Helper()
	address := netip.MustParseAddr(p.address)
	for _, networkPolicy := range networkPolicies {
		for _, rule := range networkPolicy.Spec.Egress {
			opensPort := len(rule.Ports) == 0 || slices.ContainsFunc(rule.Ports, func(port networkingv1.NetworkPolicyPort) bool {
				last := port.Port.IntVal
				if port.EndPort != nil {
					last = *port.EndPort
				}
				return *port.Protocol == "TCP" && port.Port.IntVal <= p.port && p.port <= last
			})
			opensAddress := len(rule.To) == 0 || slices.ContainsFunc(rule.To, func(peer networkingv1.NetworkPolicyPeer) bool {
				return peer.IPBlock != nil && netip.MustParsePrefix(peer.IPBlock.CIDR).Contains(address)
			})
			if opensPort && opensAddress {
				return true
			}
		}
	}
	return false
}

// sampler reads all NetworkPolicies of a namespace every 50 ms, until the test ends or stop is called.
type sampler struct {
	stop     func()
	mu       sync.Mutex
	samples  int
	problems []string
}

// sample requires at each sample that a namespace has an egress NetworkPolicy, and that no denied point is open.
func sample(t *testing.T, namespace string) *sampler {
	ctx, cancel := context.WithCancel(context.Background())
	s := &sampler{}
	var running sync.WaitGroup
	running.Go(func() {
		for ; ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
			list, err := harness.Control(t).Admin.NetworkingV1().NetworkPolicies(namespace).List(ctx, metav1.ListOptions{})
			if err != nil {
				if ctx.Err() == nil && !apierrors.IsTimeout(err) {
					s.add("the API server does not answer: " + err.Error())
				}
				continue
			}
			s.mu.Lock()
			s.samples++
			s.mu.Unlock()
			if !slices.ContainsFunc(list.Items, func(p networkingv1.NetworkPolicy) bool {
				return slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
			}) {
				s.add("no egress NetworkPolicy")
			}
			for _, p := range denied {
				if allows(t, list.Items, p) {
					s.add(fmt.Sprintf("%s:%d is open", p.address, p.port))
				}
			}
		}
	})
	s.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(s.stop)
	return s
}

func (s *sampler) add(problem string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.problems) < 10 {
		s.problems = append(s.problems, problem)
	}
}

// require ends the samples, and requires that none of them found a problem.
func (s *sampler) require(t *testing.T) {
	t.Helper()
	s.stop()
	require.Greater(t, s.samples, 5)
	require.Empty(t, s.problems)
	t.Logf("%d samples", s.samples)
}

func list(t testing.TB, namespace string) []networkingv1.NetworkPolicy {
	t.Helper()
	found, err := harness.Control(t).Admin.NetworkingV1().NetworkPolicies(namespace).List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	return found.Items
}

// awaitOpen waits until a point is open in a namespace, or closed.
func awaitOpen(t *testing.T, namespace string, p point, isOpen bool) {
	t.Helper()
	harness.Eventually(t, fmt.Sprintf("%s:%d open: %t", p.address, p.port, isOpen), func() bool { return allows(t, list(t, namespace), p) == isOpen })
}

// mountSnapshot copies the snapshot from its ConfigMap to a file, as a kubelet does, and returns the file.
func mountSnapshot(t *testing.T) string {
	file := filepath.Join(t.TempDir(), "platform.json.gz")
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		version := ""
		for ; ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
			configMap, err := harness.Control(t).Admin.CoreV1().ConfigMaps("egress-system").Get(ctx, "egress-platform", metav1.GetOptions{})
			if err != nil || configMap.ResourceVersion == version {
				continue
			}
			if os.WriteFile(file+".next", configMap.BinaryData["platform.json.gz"], 0o600) == nil && os.Rename(file+".next", file) == nil {
				version = configMap.ResourceVersion
			}
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return file
}
