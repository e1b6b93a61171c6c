package agent

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"egress-agent/pkg/awsranges"
)

// The results of a look at the feed.
const (
	resultAccepted  = "accepted"  // a document, or a hold that ended, changed the ranges
	resultUnchanged = "unchanged" // nothing new
	resultRefused   = "refused"   // a document that is not believed
	resultFailed    = "failed"    // no document
)

// The states of a policy.
const (
	stateApplied     = "applied"
	stateInvalid     = "invalid"
	stateConflict    = "name_conflict"
	stateUnavailable = "ranges_unavailable"
)

// metrics are what the agent tells of itself. No label names a namespace or a policy.
type metrics struct {
	policies      *prometheus.GaugeVec
	syncs         prometheus.Histogram
	syncErrors    *prometheus.CounterVec
	writes        *prometheus.CounterVec
	applyLatency  prometheus.Histogram
	leader        prometheus.Gauge
	eventsDropped prometheus.Counter

	refreshes   *prometheus.CounterVec
	confirmed   atomic.Int64 // epoch seconds; 0 for never
	syncToken   prometheus.Gauge
	rows        prometheus.Gauge
	held        prometheus.Gauge
	storedBytes prometheus.Gauge
	storeErrors prometheus.Counter

	pairsChanged    prometheus.Counter
	prefixesAdded   prometheus.Counter
	prefixesRemoved prometheus.Counter
	policiesWritten prometheus.Counter
}

// newMetrics registers the agent's metrics. now is the clock by which an age is told.
func newMetrics(registry prometheus.Registerer, now func() time.Time) *metrics {
	durations := prometheus.ExponentialBuckets(0.001, 4, 9) // to 65 s
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "egress_agent_ranges_" + name, Help: help})
		registry.MustRegister(g)
		return g
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "egress_agent_ranges_" + name, Help: help})
		registry.MustRegister(c)
		return c
	}
	m := &metrics{
		policies: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "egress_agent_policies",
			Help: "Policies by state: applied, invalid, name_conflict or ranges_unavailable.",
		}, []string{"state"}),
		syncs: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "egress_agent_sync_duration_seconds", Help: "Time to sync a policy, its write included.", Buckets: durations,
		}),
		syncErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "egress_agent_sync_errors_total",
			Help: "Syncs that failed and are retried, by the API server's reason, or Other.",
		}, []string{"reason"}),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "egress_agent_networkpolicy_writes_total", Help: "NetworkPolicies written, by verb.",
		}, []string{"verb"}),
		applyLatency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "egress_agent_configmap_to_networkpolicy_seconds",
			Help: "Time from when a change of a policy is seen to when its NetworkPolicy is written.", Buckets: durations,
		}),
		leader:        prometheus.NewGauge(prometheus.GaugeOpts{Name: "egress_agent_leader", Help: "1 while this agent works, 0 while it waits for the Lease."}),
		eventsDropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "egress_agent_events_dropped_total", Help: "Events not written, since too many waited."}),
		refreshes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "egress_agent_ranges_refresh_total",
			Help: "Looks at the source of the AWS ranges by result: accepted, unchanged, refused (a document that is not believed) or failed (no document).",
		}, []string{"result"}),
		syncToken:       gauge("sync_token", "The accepted document's syncToken, its publication in epoch seconds; 0 for none."),
		rows:            gauge("rows", "Prefixes in use, those of custom ranges and those held among them."),
		held:            gauge("held", "Prefixes in use that AWS or a custom file has removed, until --removal-hold is over."),
		storedBytes:     gauge("configmap_bytes", "Data of the ConfigMap egress-ranges, of which the API server takes 1048576."),
		storeErrors:     counter("configmap_errors_total", "Failures to keep the accepted ranges in the ConfigMap egress-ranges."),
		pairsChanged:    counter("pairs_changed_total", "Services in a region whose prefixes changed, added over all accepted changes."),
		prefixesAdded:   counter("prefixes_added_total", "Prefixes that accepted documents added."),
		prefixesRemoved: counter("prefixes_removed_total", "Prefixes that accepted documents no longer have."),
		policiesWritten: counter("policies_written_total", "Policies whose NetworkPolicy was written because the ranges changed."),
	}
	for _, result := range []string{resultAccepted, resultUnchanged, resultRefused, resultFailed} {
		m.refreshes.WithLabelValues(result)
	}
	for _, state := range []string{stateApplied, stateInvalid, stateConflict, stateUnavailable} {
		m.policies.WithLabelValues(state)
	}
	for _, verb := range []string{"create", "update", "delete"} {
		m.writes.WithLabelValues(verb)
	}
	registry.MustRegister(m.policies, m.syncs, m.syncErrors, m.writes, m.applyLatency, m.leader, m.eventsDropped)
	registry.MustRegister(m.refreshes, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "egress_agent_ranges_age_seconds",
		Help: "Time since the ranges in use were last found to be the source's latest; -1 for never.",
	}, func() float64 {
		confirmed := m.confirmed.Load()
		if confirmed == 0 {
			return -1
		}
		return now().Sub(time.Unix(confirmed, 0)).Seconds()
	}))
	return m
}

// countSyncError counts a sync that is to be retried. The reasons are those of the API server, which are few.
func (m *metrics) countSyncError(err error) {
	reason := string(apierrors.ReasonForError(err))
	if reason == "" {
		reason = "Other"
	}
	m.syncErrors.WithLabelValues(reason).Inc()
}

// setTable tells of a table and of what it changed.
func (m *metrics) setTable(table *awsranges.Table, change awsranges.Change) {
	token, _ := strconv.ParseFloat(table.SyncToken(), 64) // 0 where custom ranges are all there is
	m.syncToken.Set(token)
	m.rows.Set(float64(len(table.Rows())))
	m.held.Set(float64(len(table.Held())))
	m.pairsChanged.Add(float64(countServiceRegions(change)))
	m.prefixesAdded.Add(float64(change.Added))
	m.prefixesRemoved.Add(float64(change.Removed))
}
