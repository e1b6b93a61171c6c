package hostile

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/scripts/e2e/cluster"
	"egress-agent/scripts/e2e/harness"
)

// policies returns a function that stores n policies with the documents of policy.
func policies(n int, policy func(i int) string) func(w *world) {
	return func(w *world) {
		w.create(n, func(i int) *corev1.ConfigMap { return ConfigMap(fmt.Sprintf("p%d", i), policy(i)) })
	}
}

// attacks are what one namespace may store beside 50 ordinary tenants, if no webhook denies it.
var attacks = []struct {
	name  string
	short bool // runs also without E2E_ALL
	stays bool // an agent that starts reads it from the API server
	store func(w *world)
	after func(w *world) (problem string) // another check, or nil
}{
	{"200 policies of amazon everywhere", false, true, policies(200, func(int) string { return Amazon(1) }), nil},
	{"250 policies of 900 KB of white space", false, true, policies(250, func(int) string { return Blank(900_000) }), nil},
	{"40 policies of 1 MB of CIDRs", false, true, policies(40, func(i int) string { return CIDRs(16_000, 16_000*i) }), nil},
	{"9,000 repeated regions", false, true, policies(1, func(int) string { return RepeatedRegions(9000) }), nil},
	{"one policy of 147 KB of amazon", true, true, policies(1, func(int) string { return AmazonPorts(2900, 0) }), nil},
	{"four policies of 36 KB of amazon", false, true, policies(4, func(i int) string { return AmazonPorts(720, 1000*i) }), nil},
	{"1,000 sets of regions, 20 of ports, in 10 policies", false, true, policies(10, func(int) string { return Subsets(1000, 20) }), nil},
	{"5,000 ConfigMaps without a policy", false, true, func(w *world) {
		w.create(5000, func(i int) *corev1.ConfigMap {
			c := ConfigMap(fmt.Sprintf("e%d", i), "")
			c.Data = nil
			return c
		})
	}, nil},
	{"a policy edited 50 times a second", false, false, func(w *world) { w.edited(Small) }, nil},
	{"an invalid policy edited 50 times a second", false, false, func(w *world) {
		w.edited(func(i int) string { return UnknownFields(100 + i) })
	}, nil},
	{"1,000 NetworkPolicies with the agent's label", true, false, handMade, handMadeStay},
	{"two names that become one", true, false, collide, collisionIsReported},
	// These came later than the first list:
	{"1,000 policies deleted at once", false, false, func(w *world) {
		policies(1000, Small)(w)
		w.rest()
		w.delete()
	}, nil},
	{"a policy in kube-system", false, false, closeDNS, nothingIsWritten},
	{"200 policies with 900 KB beside them", false, true, func(w *world) {
		w.create(200, func(i int) *corev1.ConfigMap {
			c := ConfigMap(fmt.Sprintf("b%d", i), Small(i))
			c.Data["other"] = strings.Repeat("x", 900_000)
			return c
		})
	}, nil},
	{"300 policies with 250 KB of annotations", false, true, func(w *world) {
		w.create(300, func(i int) *corev1.ConfigMap {
			c := ConfigMap(fmt.Sprintf("n%d", i), Small(i))
			c.Annotations = map[string]string{"note": strings.Repeat("x", 250_000)}
			return c
		})
	}, nil},
	{"1,000 policies of one address, each for another port", false, true, policies(1000, func(i int) string {
		return fmt.Sprintf(`{"allowedDestinations":[{"name":"a","cidr":"10.0.0.0/8","ports":[%d]}]}`, 1+2*i)
	}), nil},
	{"a policy of 250 KB edited 20 times a second", false, false, func(w *world) {
		w.create(1, func(int) *corev1.ConfigMap { return ConfigMap("large", CIDRs(999, 0)) })
		w.often(20, func(i int) { w.update(ConfigMap("large", CIDRs(999, 1000*i))) })
	}, nil},
	{"a policy made and deleted 50 times a second", false, false, func(w *world) {
		w.often(50, func(i int) {
			configMaps := w.client.CoreV1().ConfigMaps(w.hostile)
			_, _ = configMaps.Create(w.t.Context(), ConfigMap("churn", Small(i)), metav1.CreateOptions{})
			_ = configMaps.Delete(w.t.Context(), "churn", metav1.DeleteOptions{})
		})
	}, nil},
	{"a NetworkPolicy rewritten 50 times a second", false, false, fight, nil},
}

// TestHostileAgent lets one namespace store each attack, while ordinary tenants change their policies.
func TestHostileAgent(t *testing.T) {
	t.Parallel()
	for i, attack := range attacks {
		if !attack.short && !harness.RunsAll() {
			continue
		}
		t.Run(attack.name, func(t *testing.T) {
			w := newWorld(t, fmt.Sprintf("hostile-%d", i))
			w.withstands(attack.name, func() { attack.store(w) })
			if harness.RunsAll() && attack.stays {
				w.startsAgain(attack.name)
			}
			if attack.after == nil {
				return
			}
			problem := attack.after(w)
			if problem != "" {
				table.add("agent: "+attack.name, problem, "", "")
			}
			require.Empty(t, problem)
		})
	}
}

func (w *world) update(c *corev1.ConfigMap) {
	_, _ = w.client.CoreV1().ConfigMaps(w.hostile).Update(w.t.Context(), c, metav1.UpdateOptions{})
}

func (w *world) edited(policy func(i int) string) {
	w.create(1, func(int) *corev1.ConfigMap { return ConfigMap("edited", policy(0)) })
	w.often(50, func(i int) { w.update(ConfigMap("edited", policy(i))) })
}

const handMadePolicies = 1000

// handMade creates NetworkPolicies with the agent's label.
func handMade(w *world) {
	require.NoError(w.t, cluster.Each(handMadePolicies, func(i int) error {
		_, err := w.client.NetworkingV1().NetworkPolicies(w.hostile).Create(w.t.Context(), &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("by-hand-%d", i), Labels: map[string]string{"app.kubernetes.io/managed-by": "egress-agent"}},
			Spec:       networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}},
		}, metav1.CreateOptions{})
		return err
	}))
}

// handMadeStay checks that the agent has deleted none. It may delete only what it has created.
func handMadeStay(w *world) string {
	if left := len(w.networkPolicies()); left < handMadePolicies {
		return fmt.Sprintf("%d of %d deleted", handMadePolicies-left, handMadePolicies)
	}
	return ""
}

// collide stores a policy whose NetworkPolicy gets a shortened name, and then a policy with this name.
func collide(w *world) {
	long := strings.Repeat("long-", 12) + "name"
	w.create(1, func(int) *corev1.ConfigMap { return ConfigMap(long, Small(1)) })
	require.Eventually(w.t, func() bool { return w.agent.Ended() != "" || len(w.networkPolicies()) == 1 }, harness.Timeout, 20*time.Millisecond)
	for name := range w.networkPolicies() {
		require.NotEqual(w.t, long, name)
		w.create(1, func(int) *corev1.ConfigMap { return ConfigMap(name, Small(2)) })
	}
}

func (w *world) networkPolicies() map[string]networkingv1.NetworkPolicy {
	list, err := w.client.NetworkingV1().NetworkPolicies(w.hostile).List(w.t.Context(), metav1.ListOptions{})
	require.NoError(w.t, err)
	found := make(map[string]networkingv1.NetworkPolicy)
	for _, policy := range list.Items {
		found[policy.Name] = policy
	}
	return found
}

// collisionIsReported checks for an Event on the newer policy, and that the older policy's NetworkPolicy stays.
func collisionIsReported(w *world) string {
	if len(w.networkPolicies()) != 1 {
		return "the number of NetworkPolicies is not 1"
	}
	for name, policy := range w.networkPolicies() {
		if !Opens(&policy, SmallCIDR(1)) {
			return "the NetworkPolicy is not that of the older policy"
		}
		for until := time.Now().Add(harness.Timeout); time.Now().Before(until); time.Sleep(100 * time.Millisecond) {
			events, err := w.client.CoreV1().Events(w.hostile).List(w.t.Context(), metav1.ListOptions{
				FieldSelector: "involvedObject.kind=ConfigMap,reason=NameConflict,involvedObject.name=" + name,
			})
			require.NoError(w.t, err)
			if len(events.Items) > 0 {
				return ""
			}
		}
	}
	return "no Event on the newer policy"
}

// closeDNS stores a policy in kube-system. If the agent applied it, CoreDNS could not reach its upstream servers.
func closeDNS(w *world) {
	configMaps := w.client.CoreV1().ConfigMaps(metav1.NamespaceSystem)
	_, err := configMaps.Create(w.t.Context(), ConfigMap("dns", Small(1)), metav1.CreateOptions{})
	require.NoError(w.t, err)
	w.t.Cleanup(func() {
		require.NoError(w.t, configMaps.Delete(context.Background(), "dns", metav1.DeleteOptions{}))
	})
}

func nothingIsWritten(w *world) string {
	_, err := w.client.NetworkingV1().NetworkPolicies(metav1.NamespaceSystem).Get(w.t.Context(), "dns", metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		require.NoError(w.t, err)
		return "a NetworkPolicy is in kube-system"
	}
	return ""
}

// fight rewrites the NetworkPolicy of a policy again and again. The agent restores it each time.
func fight(w *world) {
	w.create(1, func(int) *corev1.ConfigMap { return ConfigMap("fought", Small(1)) })
	networkPolicies := w.client.NetworkingV1().NetworkPolicies(w.hostile)
	w.often(50, func(int) {
		if policy, err := networkPolicies.Get(w.t.Context(), "fought", metav1.GetOptions{}); err == nil {
			policy.Spec.Egress = nil
			_, _ = networkPolicies.Update(w.t.Context(), policy, metav1.UpdateOptions{})
		}
	})
}
