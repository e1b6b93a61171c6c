// Package reporter reports the agent's work in Events, metrics and the log.
package reporter

import (
	"fmt"
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

// Object is an API object that an Event is about.
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

// New returns a reporter, and registers its metrics.
func New(events Recorder, registry prometheus.Registerer, log *slog.Logger) *Reporter {
	return &Reporter{events: events, metrics: newMetrics(registry), log: log}
}

// Normal records a Normal Event about a policy that was written.
func (r *Reporter) Normal(object Object, reason, message string) {
	r.events.Event(object, corev1.EventTypeNormal, reason, Truncate(message))
}

// Warning logs a problem, and records a Warning Event about it.
func (r *Reporter) Warning(object Object, reason, message string) {
	text := "policy not applied"
	switch reason {
	case string(netpol.Guarded):
		text = "policy applied in part"
	case "Expiring", "Expired":
		text = "destinations expire"
	}
	r.log.Warn(text,
		"namespace", object.GetNamespace(), "name", object.GetName(), "reason", reason, "message", Truncate(message))
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

// StateChanged counts a policy under its current state instead of its previous state. The previous state is empty if
// the agent has not synced the policy yet. The current state is empty if the policy is gone.
func (r *Reporter) StateChanged(previous, current netpol.State) {
	if previous == current {
		return
	}
	if previous != "" {
		r.metrics.policies.WithLabelValues(stateLabel(previous)).Dec()
	}
	if current != "" {
		r.metrics.policies.WithLabelValues(stateLabel(current)).Inc()
	}
}

// Synced records the duration of a sync, successful or not.
func (r *Reporter) Synced(duration time.Duration) { r.metrics.syncs.Observe(duration.Seconds()) }

// SyncFailed logs and counts a sync that the controller will retry. The API server has few reasons, so each is
// a value of the label "reason". failures is how often the sync of this key has failed in a row.
func (r *Reporter) SyncFailed(key cache.ObjectName, err error, failures int) {
	reason := string(apierrors.ReasonForError(err))
	if reason == "" {
		reason = "Other"
	}
	r.metrics.syncErrors.WithLabelValues(reason).Inc()
	r.log.Warn("sync failed, retrying", "namespace", key.Namespace, "name", key.Name, "error", err, "failures", failures)
}

// Applied records the time from a change of a policy to the write of its NetworkPolicy.
func (r *Reporter) Applied(latency time.Duration) { r.metrics.applyLatency.Observe(latency.Seconds()) }

// SetLeader records whether this agent leads.
func (r *Reporter) SetLeader(isLeader bool) {
	value := 0.0
	if isLeader {
		value = 1
	}
	r.metrics.leader.Set(value)
}

// PlatformChanged records the number of platform documents by the state of their stored version, the number of namespaces
// that they govern, and that of namespaces in a cycle of parents.
func (r *Reporter) PlatformChanged(valid, invalid, namespaces, cyclic int) {
	r.metrics.platform.cyclic.Set(float64(cyclic))
	r.metrics.platform.documents.WithLabelValues(stateApplied).Set(float64(valid))
	r.metrics.platform.documents.WithLabelValues(stateInvalid).Set(float64(invalid))
	r.metrics.platform.namespaces.Set(float64(namespaces))
}

// CyclesFound logs the namespaces that are in a cycle of parents.
func (r *Reporter) CyclesFound(namespaces []string) {
	const maxShown = 10
	r.log.Warn("namespaces in a cycle of parents inherit no policies", "namespaces", namespaces[:min(len(namespaces), maxShown)], "count", len(namespaces))
}

// SnapshotSaved records that the ConfigMap of the platform has the content of this time, in epoch seconds.
func (r *Reporter) SnapshotSaved(changed int64, bytes int) {
	r.metrics.platform.changed.Set(float64(changed))
	r.log.Info("platform snapshot saved", "bytes", bytes)
}

// SnapshotKept records that the ConfigMap of the platform already has the content of this time, in epoch seconds.
func (r *Reporter) SnapshotKept(changed int64) { r.metrics.platform.changed.Set(float64(changed)) }

// SnapshotFailed logs that the ConfigMap of the platform could not be saved or loaded. The caller retries.
func (r *Reporter) SnapshotFailed(what string, err error) {
	r.log.Warn(what+" platform snapshot failed, retrying", "error", err)
}

// PlatformApplied logs and records an Event about a platform document that is in force.
func (r *Reporter) PlatformApplied(object Object, namespaces int) {
	message := fmt.Sprintf("The document is in force and governs %d namespaces", namespaces)
	r.log.Info("platform document in force", "name", object.GetName(), "namespaces", namespaces)
	r.events.Event(object, corev1.EventTypeNormal, "Applied", message)
}

// PlatformInvalid logs and records an Event about an invalid platform document.
func (r *Reporter) PlatformInvalid(object Object, message string) {
	r.log.Warn("platform document invalid", "name", object.GetName(), "message", Truncate(message))
	r.events.Event(object, corev1.EventTypeWarning, string(netpol.Invalid), Truncate(message))
}

// TablePublished records the size of a table, and its change from the previous table.
func (r *Reporter) TablePublished(table *awsranges.Table, change awsranges.Change) {
	m := r.metrics.table
	token, _ := strconv.ParseFloat(table.SyncToken(), 64) // 0 if there are only custom ranges
	m.syncToken.Set(token)
	m.rows.Set(float64(len(table.Rows())))
	m.held.Set(float64(len(table.Held())))
	m.pairsChanged.Add(float64(countServiceRegions(change)))
	m.prefixesAdded.Add(float64(change.Added))
	m.prefixesRemoved.Add(float64(change.Removed))
}

// RolloutFinished logs and counts the end of a table's rollout. affected is how many policies the change affects, and
// written is how many of these the agent wrote. waiting is how many of these still wait, because another table
// followed.
func (r *Reporter) RolloutFinished(table *awsranges.Table, change awsranges.Change, affected, written, waiting int) {
	r.metrics.table.policiesWritten.Add(float64(written))
	r.log.Info("AWS ranges in use",
		"syncToken", table.SyncToken(), "createDate", table.CreateDate(), "rows", len(table.Rows()),
		"pairsChanged", countServiceRegions(change), "prefixesAdded", change.Added, "prefixesRemoved", change.Removed,
		"held", len(table.Held()),
		"policiesAffected", affected, "policiesWritten", written, "policiesWaiting", waiting)
}

// countServiceRegions returns how many service-regions have changed. It does not count an entry with an empty region,
// because such an entry stands for all regions of its service.
func countServiceRegions(change awsranges.Change) int {
	count := 0
	for _, changed := range change.ServiceRegions {
		if changed.Region != "" {
			count++
		}
	}
	return count
}

// Truncate shortens a message to 1024 bytes, the limit for the message of an Event.
func Truncate(message string) string {
	const maxBytes = 1024
	if len(message) <= maxBytes {
		return message
	}
	return strings.ToValidUTF8(message[:maxBytes-len("…")], "") + "…"
}
