package controller

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/agent/internal/testobjects"
)

// TestStandbyOnlyFillsItsCaches also requires that a new leader begins with all objects.
func TestStandbyOnlyFillsItsCaches(t *testing.T) {
	orphan := testobjects.NetworkPolicy(t, testobjects.Valid)
	orphan.Name = "orphan"
	f := newFixture(t, testobjects.ConfigMap(testobjects.Valid), orphan)
	f.SetLeader(false)
	configMaps, policies := f.configMapHandler(), f.networkPolicyHandler()
	for i := range 1000 {
		source := testobjects.ConfigMap(testobjects.Valid)
		source.Name = fmt.Sprint(i)
		configMaps.OnAdd(source, false)
		policies.OnUpdate(nil, testobjects.NetworkPolicy(t, testobjects.Valid))
		configMaps.OnDelete(source)
	}
	require.Zero(t, f.queue.Len())
	require.Zero(t, f.tracker.Size())
	f.SetLeader(true)
	f.enqueueAll()
	require.Equal(t, []string{"tenant-a/egress", "tenant-a/orphan"}, f.queued(2))
}

// TestOwnWritesNeedNoSync, unless a second write must follow or someone has changed the NetworkPolicy since.
func TestOwnWritesNeedNoSync(t *testing.T) {
	versioned := func(f *fixture) {
		version := 0
		f.client.PrependReactor("*", "networkpolicies", func(action clienttesting.Action) (bool, runtime.Object, error) {
			if write, ok := action.(clienttesting.CreateAction); ok { // or an update, which has the same methods
				version++
				write.GetObject().(*networkingv1.NetworkPolicy).ResourceVersion = fmt.Sprint(version)
			}
			return false, nil, nil
		})
	}
	f := newFixture(t, testobjects.ConfigMap(testobjects.Valid))
	versioned(f)
	require.NoError(t, f.sync(t.Context(), key))
	policy := getPolicy(t, f)
	require.Equal(t, "1", policy.ResourceVersion)
	_, needsSync := f.networkPolicyChanged(policy)
	require.False(t, needsSync)
	handler := f.networkPolicyHandler()
	handler.OnAdd(policy, false)
	require.Zero(t, f.queue.Len())
	handler.OnDelete(cache.DeletedFinalStateUnknown{Key: key.String(), Obj: policy})
	require.Equal(t, 1, f.queue.Len(), "an informer that missed the deletion has the written version")
	policy.ResourceVersion = "2"
	_, needsSync = f.networkPolicyChanged(policy)
	require.True(t, needsSync)

	f = newTwoStepFixture(t, testobjects.ConfigMap(testobjects.Widened), testobjects.NetworkPolicy(t, testobjects.Valid))
	versioned(f)
	require.NoError(t, f.sync(t.Context(), key))
	_, needsSync = f.networkPolicyChanged(getPolicy(t, f))
	require.True(t, needsSync, "the second write must follow")
}
