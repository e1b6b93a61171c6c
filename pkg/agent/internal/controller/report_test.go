package controller

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/agent/internal/plan"
	"egress-agent/pkg/agent/internal/testobjects"
	"egress-agent/pkg/policy"
)

func TestPoliciesAreCountedByState(t *testing.T) {
	f := newFixture(t, testobjects.ConfigMap(testobjects.Valid))
	count := func() (counts []float64) {
		for _, state := range []string{"applied", "invalid", "name_conflict", "ranges_unavailable"} {
			counts = append(counts, f.metric(t, "egress_agent_policies", state))
		}
		return counts
	}
	require.Equal(t, []float64{0, 0, 0, 0}, count())
	sync := func() {
		require.NoError(t, f.sync(t.Context(), key))
		f.updateCache(t)
	}
	sync()
	sync()
	require.Equal(t, []float64{1, 0, 0, 0}, count())
	f.setCached(t, testobjects.ConfigMap(testobjects.Invalid))
	sync()
	require.Equal(t, []float64{0, 1, 0, 0}, count())
	f.setCached(t, testobjects.ConfigMap(testobjects.Valid))
	f.table.Store(nil)
	sync()
	require.Equal(t, []float64{0, 0, 0, 1}, count())
	require.NoError(t, f.caches.configMaps.Delete(testobjects.ConfigMap(testobjects.Valid)))
	require.NoError(t, f.client.CoreV1().ConfigMaps("tenant-a").Delete(t.Context(), "egress", metav1.DeleteOptions{}))
	sync()
	require.Equal(t, []float64{0, 0, 0, 0}, count())
	require.Zero(t, f.tracker.Size())
	for verb, want := range map[string]int{"create": 1, "update": 0, "delete": 1} {
		require.EqualValues(t, want, f.metric(t, "egress_agent_networkpolicy_writes_total", verb), verb)
	}
}

// TestProblemIsReportedOnce syncs an invalid policy again and again, as a resync does.
func TestProblemIsReportedOnce(t *testing.T) {
	f := newFixture(t, testobjects.ConfigMap(testobjects.Invalid), testobjects.NetworkPolicy(t, testobjects.Valid))
	for i := range 100 {
		require.NoError(t, f.sync(t.Context(), key))
		event := f.event(t)
		if i == 0 {
			require.Equal(t, plan.ReasonInvalid, event)
			continue
		}
		require.Empty(t, event)
	}
	require.Empty(t, f.writes())
}

func TestNothingIsWrittenWithoutTheLease(t *testing.T) {
	f := newFixture(t, testobjects.ConfigMap(testobjects.Valid))
	f.api.checkLease = func() error { return errors.New("the Lease may be lost") }
	require.Error(t, f.sync(t.Context(), key), "an error makes the controller retry")
	require.Empty(t, f.verbs())
	f = newFixture(t, testobjects.EditedByOthers(testobjects.NetworkPolicy(t, testobjects.Valid), func(p *networkingv1.NetworkPolicy) {}))
	f.api.checkLease = func() error { return errors.New("the Lease may be lost") }
	require.Error(t, f.sync(t.Context(), key))
	require.Empty(t, f.writes(), "nothing is deleted either")
}

func TestLatencyIsMeasuredFromTheChange(t *testing.T) {
	f := newFixture(t, testobjects.ConfigMap(testobjects.Valid))
	f.configMapChanged(testobjects.ConfigMap(testobjects.Valid))
	f.api.checkLease = func() error { return errors.New("not now") }
	require.Error(t, f.sync(t.Context(), key))
	changedAt := f.tracker.TakeChangedAt(key)
	require.NotZero(t, changedAt, "the time of the change stays after a failed sync")
	f.tracker.RestoreChangedAt(key, changedAt)
	f.api.checkLease = func() error { return nil }
	require.NoError(t, f.sync(t.Context(), key))
	require.Zero(t, f.tracker.TakeChangedAt(key))
	require.EqualValues(t, 1, f.metric(t, "egress_agent_configmap_to_networkpolicy_seconds", ""))
}

func TestEventMessagesAreTruncated(t *testing.T) {
	f := newFixture(t, testobjects.ConfigMap(`{"allowedDestinations": [`+strings.TrimSuffix(strings.Repeat(`{"ü": 1},`, 50), ",")+`]}`))
	require.NoError(t, f.sync(t.Context(), key))
	_, message := f.nextEvent()
	require.LessOrEqual(t, len(message), 1024)
	require.True(t, strings.HasSuffix(message, "…"))
}

// TestDocumentComesFromTheCache requires no request for a policy document that the cache holds.
func TestDocumentComesFromTheCache(t *testing.T) {
	f := newFixture(t)
	reduced := f.caches.reduceConfigMap(testobjects.ConfigMap(testobjects.Valid))
	withDocument, problems, err := f.loadDocument(t.Context(), reduced)
	require.NoError(t, err)
	require.Empty(t, problems)
	compact, _ := policy.Compact(testobjects.Valid)
	require.Equal(t, map[string]string{policy.Key: compact}, withDocument.Data)
	require.Empty(t, f.verbs())
}
