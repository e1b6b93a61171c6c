// Package tracker caches facts about each policy. The process may lose these facts at any time without harm.
//
// It is pure: the caller passes the current time, and acts on the results of the methods.
package tracker

import (
	"maps"
	"sync"
	"time"
	"unique"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
)

// Tracker has the facts about each policy, by the key of its NetworkPolicy. It is safe for concurrent use.
type Tracker struct {
	settle time.Duration // between the two writes of a large change

	mu       sync.Mutex
	policies map[cache.ObjectName]*policyState
	// policiesNaming has the policies that name each service-region.
	policiesNaming map[serviceRegion]map[*policyState]struct{}
	// The times are in separate maps, because few policies have a time. A policy may also change before its first sync.
	changedAt map[cache.ObjectName]time.Time // of the oldest change that no sync has handled
	widenedAt map[cache.ObjectName]time.Time // when the agent first saw the first write of two in place
}

// serviceRegion is a pointer that all policies with the same service and region share.
type serviceRegion = unique.Handle[awsranges.ServiceRegion]

// policyState has the facts about one policy.
type policyState struct {
	key            cache.ObjectName
	ownerUID       types.UID // UID of the ConfigMap whose NetworkPolicy this process has seen in place
	writtenVersion string    // the NetworkPolicy's resourceVersion after the last write, if that needs no further sync
	state          netpol.State
	nextExpiry     int64             // when the next destination expires, in epoch seconds; 0 if none does
	serviceRegions []serviceRegion   // in the policy; nil if no sync has parsed the policy
	warnings       map[string]string // the last Warning by topic; may be nil
}

// New returns an empty tracker. The second write of a large change waits settle after the first.
func New(settle time.Duration) *Tracker {
	return &Tracker{
		settle:         settle,
		policies:       make(map[cache.ObjectName]*policyState),
		policiesNaming: make(map[serviceRegion]map[*policyState]struct{}),
		changedAt:      make(map[cache.ObjectName]time.Time),
		widenedAt:      make(map[cache.ObjectName]time.Time),
	}
}

// Size returns how many policies and times the tracker has.
func (t *Tracker) Size() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.policies) + len(t.changedAt) + len(t.widenedAt)
}

// get returns the state of a policy; the zero value if the policy is unknown. The caller holds the lock.
func (t *Tracker) get(key cache.ObjectName) policyState {
	if p := t.policies[key]; p != nil {
		return *p
	}
	return policyState{}
}

// getOrCreate returns the state of a policy. The caller holds the lock.
func (t *Tracker) getOrCreate(key cache.ObjectName) *policyState {
	p := t.policies[key]
	if p == nil {
		p = &policyState{key: key}
		t.policies[key] = p
	}
	return p
}

// OwnerUID returns the UID of the ConfigMap whose NetworkPolicy this process has seen in place. It is empty if the
// process has seen no such NetworkPolicy.
func (t *Tracker) OwnerUID(key cache.ObjectName) types.UID {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.get(key).ownerUID
}

// SetOwnerUID records that a NetworkPolicy of this ConfigMap is in place.
func (t *Tracker) SetOwnerUID(key cache.ObjectName, uid types.UID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.getOrCreate(key).ownerUID = uid
}

// WrittenVersion returns the resourceVersion from SetWrittenVersion. A NetworkPolicy of this version needs no sync. It
// is empty if SetWrittenVersion has recorded no version.
func (t *Tracker) WrittenVersion(key cache.ObjectName) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.get(key).writtenVersion
}

// SetWrittenVersion records the resourceVersion after a write that completes a change.
func (t *Tracker) SetWrittenVersion(key cache.ObjectName, resourceVersion string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.getOrCreate(key).writtenVersion = resourceVersion
}

// SetState records the state of a policy, and returns its previous state.
func (t *Tracker) SetState(key cache.ObjectName, state netpol.State) (previous netpol.State) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.getOrCreate(key)
	previous, p.state = p.state, state
	return previous
}

// SetNextExpiry records when the next destination of a policy expires; the zero Time if none does.
func (t *Tracker) SetNextExpiry(key cache.ObjectName, next time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	seconds := int64(0)
	if !next.IsZero() {
		seconds = next.Unix()
	}
	t.getOrCreate(key).nextExpiry = seconds
}

// NextExpiry returns when the next destination of any policy expires, in epoch seconds; 0 if none does.
func (t *Tracker) NextExpiry() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	earliest := int64(0)
	for _, p := range t.policies {
		if p.nextExpiry != 0 && (earliest == 0 || p.nextExpiry < earliest) {
			earliest = p.nextExpiry
		}
	}
	return earliest
}

// Drop deletes the facts about a policy, except the time of a change that no sync has handled. It returns the last
// state of the policy.
func (t *Tracker) Drop(key cache.ObjectName) (last netpol.State) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.widenedAt, key)
	p := t.policies[key]
	if p == nil {
		return ""
	}
	t.unindex(p)
	delete(t.policies, key)
	return p.state
}

// SetChanged records that a policy has changed at this time, unless an earlier change still waits for its sync.
func (t *Tracker) SetChanged(key cache.ObjectName, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, isWaiting := t.changedAt[key]; !isWaiting {
		t.changedAt[key] = now
	}
}

// TakeChangedAt removes and returns the time of the oldest change that no sync has handled. It returns the zero time if
// syncs have handled all changes.
func (t *Tracker) TakeChangedAt(key cache.ObjectName) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	changedAt := t.changedAt[key]
	delete(t.changedAt, key)
	return changedAt
}

// RestoreChangedAt undoes TakeChangedAt after a sync that failed.
func (t *Tracker) RestoreChangedAt(key cache.ObjectName, changedAt time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !changedAt.IsZero() {
		t.changedAt[key] = changedAt
	}
}

// StepDelay returns how long a step must wait; 0 or less if the agent may write the step now. Only the second write of
// a large change waits. The wait begins when this process sees that the first write is in place, whichever agent wrote
// it.
func (t *Tracker) StepDelay(key cache.ObjectName, step netpol.Step, now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if step != netpol.Narrow {
		delete(t.widenedAt, key)
		return 0
	}
	widenedAt, isWaiting := t.widenedAt[key]
	if !isWaiting {
		widenedAt = now
		t.widenedAt[key] = now
	}
	return t.settle - now.Sub(widenedAt)
}

// RecordWarning records the message of a Warning on a topic. isNew reports whether the message differs from the last
// message on this topic. An empty message records that the topic has no Warning; isNew is then false.
func (t *Tracker) RecordWarning(key cache.ObjectName, topic, message string) (isNew bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.getOrCreate(key)
	if message == "" {
		delete(p.warnings, topic)
		return false
	}
	if p.warnings[topic] == message {
		return false
	}
	if p.warnings == nil {
		p.warnings = make(map[string]string, 1)
	}
	p.warnings[topic] = message
	return true
}

// Warnings returns a copy of the last Warnings of a policy, by topic.
func (t *Tracker) Warnings(key cache.ObjectName) map[string]string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.get(key).warnings)
}

// RestoreWarnings records the result of Warnings again after Drop.
func (t *Tracker) RestoreWarnings(key cache.ObjectName, warnings map[string]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.getOrCreate(key).warnings = warnings
}
