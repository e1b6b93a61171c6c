package agent

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/netpol"
)

// What the agent remembers, and may forget at any time without harm: when the second write of a change
// is due, and what it has told whom.

// policyState is what is remembered of every policy.
type policyState struct {
	ownerUID       types.UID       // of the ConfigMap whose NetworkPolicy this process has seen in place
	writtenVersion string          // the version of the NetworkPolicy that this process wrote, where no look at it is due
	state          string          // for the metric; empty for none
	serviceRegions []serviceRegion // what the policy names; nil for nothing, and for a policy that is not in force
	// told is the last Event about a mistake on each topic, which is not repeated; nil for none. A ConfigMap's topic is its
	// name.
	told map[string]string
}

func (a *Agent) get(key cache.ObjectName) policyState {
	a.mu.Lock()
	defer a.mu.Unlock()
	if m := a.remembered[key]; m != nil {
		return *m
	}
	return policyState{}
}

func (a *Agent) update(key cache.ObjectName, change func(*policyState)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.remembered[key]
	if m == nil {
		m = &policyState{}
		a.remembered[key] = m
	}
	change(m)
}

func (a *Agent) drop(key cache.ObjectName) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if m := a.remembered[key]; m != nil && m.state != "" {
		a.metrics.policies.WithLabelValues(m.state).Dec()
	}
	delete(a.remembered, key)
	delete(a.widenedAt, key)
}

// takeChangedAt returns since when a change waits to be synced; the zero time for none.
func (a *Agent) takeChangedAt(key cache.ObjectName) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	seen := a.changedAt[key]
	delete(a.changedAt, key)
	return seen
}

// restoreChangedAt puts back what takeSeen took, after a sync that failed.
func (a *Agent) restoreChangedAt(key cache.ObjectName, seen time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !seen.IsZero() {
		a.changedAt[key] = seen
	}
}

// setState counts a policy by its state.
func (a *Agent) setState(key cache.ObjectName, of netpol.State) {
	state := stateApplied
	switch of {
	case netpol.Invalid:
		state = stateInvalid
	case netpol.NameConflict:
		state = stateConflict
	case netpol.RangesUnavailable:
		state = stateUnavailable
	}
	a.update(key, func(m *policyState) {
		if m.state == state {
			return
		}
		if m.state != "" {
			a.metrics.policies.WithLabelValues(m.state).Dec()
		}
		a.metrics.policies.WithLabelValues(state).Inc()
		m.state = state
	})
}

// stepDelay says whether a step may be made now. The second write of a change waits for the first to settle,
// from when the agent sees that it is there: whether this agent wrote it or another.
func (a *Agent) stepDelay(key cache.ObjectName, step netpol.Step) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if step != netpol.Narrow {
		delete(a.widenedAt, key)
		return true
	}
	since, waiting := a.widenedAt[key]
	if !waiting {
		since = time.Now()
		a.widenedAt[key] = since
	}
	rest := a.options.Settle - time.Since(since)
	if rest > 0 {
		a.queue.AddAfter(key, rest)
		return false
	}
	return true
}

// reportDecision records the Events of a decision.
func (a *Agent) reportDecision(key cache.ObjectName, configMap *corev1.ConfigMap, d decision) {
	if d.warning == "" {
		a.isNewWarning(key, configMap.Name, "")
	} else {
		a.warn(key, configMap, configMap.Name, d.warning, d.problem)
	}
	if d.reason != "" {
		a.events.Event(configMap, corev1.EventTypeNormal, d.reason, truncate(d.message))
	}
}

// warn records an Event about a mistake, once on its topic.
func (a *Agent) warn(key cache.ObjectName, about interface {
	runtime.Object
	metav1.Object
}, topic, reason, message string) {
	if a.isNewWarning(key, topic, reason+message) {
		a.log.Warn("policy not applied", "namespace", key.Namespace, "name", about.GetName(), "reason", reason, "message", truncate(message))
		a.events.Event(about, corev1.EventTypeWarning, reason, truncate(message))
	}
}

// isNewWarning says whether a message, which may be empty for none, is to be told: it is new on its topic.
func (a *Agent) isNewWarning(key cache.ObjectName, topic, message string) (isNew bool) {
	a.update(key, func(m *policyState) {
		isNew = message != "" && m.told[topic] != message
		switch {
		case message == "":
			delete(m.told, topic)
		case m.told == nil:
			m.told = map[string]string{topic: message}
		default:
			m.told[topic] = message
		}
	})
	return isNew
}

// truncate cuts a message to what an Event holds.
func truncate(message string) string {
	const longest = 1024 // bytes
	if len(message) <= longest {
		return message
	}
	return strings.ToValidUTF8(message[:longest-len("…")], "") + "…"
}
