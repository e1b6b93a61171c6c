package agent

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// What the agent remembers, and may forget at any time without harm: when the second write of a change
// is due, and what it has told whom.

// topic is what one Event about a mistake supersedes another on.
type topic struct {
	key   cache.ObjectName
	slots bool // of PortSlots, rather than of the policy itself
}

// memory is what is remembered of every policy.
type memory struct {
	known   types.UID // of the ConfigMap whose NetworkPolicy this process has seen in place
	written string    // the version of the NetworkPolicy that this process wrote, where no look at it is due
	state   string    // for the metric; empty for none
	pairs   []pair    // what the policy names; nil for nothing, and for a policy that is not in force
	ports   int       // how many the policy has; 0 where that has not been counted since its last sync
}

func (a *Agent) recall(key cache.ObjectName) memory {
	a.mu.Lock()
	defer a.mu.Unlock()
	if m := a.remembered[key]; m != nil {
		return *m
	}
	return memory{}
}

func (a *Agent) remember(key cache.ObjectName, change func(*memory)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.remembered[key]
	if m == nil {
		m = &memory{}
		a.remembered[key] = m
	}
	change(m)
}

func (a *Agent) forget(key cache.ObjectName) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if m := a.remembered[key]; m != nil && m.state != "" {
		a.metrics.policies.WithLabelValues(m.state).Dec()
	}
	delete(a.remembered, key)
	delete(a.wide, key)
	delete(a.told, topic{key, false})
	delete(a.told, topic{key, true})
}

// takeSeen returns since when a change waits to be synced; the zero time for none.
func (a *Agent) takeSeen(key cache.ObjectName) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	seen := a.seen[key]
	delete(a.seen, key)
	return seen
}

// putSeen puts back what takeSeen took, after a sync that failed.
func (a *Agent) putSeen(key cache.ObjectName, seen time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !seen.IsZero() {
		a.seen[key] = seen
	}
}

// setState counts a policy by what the reason of a decision says of it.
func (a *Agent) setState(key cache.ObjectName, reason string) {
	state := stateApplied
	switch reason {
	case ReasonInvalid:
		state = stateInvalid
	case ReasonNameConflict:
		state = stateConflict
	case ReasonRangesUnavailable:
		state = stateUnavailable
	}
	a.remember(key, func(m *memory) {
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

// isDue says whether a step may be made now. The second write of a change waits for the first to settle,
// from when the agent sees that it is there: whether this agent wrote it or another.
func (a *Agent) isDue(key cache.ObjectName, step netpol.Step) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if step != netpol.Narrow {
		delete(a.wide, key)
		return true
	}
	since, waiting := a.wide[key]
	if !waiting {
		since = time.Now()
		a.wide[key] = since
	}
	rest := a.options.Settle - time.Since(since)
	if rest > 0 {
		a.queue.AddAfter(key, rest)
		return false
	}
	return true
}

// tell records the Event of a decision. One about a mistake is given once, not at every look at it.
func (a *Agent) tell(key cache.ObjectName, configMap *corev1.ConfigMap, d decision) {
	switch d.reason {
	case ReasonApplied, ReasonRestored, ReasonRangesChanged:
		a.events.Event(configMap, corev1.EventTypeNormal, d.reason, short(d.message))
		fallthrough
	case "":
		a.once(topic{key, false}, "")
	default:
		if a.once(topic{key, false}, d.reason+d.message) {
			a.log.Warn("policy not applied", "namespace", key.Namespace, "name", key.Name, "reason", d.reason, "message", short(d.message))
			a.events.Event(configMap, corev1.EventTypeWarning, d.reason, short(d.message))
		}
	}
}

// once says whether a message, which may be empty for none, is to be told: it is new on its topic.
func (a *Agent) once(t topic, message string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if message == "" {
		delete(a.told, t)
		return false
	}
	told := a.told[t]
	a.told[t] = message
	return told != message
}

// tellSlots warns of a policy that is within the limit by itself, and together with the other policies
// of its namespace is not: all of them apply to the same pods. The policy that was applied last, with its
// spec, is told: it, too, has a part in every CIDR that became too crowded by it.
func (a *Agent) tellSlots(key cache.ObjectName, configMap *corev1.ConfigMap, own networkingv1.NetworkPolicySpec, table *awsranges.Table) {
	objects, err := a.configMaps.ByIndex(cache.NamespaceIndex, key.Namespace)
	if err != nil {
		return
	}
	ports := netpol.Ports(own)
	a.remember(key, func(m *memory) { m.ports = ports })
	var others []*corev1.ConfigMap
	for _, object := range objects {
		if other, ok := object.(*corev1.ConfigMap); ok && other.Name != configMap.Name && other.Labels[policy.Label] == policy.LabelValue {
			others = append(others, other)
			ports += a.portsOf(other, table)
		}
	}
	message := ""
	if netpol.CanShareSlots(ports, a.options.Rules.MaxPortSlots) {
		var specs []networkingv1.NetworkPolicySpec
		for _, other := range others {
			if result, problems := netpol.Evaluate(other, table, a.options.Rules); problems == nil {
				specs = append(specs, result.Spec)
			}
		}
		message = netpol.SharedSlots(own, specs, a.options.Rules.MaxPortSlots)
	}
	if a.once(topic{key, true}, message) {
		a.log.Warn("too many ports", "namespace", key.Namespace, "name", key.Name, "message", message)
		a.events.Event(configMap, corev1.EventTypeWarning, ReasonPortSlots, short(message))
	}
}

// portsOf counts a policy's ports, once until it is synced again. One that is not in force has none yet: when it is
// written, it takes this one's into account.
func (a *Agent) portsOf(configMap *corev1.ConfigMap, table *awsranges.Table) int {
	key := policyKey(configMap)
	ports := a.recall(key).ports
	if ports > 0 {
		return ports
	}
	if current, err := a.observedPolicy(key); current == nil || err != nil {
		return 0
	}
	if result, problems := netpol.Evaluate(configMap, table, a.options.Rules); problems == nil {
		ports = netpol.Ports(result.Spec)
	}
	a.remember(key, func(m *memory) { m.ports = ports })
	return ports
}

// short cuts a message to what an Event holds.
func short(message string) string {
	const longest = 1024 // bytes
	if len(message) <= longest {
		return message
	}
	return strings.ToValidUTF8(message[:longest-len("…")], "") + "…"
}
