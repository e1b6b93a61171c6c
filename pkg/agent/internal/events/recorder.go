// Package events writes the agent's Events at a limited rate.
package events

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/flowcontrol"
)

// PerSecond is how many Events a recorder writes in a second at most. People read Events, and need no more. More Events
// would delay the requests for NetworkPolicies.
const PerSecond = 20

const (
	// queueSize is how many Events may wait. namespaceQueueSize is how many of these may be for one namespace.
	queueSize          = 1000
	namespaceQueueSize = queueSize / 10
	// maxWait is how long an Event waits at most while policies wait for a sync.
	maxWait = time.Second
)

// Recorder queues Events and writes them at a limited rate.
type Recorder struct {
	client      kubernetes.Interface
	broadcaster record.EventBroadcaster
	inner       record.EventRecorder
	waiting     chan func()
	dropped     prometheus.Counter
	isBusy      func() bool // reports whether policies wait for a sync

	mu           sync.Mutex
	waitingCount map[string]int // of Events, by namespace
}

// New returns a recorder that writes Events with client, and registers the metric of dropped Events. source is the
// component that the Events name as their source. While isBusy returns true, the recorder writes only one Event a
// second.
func New(client kubernetes.Interface, source string, registry prometheus.Registerer, isBusy func() bool) *Recorder {
	broadcaster := record.NewBroadcaster()
	r := newRecorder(broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: source}), registry, isBusy)
	r.client, r.broadcaster = client, broadcaster
	return r
}

func newRecorder(inner record.EventRecorder, registry prometheus.Registerer, isBusy func() bool) *Recorder {
	r := &Recorder{
		inner:   inner,
		waiting: make(chan func(), queueSize),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "egress_agent_events_dropped_total", Help: "Events that were not written because too many waited.",
		}),
		isBusy:       isBusy,
		waitingCount: make(map[string]int),
	}
	registry.MustRegister(r.dropped)
	return r
}

// Run writes the queued Events until ctx ends.
func (r *Recorder) Run(ctx context.Context) {
	r.broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: r.client.CoreV1().Events("")})
	r.writeQueued(ctx)
}

// Shutdown ends the writes that Run has begun.
func (r *Recorder) Shutdown() { r.broadcaster.Shutdown() }

// Event queues an Event, and never blocks. If too many Events wait, in total or for the namespace of the object, it
// drops the Event and counts it.
func (r *Recorder) Event(object runtime.Object, eventType, reason, message string) {
	namespace := ""
	if accessor, err := meta.Accessor(object); err == nil {
		namespace = accessor.GetNamespace()
	}
	write := func() {
		r.addWaiting(namespace, -1)
		r.inner.Event(object, eventType, reason, message)
	}
	if r.addWaiting(namespace, 1) <= namespaceQueueSize {
		select {
		case r.waiting <- write:
			return
		default:
		}
	}
	r.addWaiting(namespace, -1)
	r.dropped.Inc()
}

// addWaiting adds to the number of waiting Events of a namespace, and returns the new number.
func (r *Recorder) addWaiting(namespace string, added int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waitingCount[namespace] += added; r.waitingCount[namespace] == 0 {
		delete(r.waitingCount, namespace)
	}
	return r.waitingCount[namespace]
}

// writeQueued writes the queued Events until ctx ends.
func (r *Recorder) writeQueued(ctx context.Context) {
	limiter := flowcontrol.NewTokenBucketRateLimiter(PerSecond, 1)
	for {
		select {
		case <-ctx.Done():
			return
		case write := <-r.waiting:
			r.waitWhileBusy(ctx)
			write()
			if limiter.Wait(ctx) != nil {
				return
			}
		}
	}
}

// waitWhileBusy returns when no policy waits for a sync, at the latest after maxWait.
func (r *Recorder) waitWhileBusy(ctx context.Context) {
	const interval = 50 * time.Millisecond
	for waited := time.Duration(0); waited < maxWait && r.isBusy() && ctx.Err() == nil; waited += interval {
		time.Sleep(interval)
	}
}
