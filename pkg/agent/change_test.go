package agent

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

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
func (f *fixture) settle() { f.wide[key] = time.Now().Add(-2 * f.options.Settle) }

func TestLargeChangeTakesTwoWrites(t *testing.T) {
	f := changing(t, configMap(widened), writtenFor(t, valid))
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, []string{"update networkpolicies"}, f.writes())
	require.Empty(t, f.event(t), "it is not applied yet")
	wide := getPolicy(t, f)
	before, after := writtenFor(t, valid), writtenFor(t, widened)
	require.Subset(t, wide.Spec.Egress, before.Spec.Egress)
	require.Subset(t, wide.Spec.Egress, after.Spec.Egress)
	require.Equal(t, before.Annotations[netpol.PolicyDigest], wide.Annotations[netpol.PolicyDigest])

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
	require.Empty(t, f.wide, "nothing is left to wait for")
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

func TestPortSlotsOfANamespace(t *testing.T) {
	const crowd = `{"allowedDestinations": [{"name": "net", "cidr": "10.0.0.0/8", "ports": [1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31,33,35,37,39,41]}]}`
	other := configMap(crowd)
	other.Name, other.UID = "other", "uid-2"
	f := newFixture(t, configMap(widened), other)
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, ReasonApplied, f.event(t), "the other is not in force, and is told when it is")
	require.NoError(t, f.sync(t.Context(), policyKey(other)))
	reason, _ := f.nextEvent()
	require.Equal(t, ReasonApplied, reason)
	reason, message := f.nextEvent()
	require.Equal(t, ReasonPortSlots, reason)
	require.Equal(t, "With the other policies of the namespace, 10.1.0.0/24 has 23 ports and port ranges, and DNS takes 2; "+
		"the dataplane keeps a random 24 of them: join or drop some", message)
	f.observe(t)
	require.NoError(t, f.sync(t.Context(), policyKey(other)))
	require.Empty(t, f.event(t), "told once")
	require.Empty(t, f.writes(), "a warning changes nothing")

	f.see(t, configMap(valid))
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, ReasonApplied, f.event(t), "22 slots are enough")

	inForce, err := f.client.NetworkingV1().NetworkPolicies("tenant-a").Get(t.Context(), "other", metav1.GetOptions{})
	require.NoError(t, err)
	restarted := newFixture(t, configMap(widened), other, inForce)
	require.NoError(t, restarted.sync(t.Context(), key))
	reason, _ = restarted.nextEvent()
	require.Equal(t, ReasonApplied, reason)
	reason, _ = restarted.nextEvent()
	require.Equal(t, ReasonPortSlots, reason, "the other was in force before this agent had looked at it")
}
