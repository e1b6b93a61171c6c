package fairqueue

import (
	"sync"

	"k8s.io/client-go/tools/cache"
)

// order decides which waiting key Get returns next: namespaces take turns, and only one key of a namespace is out at a
// time. A work queue calls Touch, Push, Len and Pop under a lock; Queue.Done calls release without it.
type order struct {
	mu      sync.Mutex
	waiting map[string][]cache.ObjectName // by namespace, in the order of arrival
	out     map[string]bool               // namespaces with a key between Pop and release
	turns   []string                      // namespaces with a waiting key and none out; the first is next
}

func newOrder() *order {
	return &order{waiting: make(map[string][]cache.ObjectName), out: make(map[string]bool)}
}

// Touch does nothing: a key that is added again stays in its place.
func (o *order) Touch(cache.ObjectName) {}

// Push adds a key that is not waiting yet.
func (o *order) Push(key cache.ObjectName) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waiting[key.Namespace]) == 0 && !o.out[key.Namespace] {
		o.turns = append(o.turns, key.Namespace)
	}
	o.waiting[key.Namespace] = append(o.waiting[key.Namespace], key)
}

// Len returns how many namespaces have a key that Pop may return now.
func (o *order) Len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.turns)
}

// Pop removes and returns the first key of the next namespace. It returns no other key of that namespace until release.
func (o *order) Pop() cache.ObjectName {
	o.mu.Lock()
	defer o.mu.Unlock()
	namespace := o.turns[0]
	o.turns = o.turns[1:]
	keys := o.waiting[namespace]
	o.out[namespace] = true
	if o.waiting[namespace] = keys[1:]; len(keys) == 1 {
		delete(o.waiting, namespace)
	}
	return keys[0]
}

// release ends the turn of the namespace of a key that Pop returned.
func (o *order) release(key cache.ObjectName) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.out, key.Namespace)
	if len(o.waiting[key.Namespace]) > 0 {
		o.turns = append(o.turns, key.Namespace)
	}
}
