package harness

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/scripts/e2e/cluster"
)

// GetNetworkPolicy returns a NetworkPolicy, or nil if it does not exist.
func GetNetworkPolicy(t testing.TB, namespace, name string) *networkingv1.NetworkPolicy {
	t.Helper()
	policy, err := Control(t).Admin.NetworkingV1().NetworkPolicies(namespace).Get(context.Background(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	require.NoError(t, err)
	return policy
}

// AwaitNetworkPolicy waits until isExpected returns true for a NetworkPolicy, and returns the NetworkPolicy. The
// argument of isExpected is nil if the NetworkPolicy does not exist. adjective completes the message "NetworkPolicy …
// is not …".
func AwaitNetworkPolicy(
	t testing.TB, namespace, name, adjective string, isExpected func(*networkingv1.NetworkPolicy) bool,
) *networkingv1.NetworkPolicy {
	t.Helper()
	var policy *networkingv1.NetworkPolicy
	deadline := time.Now().Add(Timeout)
	for policy = GetNetworkPolicy(t, namespace, name); !isExpected(policy); policy = GetNetworkPolicy(t, namespace, name) {
		if time.Now().After(deadline) {
			require.FailNow(t, "NetworkPolicy "+namespace+"/"+name+" is not "+adjective, "%+v", policy)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return policy
}

// Exists reports whether a NetworkPolicy exists, for AwaitNetworkPolicy.
func Exists(policy *networkingv1.NetworkPolicy) bool { return policy != nil }

// IsGone reports whether a NetworkPolicy does not exist, for AwaitNetworkPolicy.
func IsGone(policy *networkingv1.NetworkPolicy) bool { return policy == nil }

// Opens reports whether a rule of the policy has exactly this CIDR as a peer. It returns false for nil.
func Opens(policy *networkingv1.NetworkPolicy, cidr string) bool {
	if policy == nil {
		return false
	}
	for _, rule := range policy.Spec.Egress {
		for _, peer := range rule.To {
			if peer.IPBlock != nil && peer.IPBlock.CIDR == cidr {
				return true
			}
		}
	}
	return false
}

// HasCIDR returns a function for AwaitNetworkPolicy that calls Opens with this CIDR.
func HasCIDR(cidr string) func(*networkingv1.NetworkPolicy) bool {
	return func(policy *networkingv1.NetworkPolicy) bool { return Opens(policy, cidr) }
}

// AgentWrites returns the agent's writes to these namespaces since a mark, in the form of cluster.Writes. It leaves out
// other namespaces, because those of earlier tests may still be terminating.
func AgentWrites(t testing.TB, mark cluster.Mark, namespaces ...string) []string {
	t.Helper()
	writes, err := Control(t).Writes(mark, AgentName)
	require.NoError(t, err)
	return slices.DeleteFunc(writes, func(write string) bool {
		return !slices.ContainsFunc(namespaces, func(namespace string) bool { return strings.Contains(write, " "+namespace+"/") })
	})
}

// NetworkPolicyWrites is AgentWrites for NetworkPolicies only.
func NetworkPolicyWrites(t testing.TB, mark cluster.Mark, namespaces ...string) []string {
	t.Helper()
	return slices.DeleteFunc(AgentWrites(t, mark, namespaces...), func(write string) bool {
		return !strings.Contains(write, " networkpolicies ")
	})
}
