package agent

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/netpol"
)

// widened is valid with another port for its database.
const widened = `{"allowedDestinations": [{"name": "s3", "awsService": "s3", "regions": ["us-east-1"], "ports": [443]}, {"name": "db", "cidr": "10.1.0.0/24", "ports": [5432, 6432]}]}`

// changing is an agent for which every change is a large one, and that does not see one settle.
func changing(t *testing.T, objects ...runtime.Object) *fixture {
	f := newFixture(t, objects...)
	f.options.ChunkPeers, f.options.Settle = 0, time.Hour
	return f
}

// settle lets the time pass that the second write waits for.
func (f *fixture) settle() { f.widenedAt[key] = time.Now().Add(-2 * f.options.Settle) }

func TestLargeChangeTakesTwoWrites(t *testing.T) {
	f := changing(t, configMap(widened), writtenFor(t, valid))
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, []string{"update networkpolicies"}, f.writes())
	require.Empty(t, f.event(t), "it is not applied yet")
	wide := getPolicy(t, f)
	before, after := writtenFor(t, valid), writtenFor(t, widened)
	require.Subset(t, wide.Spec.Egress, before.Spec.Egress)
	require.Subset(t, wide.Spec.Egress, after.Spec.Egress)
	require.Equal(t, before.Annotations[netpol.PolicyDigestAnnotation], wide.Annotations[netpol.PolicyDigestAnnotation])

	for range 3 {
		f.observe(t)
		require.NoError(t, f.sync(t.Context(), key))
		require.Empty(t, f.writes(), "it has not settled")
	}
	f.settle()
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, []string{"update networkpolicies"}, f.writes())
	require.Equal(t, ReasonApplied, f.event(t))
	require.Equal(t, after.Spec, getPolicy(t, f).Spec)
	require.Equal(t, after.Annotations, getPolicy(t, f).Annotations)
	f.observe(t)
	require.NoError(t, f.sync(t.Context(), key))
	require.Empty(t, f.writes())
	require.Empty(t, f.widenedAt, "nothing is left to wait for")
}

// TestLargeChangeSurvivesItsAgent has another agent find what the first write left.
func TestLargeChangeSurvivesItsAgent(t *testing.T) {
	first := changing(t, configMap(widened), writtenFor(t, valid))
	require.NoError(t, first.sync(t.Context(), key))

	second := changing(t, configMap(widened), getPolicy(t, first))
	require.NoError(t, second.sync(t.Context(), key))
	require.Empty(t, second.writes(), "it cannot know since when, and waits")
	second.settle()
	require.NoError(t, second.sync(t.Context(), key))
	require.Equal(t, writtenFor(t, widened).Spec, getPolicy(t, second).Spec)
}

func TestLargeChangeTakenBack(t *testing.T) {
	f := changing(t, configMap(widened), writtenFor(t, valid))
	require.NoError(t, f.sync(t.Context(), key))
	f.observe(t)
	f.see(t, configMap(valid))
	require.NoError(t, f.sync(t.Context(), key))
	f.settle()
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, writtenFor(t, valid).Spec, getPolicy(t, f).Spec)
}

// TestLargeEditByOthersIsUndoneAtOnce: what others opened is nothing to make a union with.
func TestLargeEditByOthersIsUndoneAtOnce(t *testing.T) {
	f := changing(t, configMap(valid), with(writtenFor(t, valid), func(p *networkingv1.NetworkPolicy) {
		p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{})
	}))
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, writtenFor(t, valid).Spec, getPolicy(t, f).Spec)
	require.Equal(t, ReasonRestored, f.event(t))
}

// TestLargeChangeNeedsWhatIsThere: it is made of what the cache has only the digest of.
func TestLargeChangeNeedsWhatIsThere(t *testing.T) {
	newer := with(writtenFor(t, valid), func(p *networkingv1.NetworkPolicy) { p.ResourceVersion = "8" })
	for _, test := range []struct {
		name   string
		answer *networkingv1.NetworkPolicy
		err    error
		want   string
	}{
		{"it cannot be read", nil, errors.New("away"), "read NetworkPolicy egress: away"},
		{"it is another by now", newer, nil, "the cache does not hold NetworkPolicy egress as it is yet"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := changing(t, configMap(widened), writtenFor(t, valid))
			f.client.PrependReactor("get", "networkpolicies", func(clienttesting.Action) (bool, runtime.Object, error) {
				return true, test.answer, test.err
			})
			require.EqualError(t, f.sync(t.Context(), key), test.want)
			require.Empty(t, f.writes())
		})
	}
}

// TestPoliciesOfANamespaceFitTogether: of two that fit alone, and not on one pod, the second is invalid until the first
// becomes less.
func TestPoliciesOfANamespaceFitTogether(t *testing.T) {
	const crowd = `{"allowedDestinations": [{"name": "net", "cidr": "10.0.0.0/8", "ports": [1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31,33,35,37,39,41]}]}`
	other := configMap(crowd)
	other.Name, other.UID = "other", "uid-2"
	f := newFixture(t, configMap(widened), other)
	sync := func(key cache.ObjectName) (reason, message string) {
		require.NoError(t, f.sync(t.Context(), key))
		reason, message = f.nextEvent()
		f.observe(t)
		return reason, message
	}
	reason, _ := sync(key)
	require.Equal(t, ReasonApplied, reason)
	reason, message := sync(policyKey(other))
	require.Equal(t, ReasonInvalid, reason)
	require.Equal(t, "Policy validation failed: Too many ports: 10.1.0.0/24 has 23 ports and port ranges, and DNS takes 2; the dataplane keeps 24 for a CIDR: "+
		"join or drop ports of this or the namespace's other policies, which apply to the same pods (allowedDestinations); until it is corrected, all egress but DNS is denied", message)
	require.Equal(t, netpol.DenyAll(options), inForce(t, f, "other").Spec)
	require.Empty(t, second(sync(policyKey(other))), "told once")

	f.see(t, configMap(valid))
	f.enqueuing(f.policyChanged, f.policyGone).OnUpdate(nil, configMap(valid))
	require.Equal(t, []string{"tenant-a/egress", "tenant-a/other"}, f.queued(2), "it is looked at again")
	reason, _ = sync(key)
	require.Equal(t, ReasonApplied, reason, "22 slots are enough")
	reason, _ = sync(policyKey(other))
	require.Equal(t, ReasonApplied, reason)

	f = newFixture(t, configMap(widened), other, inForce(t, f, "other"))
	reason, _ = sync(key)
	require.Equal(t, ReasonInvalid, reason, "the other is in force, though this process has not written it")
	require.NoError(t, f.client.NetworkingV1().NetworkPolicies("tenant-a").Delete(t.Context(), "other", metav1.DeleteOptions{}))
	require.NoError(t, f.configMaps.Delete(other))
	f.enqueuing(f.networkPolicyChanged, f.networkPolicyGone).OnDelete(&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant-a", Name: "other"}})
	f.observe(t)
	require.Equal(t, []string{"tenant-a/egress", "tenant-a/other"}, f.queued(2))
	reason, _ = sync(key)
	require.Equal(t, ReasonApplied, reason)
}

// TestCrowdedNamespaceMayShrink: what is in force may be too much from before this was an error. An edit that only closes is
// applied all the same.
func TestCrowdedNamespaceMayShrink(t *testing.T) {
	ports := func(first, n int) string {
		var list []string
		for i := range n {
			list = append(list, strconv.Itoa(first+2*i))
		}
		return `{"allowedDestinations": [{"name": "net", "cidr": "10.0.0.0/8", "ports": [` + strings.Join(list, ",") + `]}]}`
	}
	other := configMap(ports(1000, 20))
	other.Name, other.UID = "other", "uid-2"
	f := newFixture(t, configMap(ports(1, 19)), writtenFor(t, ports(1, 20)), other, madeFrom(t, other))
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, ReasonApplied, f.event(t))
	require.Len(t, inForce(t, f, "egress").Spec.Egress[1].Ports, 19)
	f.observe(t)
	f.see(t, configMap(ports(3, 19)))
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, ReasonInvalid, f.event(t))
}

// TestCrowdInForceIsTold: where both are in force from before, both are told of it once, and both stay.
func TestCrowdInForceIsTold(t *testing.T) {
	const crowd = `{"allowedDestinations": [{"name": "net", "cidr": "10.0.0.0/8", "ports": [1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31,33,35,37,39,41]}]}`
	other := configMap(crowd)
	other.Name, other.UID = "other", "uid-2"
	f := newFixture(t, configMap(widened), writtenFor(t, widened), other, madeFrom(t, other))
	for _, key := range []cache.ObjectName{key, policyKey(other)} {
		require.NoError(t, f.sync(t.Context(), key))
		reason, message := f.nextEvent()
		require.Equal(t, ReasonInvalid, reason)
		require.Contains(t, message, "10.1.0.0/24 has 23 ports and port ranges")
		require.Contains(t, message, "; the policies stay in force, and the dataplane enforces a part of them")
		require.NoError(t, f.sync(t.Context(), key))
		require.Empty(t, f.event(t), "told once")
	}
	require.Empty(t, f.writes())
}

func second[A, B any](_ A, b B) B { return b }

func inForce(t *testing.T, f *fixture, name string) *networkingv1.NetworkPolicy {
	policy, err := f.client.NetworkingV1().NetworkPolicies("tenant-a").Get(t.Context(), name, metav1.GetOptions{})
	require.NoError(t, err)
	return policy
}

// queued takes n keys off the queue, and returns them sorted.
func (f *fixture) queued(n int) []string {
	var keys []string
	for range n {
		key, _ := f.queue.Get()
		f.queue.Done(key)
		f.order.release(key)
		keys = append(keys, key.String())
	}
	slices.Sort(keys)
	return keys
}
