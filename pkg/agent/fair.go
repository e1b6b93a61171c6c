package agent

import (
	"sync"

	"k8s.io/client-go/tools/cache"
)

// fairQueue orders the keys that wait: namespaces take turns, and of one namespace only one key is out at a time. So a
// namespace takes one worker at most, whatever is stored in it, and no two policies of the same pods are decided on at once.
// It is the order within a workqueue, which calls it under a lock of its own, but for release.
type fairQueue struct {
	mu      sync.Mutex
	waiting map[string][]cache.ObjectName // of each namespace, in the order they came
	out     map[string]bool               // namespaces of which a key is out
	turns   []string                      // namespaces with a waiting key and none out, the next first
}

func newFairQueue() *fairQueue {
	return &fairQueue{waiting: make(map[string][]cache.ObjectName), out: make(map[string]bool)}
}

// Touch is called for a key that waits already.
func (q *fairQueue) Touch(cache.ObjectName) {}

// Push adds a key that does not wait.
func (q *fairQueue) Push(key cache.ObjectName) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting[key.Namespace]) == 0 && !q.out[key.Namespace] {
		q.turns = append(q.turns, key.Namespace)
	}
	q.waiting[key.Namespace] = append(q.waiting[key.Namespace], key)
}

// Len counts the namespaces of which Pop may return a key.
func (q *fairQueue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.turns)
}

// Pop returns the first key of the namespace whose turn it is. No other of this namespace is returned before release.
func (q *fairQueue) Pop() cache.ObjectName {
	q.mu.Lock()
	defer q.mu.Unlock()
	namespace := q.turns[0]
	q.turns = q.turns[1:]
	keys := q.waiting[namespace]
	q.out[namespace] = true
	if q.waiting[namespace] = keys[1:]; len(keys) == 1 {
		delete(q.waiting, namespace)
	}
	return keys[0]
}

// release lets the namespace of a key that Pop returned have its next turn. Who calls it must then take the next key:
// workers that wait already are not woken.
func (q *fairQueue) release(key cache.ObjectName) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.out, key.Namespace)
	if len(q.waiting[key.Namespace]) > 0 {
		q.turns = append(q.turns, key.Namespace)
	}
}
