// Package rollout follows the syncs that a new table causes.
package rollout

import (
	"sync"

	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/awsranges"
)

// Rollout counts the policies that wait for a sync with the newest table. The zero value follows no table. It is safe
// for concurrent use.
type Rollout struct {
	mu       sync.Mutex
	table    *awsranges.Table
	waiting  map[cache.ObjectName]bool
	written  int
	onFinish func(written, waiting int) // nil after its call
	synced   chan struct{}              // closed after the call of onFinish
}

// Start begins the rollout of another table, which affects the policies with these keys. It first finishes the previous
// rollout, even if policies still wait for it.
//
// The end of a rollout calls onFinish with the number of policies that were written and of those that still wait, and
// then closes synced.
func (r *Rollout) Start(
	table *awsranges.Table, keys []cache.ObjectName, onFinish func(written, waiting int),
) (synced <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.finish()
	r.table, r.written, r.onFinish, r.synced = table, 0, onFinish, make(chan struct{})
	r.waiting = make(map[cache.ObjectName]bool, len(keys))
	for _, key := range keys {
		r.waiting[key] = true
	}
	if len(keys) == 0 {
		r.finish()
	}
	return r.synced
}

// PolicySynced records that key was synced with table, and whether the sync wrote its NetworkPolicy. It does
// nothing if the rollout is of another table, or if the key does not wait.
func (r *Rollout) PolicySynced(key cache.ObjectName, table *awsranges.Table, written bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if table != r.table || !r.waiting[key] {
		return
	}
	delete(r.waiting, key)
	if written {
		r.written++
	}
	if len(r.waiting) == 0 {
		r.finish()
	}
}

// finish ends the current rollout, if there is one. The caller holds the lock.
func (r *Rollout) finish() {
	if r.onFinish != nil {
		r.onFinish(r.written, len(r.waiting))
		r.onFinish, r.waiting = nil, nil
		close(r.synced)
	}
}
