package deployed

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
)

// TestProbe runs the probe of make preflight with real Pods, whose image PROBE_IMAGE the nodes must be able to pull. NFT
// is a command that runs nft on the only node of a cluster without an enforcer. With it, the test enforces the probe's
// policies itself.
func TestProbe(t *testing.T) {
	if os.Getenv("DEPLOYED") != "1" {
		t.Skip("this runs Pods in a running cluster: make test-deployed")
	}
	client := connect(t)
	const proof, stored = "the probe proves that NetworkPolicies are enforced on", "error    NetworkPolicies are stored and not enforced on"
	if os.Getenv("NFT") == "" {
		require.Regexp(t, proof+"|"+stored, probe(t, client))
		return
	}
	require.Contains(t, probe(t, client), stored)
	t.Run("enforced", func(t *testing.T) {
		enforce(t, client, false)
		require.Contains(t, probe(t, client), "ok       "+proof)
	})
	t.Run("denied without a policy", func(t *testing.T) {
		enforce(t, client, true)
		require.Contains(t, probe(t, client), "error    a Pod without any NetworkPolicy is denied on")
	})
}

// probe runs the probe and returns its output. The probe must delete its namespace.
func probe(t *testing.T, client *kubernetes.Clientset) string {
	t.Helper()
	output, _ := shell("make preflight PROBE=1") // its other checks may fail
	t.Log(output)
	require.Contains(t, output, "==> Deleting the namespace egress-probe-")
	namespaces, err := client.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	for _, namespace := range namespaces.Items {
		require.NotContains(t, namespace.Name, "egress-probe-")
	}
	return output
}

// enforce enforces the NetworkPolicies of probes in the node's kernel until the test ends. If isStrict, it also closes
// the Pods of probes that have none.
func enforce(t *testing.T, client *kubernetes.Clientset, isStrict bool) {
	t.Helper()
	const remove = "table inet egress_probe\ndelete table inet egress_probe\n"
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		for before := ""; ctx.Err() == nil; time.Sleep(100 * time.Millisecond) {
			rules, err := nftRules(ctx, client, isStrict)
			if err == nil && rules != before {
				if err = nft(remove + rules); err == nil {
					before = rules
				}
			}
			if err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) {
				t.Error(err)
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
		require.NoError(t, nft(remove))
	})
}

func nft(script string) error {
	command := exec.Command("sh", "-c", os.Getenv("NFT")+" -f -")
	command.Stdin = strings.NewReader(script)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, output)
	}
	return nil
}

// nftRules returns a table for nft with what the egress rules of probes' NetworkPolicies allow their Pods.
func nftRules(ctx context.Context, client *kubernetes.Clientset, isStrict bool) (string, error) {
	pods, err := client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", err
	}
	policies, err := client.NetworkingV1().NetworkPolicies("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("table inet egress_probe {\nchain forward {\ntype filter hook forward priority 0\nct state established,related accept\n")
	for _, pod := range pods.Items {
		if !strings.HasPrefix(pod.Namespace, "egress-probe-") || pod.Status.PodIP == "" {
			continue
		}
		isSelected := false
		for _, policy := range policies.Items {
			if policy.Namespace == pod.Namespace {
				isSelected = true
				allow(&b, pod, policy, pods.Items)
			}
		}
		if isSelected || isStrict {
			fmt.Fprintf(&b, "ip saddr %s drop\n", pod.Status.PodIP)
		}
	}
	b.WriteString("}\n}\n")
	return b.String(), nil
}

// allow appends a rule for each peer and port of the egress rules of policy.
func allow(b *strings.Builder, from corev1.Pod, policy networkingv1.NetworkPolicy, pods []corev1.Pod) {
	for _, rule := range policy.Spec.Egress {
		for _, peer := range rule.To {
			var addresses []string
			if peer.IPBlock != nil {
				addresses = []string{peer.IPBlock.CIDR}
			}
			for _, pod := range pods {
				if peer.PodSelector != nil && pod.Namespace == policy.Namespace && labels.SelectorFromSet(peer.PodSelector.MatchLabels).Matches(labels.Set(pod.Labels)) {
					addresses = append(addresses, pod.Status.PodIP)
				}
			}
			for _, address := range addresses {
				for _, port := range rule.Ports {
					fmt.Fprintf(b, "ip saddr %s ip daddr %s tcp dport %s accept\n", from.Status.PodIP, address, port.Port)
				}
			}
		}
	}
}
