// Package fairqueue provides the work queue of NetworkPolicy keys, in which namespaces take turns.
package fairqueue

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// The wait before a failed key returns to the queue. It doubles with each further failure.
const (
	minRetryDelay = 50 * time.Millisecond
	maxRetryDelay = time.Minute
)

// Queue is a rate-limited work queue in which namespaces take turns. Get returns the next key of a namespace only after
// Done of the previous key. A namespace therefore occupies at most one worker, however many policies it has. And no two
// workers decide at the same time about policies that apply to the same pods.
type Queue struct {
	workqueue.TypedRateLimitingInterface[cache.ObjectName]
	order *order
}

// New returns an empty queue, and registers two metrics: the depth of the queue, and the time that keys wait in it.
func New(name string, registry prometheus.Registerer) *Queue {
	metrics := queueMetrics{
		depth: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "egress_agent_queue_depth", Help: "Policies that wait to be synced.",
		}),
		age: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "egress_agent_queue_age_seconds", Help: "Time a policy waited to be synced.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 9), // to 65 s
		}),
	}
	registry.MustRegister(metrics.depth, metrics.age)
	order := newOrder()
	inner := workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[cache.ObjectName]{
		Name: name, MetricsProvider: metrics, Queue: order,
	})
	return &Queue{
		TypedRateLimitingInterface: workqueue.NewTypedRateLimitingQueueWithConfig(
			workqueue.NewTypedItemExponentialFailureRateLimiter[cache.ObjectName](minRetryDelay, maxRetryDelay),
			workqueue.TypedRateLimitingQueueConfig[cache.ObjectName]{
				DelayingQueue: workqueue.NewTypedDelayingQueueWithConfig(
					workqueue.TypedDelayingQueueConfig[cache.ObjectName]{Queue: inner}),
			}),
		order: order,
	}
}

// Done ends the work on a key that Get returned, and thereby the turn of its namespace. The caller must then call Get
// or shut the queue down, because Done wakes no worker that waits in Get. Another key of this namespace would stay.
func (q *Queue) Done(key cache.ObjectName) {
	q.TypedRateLimitingInterface.Done(key)
	q.order.release(key)
}

// queueMetrics exports depth and age. The other metrics are no-ops.
type queueMetrics struct {
	depth prometheus.Gauge
	age   prometheus.Histogram
}

func (m queueMetrics) NewDepthMetric(string) workqueue.GaugeMetric          { return m.depth }
func (m queueMetrics) NewLatencyMetric(string) workqueue.HistogramMetric    { return m.age }
func (queueMetrics) NewAddsMetric(string) workqueue.CounterMetric           { return noopMetric{} }
func (queueMetrics) NewWorkDurationMetric(string) workqueue.HistogramMetric { return noopMetric{} }
func (queueMetrics) NewUnfinishedWorkSecondsMetric(string) workqueue.SettableGaugeMetric {
	return noopMetric{}
}
func (queueMetrics) NewLongestRunningProcessorSecondsMetric(string) workqueue.SettableGaugeMetric {
	return noopMetric{}
}
func (queueMetrics) NewRetriesMetric(string) workqueue.CounterMetric { return noopMetric{} }

type noopMetric struct{}

func (noopMetric) Inc()            {}
func (noopMetric) Set(float64)     {}
func (noopMetric) Observe(float64) {}
