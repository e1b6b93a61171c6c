package events

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
)

func object(namespace string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "egress"}}
}

func TestRecorderDropsTooManyEvents(t *testing.T) {
	fake := record.NewFakeRecorder(10)
	recorder := newRecorder(fake, prometheus.NewRegistry(), func() bool { return false })
	for range namespaceQueueSize + 3 {
		recorder.Event(object("tenant-a"), corev1.EventTypeNormal, "Applied", "x")
	}
	require.EqualValues(t, 3, testutil.ToFloat64(recorder.dropped), "one namespace leaves room for others")
	for i := range queueSize - namespaceQueueSize + 4 {
		recorder.Event(object(fmt.Sprint("tenant-", i)), corev1.EventTypeNormal, "Applied", "x")
	}
	require.EqualValues(t, 7, testutil.ToFloat64(recorder.dropped))
	go recorder.writeQueued(t.Context())
	start := time.Now()
	for range 5 {
		<-fake.Events
	}
	require.GreaterOrEqual(t, time.Since(start), 3*time.Second/PerSecond-10*time.Millisecond, "the rate is limited")
}

func TestEventsGiveWayToPolicies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := record.NewFakeRecorder(10)
		var busy atomic.Bool
		busy.Store(true)
		recorder := newRecorder(fake, prometheus.NewRegistry(), busy.Load)
		go recorder.writeQueued(t.Context())
		for range 3 {
			recorder.Event(object("tenant-a"), corev1.EventTypeNormal, "Applied", "x")
		}
		start := time.Now()
		for seconds := 1; seconds <= 2; seconds++ {
			<-fake.Events
			require.Equal(t, time.Duration(seconds)*time.Second, time.Since(start))
		}
		busy.Store(false)
		<-fake.Events
		require.LessOrEqual(t, time.Since(start), 2*time.Second+time.Second/PerSecond)
	})
}
