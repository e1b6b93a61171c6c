// Package tracker caches facts about each policy that the process may lose at any time without harm.
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

// Tracker has the facts by the key of the policy's NetworkPolicy. It is safe for concurrent use.
type Tracker struct {
	settle time.Duration // between the two writes of a large change

	mu       sync.Mutex
	policies map[cache.ObjectName]*policyState
	naming   map[serviceRegion]map[*policyState]struct{} // the policies that name each service-region
	// The times have separate maps. Few policies have one, and the first change comes before the first sync.
	changedAt map[cache.ObjectName]time.Time // of the oldest change that no sync has handled
	widenedAt map[cache.ObjectName]time.Time // when the agent saw a NetworkPolicy that waits for its second write
}

// serviceRegion is a pointer that all policies with the same service and region share.
type serviceRegion = unique.Handle[awsranges.ServiceRegion]

// policyState has the facts about one policy.
type policyState struct {
	key            cache.ObjectName
	ownerUID       types.UID // of the ConfigMap whose NetworkPolicy this process has seen in place
	writtenVersion string    // the NetworkPolicy's resourceVersion after the last write, if that needs no further sync
	state          netpol.State
	serviceRegions []serviceRegion   // in the policy; nil for a policy that has not been parsed
	warnings       map[string]string // the last Warning on each topic; may be nil
}

// New returns an empty tracker. The second write of a large change waits settle after the first.
func New(settle time.Duration) *Tracker {
	return &Tracker{
		settle:    settle,
		policies:  make(map[cache.ObjectName]*policyState),
		naming:    make(map[serviceRegion]map[*policyState]struct{}),
		changedAt: make(map[cache.ObjectName]time.Time),
		widenedAt: make(map[cache.ObjectName]time.Time),
	}
}

// Size returns how many policies and times the tracker has.
func (t *Tracker) Size() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.policies) + len(t.changedAt) + len(t.widenedAt)
}

// get returns the state of a policy; the zero value for an unknown one. The caller holds the lock.
func (t *Tracker) get(key cache.ObjectName) policyState {
	if p := t.policies[key]; p != nil {
		return *p
	}
	return policyState{}
}

// open returns the state of a policy, and creates it if necessary. The caller holds the lock.
func (t *Tracker) open(key cache.ObjectName) *policyState {
	p := t.policies[key]
	if p == nil {
		p = &policyState{key: key}
		t.policies[key] = p
	}
	return p
}

// OwnerUID returns the UID of the ConfigMap whose NetworkPolicy this process has seen in place; empty without one.
func (t *Tracker) OwnerUID(key cache.ObjectName) types.UID {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.get(key).ownerUID
}

// SetOwnerUID records that a NetworkPolicy of this ConfigMap is in place.
func (t *Tracker) SetOwnerUID(key cache.ObjectName, uid types.UID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open(key).ownerUID = uid
}

// WrittenVersion returns the resourceVersion of the NetworkPolicy that needs no sync; empty without one.
func (t *Tracker) WrittenVersion(key cache.ObjectName) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.get(key).writtenVersion
}

// SetWrittenVersion records the resourceVersion after a write that completes a change.
func (t *Tracker) SetWrittenVersion(key cache.ObjectName, resourceVersion string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open(key).writtenVersion = resourceVersion
}

// SetState records the state of a policy, and returns its old one.
func (t *Tracker) SetState(key cache.ObjectName, state netpol.State) (old netpol.State) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.open(key)
	old, p.state = p.state, state
	return old
}

// Drop deletes the facts about a policy, except a change that no sync has handled. It returns the policy's last
// state.
func (t *Tracker) Drop(key cache.ObjectName) (old netpol.State) {
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
	if _, waiting := t.changedAt[key]; !waiting {
		t.changedAt[key] = now
	}
}

// TakeChangedAt removes and returns the time of the oldest change that no sync has handled; the zero time without one.
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

// StepDelay returns how long a step must wait; 0 or less if it may be written now. Only the second write of a large
// change waits. Its time begins when this process first sees the first write in place, whichever agent wrote it.
func (t *Tracker) StepDelay(key cache.ObjectName, step netpol.Step, now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if step != netpol.Narrow {
		delete(t.widenedAt, key)
		return 0
	}
	widenedAt, waiting := t.widenedAt[key]
	if !waiting {
		widenedAt = now
		t.widenedAt[key] = now
	}
	return t.settle - now.Sub(widenedAt)
}

// IsNewWarning records the message of a Warning on a topic, and reports whether it differs from the last one. An empty
// message records that there is nothing to warn of.
func (t *Tracker) IsNewWarning(key cache.ObjectName, topic, message string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.open(key)
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

// Warnings returns a copy of the last Warning on each topic.
func (t *Tracker) Warnings(key cache.ObjectName) map[string]string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.get(key).warnings)
}

// RestoreWarnings records the Warnings of a policy again after Drop.
func (t *Tracker) RestoreWarnings(key cache.ObjectName, warnings map[string]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open(key).warnings = warnings
}
