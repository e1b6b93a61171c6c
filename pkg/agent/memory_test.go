package agent

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"egress-agent/pkg/netpol"
)

func TestPoliciesAreCountedByState(t *testing.T) {
	f := newFixture(t, configMap(valid))
	count := func() (counts []float64) {
		for _, state := range []string{stateApplied, stateInvalid, stateConflict, stateUnavailable} {
			counts = append(counts, testutil.ToFloat64(f.metrics.policies.WithLabelValues(state)))
		}
		return counts
	}
	require.Equal(t, []float64{0, 0, 0, 0}, count())
	sync := func() {
		require.NoError(t, f.sync(t.Context(), key))
		f.observe(t)
	}
	sync()
	sync()
	require.Equal(t, []float64{1, 0, 0, 0}, count())
	f.see(t, configMap(invalid))
	sync()
	require.Equal(t, []float64{0, 1, 0, 0}, count())
	f.see(t, configMap(valid))
	f.table.Store(nil)
	sync()
	require.Equal(t, []float64{0, 0, 0, 1}, count())
	require.NoError(t, f.configMaps.Delete(configMap(valid)))
	require.NoError(t, f.client.CoreV1().ConfigMaps("tenant-a").Delete(t.Context(), "egress", metav1.DeleteOptions{}))
	sync()
	require.Equal(t, []float64{0, 0, 0, 0}, count())
	require.Empty(t, f.remembered)
	for verb, want := range map[string]int{"create": 1, "update": 0, "delete": 1} {
		require.EqualValues(t, want, testutil.ToFloat64(f.metrics.writes.WithLabelValues(verb)), verb)
	}
}

// TestMistakesAreToldOnce looks at a bad policy again and again, as a resync does.
func TestMistakesAreToldOnce(t *testing.T) {
	f := newFixture(t, configMap(invalid), writtenFor(t, valid))
	for look := range 100 {
		require.NoError(t, f.sync(t.Context(), key))
		event := f.event(t)
		if look == 0 {
			require.Equal(t, ReasonInvalid, event)
			continue
		}
		require.Empty(t, event)
	}
	require.Empty(t, f.writes())
}

// TestOwnWritesAreNoNews: of what the agent has written it needs no other look, unless a second write is due
// or somebody has changed it since.
func TestOwnWritesAreNoNews(t *testing.T) {
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
	f := newFixture(t, configMap(valid))
	versioned(f)
	require.NoError(t, f.sync(t.Context(), key))
	policy := getPolicy(t, f)
	require.Equal(t, "1", policy.ResourceVersion)
	_, due := f.networkPolicyChanged(policy)
	require.False(t, due)
	handler := f.enqueuing(f.networkPolicyChanged)
	handler.OnAdd(policy, false)
	require.Zero(t, f.queue.Len())
	handler.OnDelete(cache.DeletedFinalStateUnknown{Key: key.String(), Obj: policy})
	require.Equal(t, 1, f.queue.Len(), "an informer that missed the deletion has the version that was written")
	policy.ResourceVersion = "2"
	_, due = f.networkPolicyChanged(policy)
	require.True(t, due)

	f = changing(t, configMap(widened), writtenFor(t, valid))
	versioned(f)
	require.NoError(t, f.sync(t.Context(), key))
	_, due = f.networkPolicyChanged(getPolicy(t, f))
	require.True(t, due, "the second write is to follow")
}

func TestNothingIsWrittenWithoutTheLease(t *testing.T) {
	f := newFixture(t, configMap(valid))
	f.mayWrite = func() error { return errors.New("the Lease may be lost") }
	require.Error(t, f.sync(t.Context(), key), "it is retried")
	require.Empty(t, f.verbs())
	f = newFixture(t, with(writtenFor(t, valid), func(p *networkingv1.NetworkPolicy) {}))
	f.mayWrite = func() error { return errors.New("the Lease may be lost") }
	require.Error(t, f.sync(t.Context(), key))
	require.Empty(t, f.writes(), "nor deleted")
}

func TestLagIsThatOfTheChange(t *testing.T) {
	f := newFixture(t, configMap(valid))
	f.policyChanged(configMap(valid))
	f.mayWrite = func() error { return errors.New("not now") }
	require.Error(t, f.sync(t.Context(), key))
	require.Contains(t, f.seen, key, "a failure keeps it waiting")
	f.mayWrite = func() error { return nil }
	require.NoError(t, f.sync(t.Context(), key))
	require.Empty(t, f.seen)
	require.Equal(t, 1, testutil.CollectAndCount(f.metrics.lag))
}

func TestTooManyEventsAreDropped(t *testing.T) {
	fake := record.NewFakeRecorder(10)
	f := newFixture(t)
	slow := newSlowRecorder(fake, f.metrics.eventsDropped, func() bool { return false })
	for range eventsWaiting + 7 {
		slow.Event(configMap(valid), corev1.EventTypeNormal, ReasonApplied, "x")
	}
	require.EqualValues(t, 7, testutil.ToFloat64(f.metrics.eventsDropped))
	go slow.run(t.Context())
	start := time.Now()
	for range 5 {
		<-fake.Events
	}
	require.GreaterOrEqual(t, time.Since(start), 3*time.Second/EventsPerSecond-10*time.Millisecond, "at their pace")
}

// TestEventsLetPoliciesGo: one a second while policies wait.
func TestEventsLetPoliciesGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := record.NewFakeRecorder(10)
		var busy atomic.Bool
		busy.Store(true)
		slow := newSlowRecorder(fake, prometheus.NewCounter(prometheus.CounterOpts{}), busy.Load)
		go slow.run(t.Context())
		for range 3 {
			slow.Event(configMap(valid), corev1.EventTypeNormal, ReasonApplied, "x")
		}
		start := time.Now()
		for seconds := 1; seconds <= 2; seconds++ {
			<-fake.Events
			require.Equal(t, time.Duration(seconds)*time.Second, time.Since(start))
		}
		busy.Store(false)
		<-fake.Events
		require.LessOrEqual(t, time.Since(start), 2*time.Second+time.Second/EventsPerSecond)
	})
}

func TestCachesKeepNoMoreThanIsNeeded(t *testing.T) {
	policy := writtenFor(t, valid)
	policy.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "x"}}
	o := observe(policy.DeepCopy())
	require.Equal(t, netpol.Digest(policy.Spec), o.digest)
	require.Equal(t, 3, o.cidrs)
	require.Nil(t, o.ManagedFields)
	require.Equal(t, policy.Labels, o.Labels)

	full := configMap(valid)
	full.Labels["team"], full.Annotations = "x", map[string]string{"y": "z"}
	full.Data["other"], full.BinaryData = "x", map[string][]byte{"b": nil}
	slim := slimConfigMap(full)
	require.Equal(t, configMap(valid), slim)
	require.Equal(t, configMap(valid), slimConfigMap(slim), "as the cache does with what was listed")
}
