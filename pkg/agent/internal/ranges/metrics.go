package ranges

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The results of a refresh.
const (
	resultAccepted  = "accepted"  // a document, or a hold that ended, changed the ranges
	resultUnchanged = "unchanged" // nothing changed
	resultRefused   = "refused"   // the feed refused a document
	resultFailed    = "failed"    // the feed got no document
)

// metrics are the metrics of refreshes and of the ConfigMap of ranges.
type metrics struct {
	refreshes   *prometheus.CounterVec // by result
	confirmed   atomic.Int64           // epoch seconds of the last refresh that found the ranges current; 0 if no refresh has
	storedBytes prometheus.Gauge
	storeErrors prometheus.Counter
}

// newMetrics returns the metrics, and registers them. now is the clock for the age of the ranges.
func newMetrics(registry prometheus.Registerer, now func() time.Time) *metrics {
	m := &metrics{
		refreshes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "egress_agent_ranges_refresh_total",
			Help: "Refreshes of the AWS ranges by result: accepted, unchanged, refused (a document) or failed (no document).",
		}, []string{"result"}),
		storedBytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "egress_agent_ranges_configmap_bytes",
			Help: "Data of the ConfigMap egress-ranges; the API server accepts at most 1048576.",
		}),
		storeErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "egress_agent_ranges_configmap_errors_total",
			Help: "Failures to save the accepted ranges in the ConfigMap egress-ranges.",
		}),
	}
	for _, result := range []string{resultAccepted, resultUnchanged, resultRefused, resultFailed} {
		m.refreshes.WithLabelValues(result)
	}
	registry.MustRegister(m.refreshes, m.storedBytes, m.storeErrors, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "egress_agent_ranges_age_seconds",
		Help: "Time since a refresh last found the ranges in use to be the source's latest; -1 if none has.",
	}, func() float64 {
		confirmed := m.confirmed.Load()
		if confirmed == 0 {
			return -1
		}
		return now().Sub(time.Unix(confirmed, 0)).Seconds()
	}))
	return m
}
