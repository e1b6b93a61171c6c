package agent

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// newQueue makes the queue of the keys of NetworkPolicies, which tells its depth and how long a key waits
// in it. A key that fails waits for 50 ms, and twice as long each further time, up to a minute. order says which comes next.
func newQueue(registry prometheus.Registerer, order *fairQueue) workqueue.TypedRateLimitingInterface[cache.ObjectName] {
	metrics := queueMetrics{
		depth: prometheus.NewGauge(prometheus.GaugeOpts{Name: "egress_agent_queue_depth", Help: "Policies that wait to be synced."}),
		age: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "egress_agent_queue_age_seconds", Help: "Time a policy waited to be synced.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 9),
		}),
	}
	registry.MustRegister(metrics.depth, metrics.age)
	return workqueue.NewTypedRateLimitingQueueWithConfig(
		workqueue.NewTypedItemExponentialFailureRateLimiter[cache.ObjectName](50*time.Millisecond, time.Minute),
		workqueue.TypedRateLimitingQueueConfig[cache.ObjectName]{
			DelayingQueue: workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[cache.ObjectName]{
				Queue: workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[cache.ObjectName]{Name: Name, MetricsProvider: metrics, Queue: order}),
			}),
		})
}

// queueMetrics are those of the queue's metrics that are told.
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
