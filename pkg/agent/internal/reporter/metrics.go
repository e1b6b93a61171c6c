package reporter

import (
	"github.com/prometheus/client_golang/prometheus"

	"egress-agent/pkg/netpol"
)

// The verbs of a write.
const (
	VerbCreate = "create"
	VerbUpdate = "update"
	VerbDelete = "delete"
)

// The values of the label "state".
const (
	stateApplied     = "applied"
	stateInvalid     = "invalid"
	stateConflict    = "name_conflict"
	stateUnavailable = "ranges_unavailable"
	stateGuarded     = "guarded"
)

// stateLabel returns the label value for a state. A policy that the agent is writing counts as applied.
func stateLabel(state netpol.State) string {
	switch state {
	case netpol.Invalid:
		return stateInvalid
	case netpol.NameConflict:
		return stateConflict
	case netpol.RangesUnavailable:
		return stateUnavailable
	case netpol.Guarded:
		return stateGuarded
	}
	return stateApplied
}

// metrics are the metrics of policies and of the table in use. No label names a namespace or a policy.
type metrics struct {
	policies     *prometheus.GaugeVec   // by state
	syncs        prometheus.Histogram   // seconds
	syncErrors   *prometheus.CounterVec // by reason
	writes       *prometheus.CounterVec // by verb
	applyLatency prometheus.Histogram   // seconds
	leader       prometheus.Gauge
	platform     platformMetrics
	table        tableMetrics
	registry     prometheus.Registerer
}

// SetNextExpiry registers the metric of the next expiry. next returns its time in epoch seconds, or 0. Call it once.
func (r *Reporter) SetNextExpiry(next func() int64) {
	r.metrics.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "egress_agent_next_expiry_timestamp_seconds",
		Help: "When the next destination of a policy expires, in epoch seconds; 0 if none does.",
	}, func() float64 { return float64(next()) }))
}

// platformMetrics are the metrics of the platform documents.
type platformMetrics struct {
	documents  *prometheus.GaugeVec // by state: applied or invalid
	namespaces prometheus.Gauge
	cyclic     prometheus.Gauge
	changed    prometheus.Gauge
}

func newPlatformMetrics(registry prometheus.Registerer) platformMetrics {
	m := platformMetrics{
		documents: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "egress_agent_platform_documents",
			Help: "Platform documents by the state of their stored version: applied or invalid.",
		}, []string{"state"}),
		namespaces: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "egress_agent_platform_governed_namespaces", Help: "Namespaces that at least one platform document governs.",
		}),
		cyclic: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "egress_agent_platform_cyclic_namespaces",
			Help: "Namespaces in a cycle of parents, or below one. They inherit no policies.",
		}),
		changed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "egress_agent_platform_changed_timestamp_seconds",
			Help: "When the content of the ConfigMap egress-platform last changed, in epoch seconds; 0 without one.",
		}),
	}
	for _, label := range []string{stateApplied, stateInvalid} {
		m.documents.WithLabelValues(label)
	}
	registry.MustRegister(m.documents, m.namespaces, m.cyclic, m.changed)
	return m
}

// tableMetrics are the metrics of the table in use, and of the rollouts of tables.
type tableMetrics struct {
	syncToken, rows, held          prometheus.Gauge
	pairsChanged                   prometheus.Counter
	prefixesAdded, prefixesRemoved prometheus.Counter
	policiesWritten                prometheus.Counter
}

// newMetrics returns the metrics, and registers them.
func newMetrics(registry prometheus.Registerer) *metrics {
	durations := prometheus.ExponentialBuckets(0.001, 4, 9) // to 65 s
	m := &metrics{
		policies: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "egress_agent_policies",
			Help: "Policies by state: applied, guarded, invalid, name_conflict or ranges_unavailable.",
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
			Help: "Time from when the agent sees a policy change to when it has written the NetworkPolicy.", Buckets: durations,
		}),
		leader: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "egress_agent_leader", Help: "1 while this agent leads, 0 while it is a standby.",
		}),
		platform: newPlatformMetrics(registry),
		table:    newTableMetrics(registry),
		registry: registry,
	}
	for _, label := range []string{stateApplied, stateGuarded, stateInvalid, stateConflict, stateUnavailable} {
		m.policies.WithLabelValues(label)
	}
	for _, verb := range []string{VerbCreate, VerbUpdate, VerbDelete} {
		m.writes.WithLabelValues(verb)
	}
	registry.MustRegister(m.policies, m.syncs, m.syncErrors, m.writes, m.applyLatency, m.leader)
	return m
}

func newTableMetrics(registry prometheus.Registerer) tableMetrics {
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
	return tableMetrics{
		syncToken:       gauge("sync_token", "The accepted document's syncToken, its publication in epoch seconds; 0 without one."),
		rows:            gauge("rows", "Prefixes in use, including custom ranges and held prefixes."),
		held:            gauge("held", "Prefixes in use that AWS or a custom file has removed, until --removal-hold is over."),
		pairsChanged:    counter("pairs_changed_total", "Services in a region whose prefixes changed, summed over all accepted changes."),
		prefixesAdded:   counter("prefixes_added_total", "Prefixes that accepted documents added."),
		prefixesRemoved: counter("prefixes_removed_total", "Prefixes that accepted documents no longer have."),
		policiesWritten: counter("policies_written_total", "Policies whose NetworkPolicy was written because the ranges changed."),
	}
}
