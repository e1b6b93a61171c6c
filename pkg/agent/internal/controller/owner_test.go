package controller

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/agent/internal/plan"
	"egress-agent/pkg/agent/internal/testobjects"
	"egress-agent/pkg/netpol"
)

// TestPolicyInExemptNamespaceIsNotApplied also requires that the agent deletes a NetworkPolicy that it made earlier.
func TestPolicyInExemptNamespaceIsNotApplied(t *testing.T) {
	for _, namespace := range []string{"kube-system", "kube-public", "kube-node-lease", "egress-system"} {
		t.Run(namespace, func(t *testing.T) {
			source := testobjects.ConfigMap(testobjects.Valid)
			source.Namespace = namespace
			made := testobjects.NetworkPolicy(t, testobjects.Valid)
			made.Namespace = namespace
			madeByOthers := made.DeepCopy()
			madeByOthers.OwnerReferences = nil
			key := cache.NewObjectName(namespace, "egress")

			f := newFixture(t, source)
			require.NoError(t, f.sync(t.Context(), key))
			reason, message := f.nextEvent()
			require.Equal(t, plan.ReasonNamespaceExempt, reason)
			require.Contains(t, message, "The agent writes nothing in "+namespace)
			require.Empty(t, f.writes())
			require.NoError(t, f.sync(t.Context(), key))
			require.Empty(t, f.event(t), "it is reported once")

			f = newFixture(t, source, made)
			require.NoError(t, f.sync(t.Context(), key))
			require.Equal(t, []string{"delete networkpolicies"}, f.writes())
			f = newFixture(t, source, madeByOthers)
			require.NoError(t, f.sync(t.Context(), key))
			require.Empty(t, f.writes(), "somebody else made it")
		})
	}
}

// TestOnlyOwnNetworkPoliciesAreDeleted requires that a NetworkPolicy with the agent's label, but without an owner that
// is its ConfigMap, stays.
func TestOnlyOwnNetworkPoliciesAreDeleted(t *testing.T) {
	labelled := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant-a", Name: "egress", Labels: map[string]string{netpol.ManagedByLabel: netpol.ManagedBy}}}
	otherOwner := labelled.DeepCopy()
	otherOwner.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "another", UID: "x"}}
	otherKind := labelled.DeepCopy()
	otherKind.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: "egress", UID: "x"}}
	for _, policy := range []*networkingv1.NetworkPolicy{labelled, otherOwner, otherKind} {
		f := newFixture(t, policy)
		require.NoError(t, f.sync(t.Context(), key))
		reason, message := f.nextEvent()
		require.Equal(t, plan.ReasonNotMade, reason)
		require.Equal(t, "It has the label app.kubernetes.io/managed-by=egress-agent but no ConfigMap owns it, so egress-agent does not change it; remove the label or delete the NetworkPolicy", message)
		require.Empty(t, f.verbs())
		require.NoError(t, f.sync(t.Context(), key))
		require.Empty(t, f.event(t), "it is reported once")
	}
	f := newFixture(t, testobjects.NetworkPolicy(t, testobjects.Valid))
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, []string{"delete networkpolicies"}, f.writes())
}

// TestOldestConfigMapGetsTheName has two ConfigMaps whose NetworkPolicies have the same name. The younger ConfigMap
// gets a Warning. Once the older ConfigMap is gone, the younger gets the NetworkPolicy.
func TestOldestConfigMapGetsTheName(t *testing.T) {
	long := testobjects.ConfigMap(testobjects.Valid)
	long.Name, long.UID = strings.Repeat("x", 70), "long"
	long.CreationTimestamp = metav1.NewTime(time.Unix(2000, 0))
	short := testobjects.ConfigMap(testobjects.Edited)
	short.Name, short.UID = netpol.NetworkPolicyName(long.Name), "short"
	short.CreationTimestamp = metav1.NewTime(time.Unix(1000, 0))
	f := newFixture(t, long, short)
	key := policyKey(long)
	require.Equal(t, key, policyKey(short))
	require.NoError(t, f.sync(t.Context(), key))
	reason, message := f.nextEvent()
	require.Equal(t, plan.ReasonNameConflict, reason)
	require.Equal(t, fmt.Sprintf("NetworkPolicy %s belongs to the older ConfigMap %s, so this policy is not applied; rename this ConfigMap", short.Name, short.Name), message)
	require.Equal(t, plan.ReasonApplied, f.event(t))
	require.Equal(t, short.UID, getNamed(t, f, short.Name).OwnerReferences[0].UID)
	f.updateCache(t)
	require.NoError(t, f.sync(t.Context(), key))
	require.Empty(t, f.event(t), "it is reported once")
	require.NoError(t, f.caches.configMaps.Delete(short))
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, plan.ReasonApplied, f.event(t))
	f.updateCache(t)
	short.CreationTimestamp = long.CreationTimestamp
	f.setCached(t, short)
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, plan.ReasonNameConflict, f.event(t), "if both were created in the same second, the owner gets the NetworkPolicy")
	require.Equal(t, long.UID, getNamed(t, f, short.Name).OwnerReferences[0].UID)
}
