// Package reporter reports the agent's work in Events, metrics and the log.
package reporter

import (
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
)

// Recorder records Events.
type Recorder interface {
	Event(object runtime.Object, eventType, reason, message string)
}

// Object is an object that an Event may be about.
type Object interface {
	runtime.Object
	metav1.Object
}

// Reporter reports on policies. It is safe for concurrent use.
type Reporter struct {
	events  Recorder
	metrics *metrics
	log     *slog.Logger
}

// New returns a reporter whose metrics are registered.
func New(events Recorder, registry prometheus.Registerer, log *slog.Logger) *Reporter {
	return &Reporter{events: events, metrics: newMetrics(registry), log: log}
}

// Normal records the Event of a write.
func (r *Reporter) Normal(object Object, reason, message string) {
	r.events.Event(object, corev1.EventTypeNormal, reason, Truncate(message))
}

// Warning logs and records the Event of a problem.
func (r *Reporter) Warning(object Object, reason, message string) {
	r.log.Warn("policy not applied", "namespace", object.GetNamespace(), "name", object.GetName(), "reason", reason, "message", Truncate(message))
	r.events.Event(object, corev1.EventTypeWarning, reason, Truncate(message))
}

// Written logs and counts a created or updated NetworkPolicy.
func (r *Reporter) Written(key cache.ObjectName, verb string, cause netpol.Cause, step netpol.Step) {
	r.metrics.writes.WithLabelValues(verb).Inc()
	r.log.Info("NetworkPolicy written", "namespace", key.Namespace, "name", key.Name, "cause", cause, "step", step)
}

// Deleted logs and counts a deleted NetworkPolicy.
func (r *Reporter) Deleted(key cache.ObjectName) {
	r.metrics.writes.WithLabelValues(VerbDelete).Inc()
	r.log.Info("NetworkPolicy deleted", "namespace", key.Namespace, "name", key.Name)
}

// StateChanged counts a policy under the new state instead of the old one. An empty state stands for a policy that the
// agent has not synced or that is gone.
func (r *Reporter) StateChanged(old, state netpol.State) {
	if old == state {
		return
	}
	if old != "" {
		r.metrics.policies.WithLabelValues(stateLabel(old)).Dec()
	}
	if state != "" {
		r.metrics.policies.WithLabelValues(stateLabel(state)).Inc()
	}
}

// Synced measures a sync, successful or not.
func (r *Reporter) Synced(duration time.Duration) { r.metrics.syncs.Observe(duration.Seconds()) }

// SyncFailed logs and counts a sync that the controller will retry. The API server has few reasons, so each is a label.
func (r *Reporter) SyncFailed(key cache.ObjectName, err error, failures int) {
	reason := string(apierrors.ReasonForError(err))
	if reason == "" {
		reason = "Other"
	}
	r.metrics.syncErrors.WithLabelValues(reason).Inc()
	r.log.Warn("sync failed, retrying", "namespace", key.Namespace, "name", key.Name, "error", err, "failures", failures)
}

// Applied measures the time from a change of a policy to the write of the NetworkPolicy.
func (r *Reporter) Applied(latency time.Duration) { r.metrics.applyLatency.Observe(latency.Seconds()) }

// Leading records whether this agent leads.
func (r *Reporter) Leading(isLeader bool) {
	value := 0.0
	if isLeader {
		value = 1
	}
	r.metrics.leader.Set(value)
}

// TablePublished measures a table and how it differs from the previous one.
func (r *Reporter) TablePublished(table *awsranges.Table, change awsranges.Change) {
	m := r.metrics.table
	token, _ := strconv.ParseFloat(table.SyncToken(), 64) // 0 if there are only custom ranges
	m.syncToken.Set(token)
	m.rows.Set(float64(len(table.Rows())))
	m.held.Set(float64(len(table.Held())))
	m.pairsChanged.Add(float64(countPairs(change)))
	m.prefixesAdded.Add(float64(change.Added))
	m.prefixesRemoved.Add(float64(change.Removed))
}

// RolloutFinished logs and counts the end of a table's rollout. The change affected some policies. The agent has
// written some of these, and some still wait because another table followed.
func (r *Reporter) RolloutFinished(table *awsranges.Table, change awsranges.Change, affected, written, waiting int) {
	r.metrics.table.policiesWritten.Add(float64(written))
	r.log.Info("AWS ranges in use", "syncToken", table.SyncToken(), "createDate", table.CreateDate(), "rows", len(table.Rows()),
		"pairsChanged", countPairs(change), "prefixesAdded", change.Added, "prefixesRemoved", change.Removed, "held", len(table.Held()),
		"policiesAffected", affected, "policiesWritten", written, "policiesWaiting", waiting)
}

// countPairs returns how many services in a region have changed, without the sums over regions.
func countPairs(change awsranges.Change) int {
	count := 0
	for _, changed := range change.ServiceRegions {
		if changed.Region != "" {
			count++
		}
	}
	return count
}

// Truncate shortens a message to the 1024 bytes that an Event may have.
func Truncate(message string) string {
	const maxBytes = 1024
	if len(message) <= maxBytes {
		return message
	}
	return strings.ToValidUTF8(message[:maxBytes-len("…")], "") + "…"
}
