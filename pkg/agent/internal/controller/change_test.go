package controller

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"egress-agent/pkg/agent/internal/plan"
	"egress-agent/pkg/agent/internal/testobjects"
	"egress-agent/pkg/netpol"
)

func TestLargeChangeTakesTwoWrites(t *testing.T) {
	f := newTwoStepFixture(t, testobjects.ConfigMap(testobjects.Widened), testobjects.NetworkPolicy(t, testobjects.Valid))
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, []string{"update networkpolicies"}, f.writes())
	require.Empty(t, f.event(t), "the policy is not applied yet")
	widened := getPolicy(t, f)
	previous, desired := testobjects.NetworkPolicy(t, testobjects.Valid), testobjects.NetworkPolicy(t, testobjects.Widened)
	require.Subset(t, widened.Spec.Egress, previous.Spec.Egress)
	require.Subset(t, widened.Spec.Egress, desired.Spec.Egress)
	require.Equal(t, previous.Annotations[netpol.PolicyDigestAnnotation], widened.Annotations[netpol.PolicyDigestAnnotation])

	for range 3 {
		f.updateCache(t)
		require.NoError(t, f.sync(t.Context(), key))
		require.Empty(t, f.writes(), "the settle time has not passed")
	}
	f.settle()
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, []string{"update networkpolicies"}, f.writes())
	require.Equal(t, plan.ReasonApplied, f.event(t))
	require.Equal(t, desired.Spec, getPolicy(t, f).Spec)
	require.Equal(t, int64(3), getPolicy(t, f).Generation)
	desired.Annotations[netpol.GenerationAnnotation] = "3"
	require.Equal(t, desired.Annotations, getPolicy(t, f).Annotations)
	f.updateCache(t)
	require.NoError(t, f.sync(t.Context(), key))
	require.Empty(t, f.writes())
	require.Equal(t, f.options.Settle, f.tracker.StepDelay(key, netpol.Narrow, f.now()), "the earlier wait has ended")
}

// TestOtherAgentCompletesLargeChange starts another agent after the first write.
func TestOtherAgentCompletesLargeChange(t *testing.T) {
	first := newTwoStepFixture(t, testobjects.ConfigMap(testobjects.Widened), testobjects.NetworkPolicy(t, testobjects.Valid))
	require.NoError(t, first.sync(t.Context(), key))

	second := newTwoStepFixture(t, testobjects.ConfigMap(testobjects.Widened), getPolicy(t, first))
	require.NoError(t, second.sync(t.Context(), key))
	require.Empty(t, second.writes(), "the second agent does not know the time of the first write, so it waits")
	second.settle()
	require.NoError(t, second.sync(t.Context(), key))
	require.Equal(t, testobjects.NetworkPolicy(t, testobjects.Widened).Spec, getPolicy(t, second).Spec)
}

func TestLargeChangeIsTakenBack(t *testing.T) {
	f := newTwoStepFixture(t, testobjects.ConfigMap(testobjects.Widened), testobjects.NetworkPolicy(t, testobjects.Valid))
	require.NoError(t, f.sync(t.Context(), key))
	f.updateCache(t)
	f.setCached(t, testobjects.ConfigMap(testobjects.Valid))
	require.NoError(t, f.sync(t.Context(), key))
	f.settle()
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, testobjects.NetworkPolicy(t, testobjects.Valid).Spec, getPolicy(t, f).Spec)
}

// TestLargeEditByOthersIsUndoneAtOnce requires one write. Of two writes, the first would only widen, and all addresses
// that others opened would stay open.
func TestLargeEditByOthersIsUndoneAtOnce(t *testing.T) {
	f := newTwoStepFixture(t, testobjects.ConfigMap(testobjects.Valid), testobjects.EditedByOthers(testobjects.NetworkPolicy(t, testobjects.Valid), func(p *networkingv1.NetworkPolicy) {
		p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{})
	}))
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, testobjects.NetworkPolicy(t, testobjects.Valid).Spec, getPolicy(t, f).Spec)
	require.Equal(t, plan.ReasonRestored, f.event(t))
}

// TestLargeChangeNeedsTheCurrentSpec requires an error if the current spec cannot be read. The cache only has the
// digest of the spec.
func TestLargeChangeNeedsTheCurrentSpec(t *testing.T) {
	newer := testobjects.EditedByOthers(testobjects.NetworkPolicy(t, testobjects.Valid), func(p *networkingv1.NetworkPolicy) { p.ResourceVersion = "8" })
	for _, test := range []struct {
		name   string
		answer *networkingv1.NetworkPolicy
		err    error
		want   string
	}{
		{"it cannot be read", nil, errors.New("away"), "read NetworkPolicy egress: away"},
		{"it has changed", newer, nil, "the cache has another version of NetworkPolicy egress than the API server"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newTwoStepFixture(t, testobjects.ConfigMap(testobjects.Widened), testobjects.NetworkPolicy(t, testobjects.Valid))
			f.client.PrependReactor("get", "networkpolicies", func(clienttesting.Action) (bool, runtime.Object, error) {
				return true, test.answer, test.err
			})
			require.EqualError(t, f.sync(t.Context(), key), test.want)
			require.Empty(t, f.writes())
		})
	}
}

// TestEditedSpecIsNotWidened requires one write for a new policy whose NetworkPolicy somebody has edited: a union with
// the edited spec would keep open what the edit opened.
func TestEditedSpecIsNotWidened(t *testing.T) {
	f := newTwoStepFixture(t, testobjects.ConfigMap(testobjects.Widened),
		testobjects.EditedByOthers(testobjects.NetworkPolicy(t, testobjects.Valid), func(p *networkingv1.NetworkPolicy) {
			p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{})
		}))
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, []string{"update networkpolicies"}, f.writes())
	require.Equal(t, testobjects.NetworkPolicy(t, testobjects.Widened).Spec, getPolicy(t, f).Spec)
}
