package agent

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
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
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
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
	handler := f.enqueuing(f.networkPolicyChanged, f.networkPolicyGone)
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
	f.checkLease = func() error { return errors.New("the Lease may be lost") }
	require.Error(t, f.sync(t.Context(), key), "it is retried")
	require.Empty(t, f.verbs())
	f = newFixture(t, with(writtenFor(t, valid), func(p *networkingv1.NetworkPolicy) {}))
	f.checkLease = func() error { return errors.New("the Lease may be lost") }
	require.Error(t, f.sync(t.Context(), key))
	require.Empty(t, f.writes(), "nor deleted")
}

func TestLagIsThatOfTheChange(t *testing.T) {
	f := newFixture(t, configMap(valid))
	f.policyChanged(configMap(valid))
	f.checkLease = func() error { return errors.New("not now") }
	require.Error(t, f.sync(t.Context(), key))
	require.Contains(t, f.changedAt, key, "a failure keeps it waiting")
	f.checkLease = func() error { return nil }
	require.NoError(t, f.sync(t.Context(), key))
	require.Empty(t, f.changedAt)
	require.Equal(t, 1, testutil.CollectAndCount(f.metrics.applyLatency))
}

func TestTooManyEventsAreDropped(t *testing.T) {
	fake := record.NewFakeRecorder(10)
	f := newFixture(t)
	slow := newSlowRecorder(fake, f.metrics.eventsDropped, func() bool { return false })
	for range eventsOfOne + 3 {
		slow.Event(configMap(valid), corev1.EventTypeNormal, ReasonApplied, "x")
	}
	require.EqualValues(t, 3, testutil.ToFloat64(f.metrics.eventsDropped), "one namespace leaves room for others")
	for i := range eventQueueSize - eventsOfOne + 4 {
		other := configMap(valid)
		other.Namespace = fmt.Sprint("tenant-", i)
		slow.Event(other, corev1.EventTypeNormal, ReasonApplied, "x")
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
	networkPolicy := writtenFor(t, valid)
	networkPolicy.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "x"}}
	o := metaOf(networkPolicy.DeepCopy())
	require.Equal(t, netpol.SpecDigestOf(networkPolicy.Spec), o.SpecDigest)
	require.Equal(t, 3, o.CIDRCount)
	require.NotEmpty(t, networkPolicy.Annotations[netpol.PolicyAnnotation])
	require.NotContains(t, o.Annotations, netpol.PolicyAnnotation)
	require.Equal(t, netpol.DocumentDigest(networkPolicy.Annotations[netpol.PolicyAnnotation]), o.DocumentDigest)
	require.Nil(t, o.ManagedFields)
	require.Equal(t, networkPolicy.Labels, o.Labels)

	f := newFixture(t)
	full := configMap(valid)
	full.Labels["team"], full.Annotations = "x", map[string]string{"y": "z"}
	full.Data["other"], full.BinaryData = "x", map[string][]byte{"b": nil}
	want := configMap(valid)
	want.Data[policy.Key], _ = policy.Compact(valid)
	digest, err := hex.DecodeString(netpol.PolicyDigestOf(full))
	require.NoError(t, err)
	want.Annotations, want.GenerateName, want.Generation = onlySlim, string(digest), int64(len(want.Data[policy.Key]))
	slim := f.slim(full)
	require.Equal(t, want, slim)
	require.Equal(t, want, f.slim(slim), "as the cache does with what was listed")
	known, problems, err := f.document(t.Context(), slim)
	require.NoError(t, err)
	require.Empty(t, problems)
	require.Equal(t, want.Data, known.Data)
	require.Equal(t, netpol.PolicyDigestOf(configMap(valid)), digestOf(known))
}

// TestCacheIsBounded: what one namespace stores takes a mebibyte at most, whatever it is, and none of it goes unjudged.
func TestCacheIsBounded(t *testing.T) {
	f := newFixture(t)
	see := func(name, document string) *corev1.ConfigMap {
		c := configMap(document)
		c.Name, c.UID = name, types.UID(name)
		_, err := f.client.CoreV1().ConfigMaps("tenant-a").Create(t.Context(), c, metav1.CreateOptions{})
		require.NoError(t, err)
		f.see(t, c)
		return c
	}
	held := func() (bytes int) {
		for _, object := range f.configMaps.List() {
			for key, text := range object.(*corev1.ConfigMap).Data {
				bytes += len(key) + len(text)
			}
		}
		return bytes
	}
	sync := func(name string) (reason, message string) {
		require.NoError(t, f.sync(t.Context(), cache.NewObjectName("tenant-a", name)))
		return f.nextEvent()
	}
	for i := range 20 {
		see(fmt.Sprint("white", i), valid+strings.Repeat(" ", 900<<10))
	}
	require.Less(t, held(), 20*(len(valid)+100))
	reason, _ := sync("white7")
	require.Equal(t, ReasonApplied, reason)
	for i := range 12 {
		see(fmt.Sprint("large", i), `["`+strings.Repeat("x", 1<<20)+`"]`)
		see(fmt.Sprint("broken", i), `[`+strings.Repeat(" ", 1<<20))
		see(fmt.Sprint("full", i), `["`+strings.Repeat("x", 200<<10)+`"]`)
	}
	require.Less(t, held(), maxNamespaceBytes)
	_, message := sync("large3")
	require.Contains(t, message, "Policy too large: 1048580 bytes without white space; at most 262144 are allowed")
	_, message = sync("full9")
	require.Contains(t, message, "Too many policies: those of the namespace have")
	for _, object := range f.configMaps.List() {
		if name := object.(*corev1.ConfigMap).Name; !strings.HasPrefix(name, "full1") && !strings.HasPrefix(name, "broken") {
			f.enqueuing(f.policyChanged, f.policyGone).OnDelete(object)
			require.NoError(t, f.configMaps.Delete(object))
		}
	}
	reason, message = sync("broken3")
	require.Equal(t, ReasonInvalid, reason)
	require.Contains(t, message, "Invalid JSON: unexpected end of JSON input at line 1, column 1048578", "it is read when it is judged")
	reason, message = sync("full1")
	require.Equal(t, ReasonInvalid, reason)
	require.Contains(t, message, "Invalid policy: must be an object, not a list")
	for _, object := range f.configMaps.List() {
		f.policyGone(object.(*corev1.ConfigMap))
	}
	for _, name := range []string{"white7", "broken3", "full1", "full9", "large3"} {
		f.ledger.dropUsage("tenant-a", name)
		f.ledger.setUnfit("tenant-a", name, false)
	}
	require.Empty(t, f.ledger.namespaces)
}
