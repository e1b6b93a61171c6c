package agent

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/flowcontrol"
)

// EventsPerSecond is how many Events are written: they are for people, and more would only keep the API
// server from NetworkPolicies.
const EventsPerSecond = 20

// eventsWaiting is how many Events may wait for that, and eventsOfOne how many of them of one namespace.
const (
	eventQueueSize = 1000
	eventsOfOne    = eventQueueSize / 10
)

// recorder is what Events are told to.
type recorder interface {
	Event(object runtime.Object, eventType, reason, message string)
}

// pacedRecorder passes Events on at their pace. It never waits: one too many, of all or of its namespace, is dropped, and
// counted.
type pacedRecorder struct {
	recorder record.EventRecorder
	waiting  chan func()
	dropped  prometheus.Counter
	busy     func() bool // while policies wait

	mu sync.Mutex
	of map[string]int // how many wait of each namespace
}

func newSlowRecorder(recorder record.EventRecorder, dropped prometheus.Counter, busy func() bool) *pacedRecorder {
	return &pacedRecorder{recorder: recorder, waiting: make(chan func(), eventQueueSize), dropped: dropped, busy: busy, of: make(map[string]int)}
}

func (r *pacedRecorder) Event(object runtime.Object, eventType, reason, message string) {
	namespace := ""
	if accessor, err := meta.Accessor(object); err == nil {
		namespace = accessor.GetNamespace()
	}
	record := func() {
		r.count(namespace, -1)
		r.recorder.Event(object, eventType, reason, message)
	}
	if r.count(namespace, 1) <= eventsOfOne {
		select {
		case r.waiting <- record:
			return
		default:
		}
	}
	r.count(namespace, -1)
	r.dropped.Inc()
}

func (r *pacedRecorder) count(namespace string, more int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of[namespace] += more; r.of[namespace] == 0 {
		delete(r.of, namespace)
	}
	return r.of[namespace]
}

// run passes Events on until the context ends: one a second while policies wait.
func (r *pacedRecorder) run(ctx context.Context) {
	limiter := flowcontrol.NewTokenBucketRateLimiter(EventsPerSecond, 1)
	for {
		select {
		case <-ctx.Done():
			return
		case record := <-r.waiting:
			r.waitWhileBusy(ctx)
			record()
			if limiter.Wait(ctx) != nil {
				return
			}
		}
	}
}

// waitWhileBusy waits until no policy does, and no longer than a second.
func (r *pacedRecorder) waitWhileBusy(ctx context.Context) {
	const look = 50 * time.Millisecond
	for waited := time.Duration(0); waited < backgroundDelay && r.busy() && ctx.Err() == nil; waited += look {
		time.Sleep(look)
	}
}
