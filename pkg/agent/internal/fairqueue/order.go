package fairqueue

import (
	"sync"

	"k8s.io/client-go/tools/cache"
)

// order decides which waiting key Get returns next. Namespaces take turns, and only one key of a namespace is in
// progress at a time. A work queue calls Touch, Push, Len and Pop under its lock. Queue.Done calls release without that
// lock.
type order struct {
	mu         sync.Mutex
	waiting    map[string][]cache.ObjectName // by namespace, in the order of arrival
	inProgress map[string]bool               // namespaces with a key between Pop and release
	ready      []string                      // namespaces with a waiting key that Pop may return, in the order of their turns
}

func newOrder() *order {
	return &order{waiting: make(map[string][]cache.ObjectName), inProgress: make(map[string]bool)}
}

// Touch does nothing, so a key that is added again stays in its place.
func (o *order) Touch(cache.ObjectName) {}

// Push adds a key, which must not be waiting already.
func (o *order) Push(key cache.ObjectName) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waiting[key.Namespace]) == 0 && !o.inProgress[key.Namespace] {
		o.ready = append(o.ready, key.Namespace)
	}
	o.waiting[key.Namespace] = append(o.waiting[key.Namespace], key)
}

// Len returns how many namespaces have a key that Pop may return.
func (o *order) Len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.ready)
}

// Pop removes and returns the first key of the next namespace. It returns no further key of that namespace until
// release has been called.
func (o *order) Pop() cache.ObjectName {
	o.mu.Lock()
	defer o.mu.Unlock()
	namespace := o.ready[0]
	o.ready = o.ready[1:]
	keys := o.waiting[namespace]
	o.inProgress[namespace] = true
	if o.waiting[namespace] = keys[1:]; len(keys) == 1 {
		delete(o.waiting, namespace)
	}
	return keys[0]
}

// release ends the turn of the namespace of a key that Pop returned.
func (o *order) release(key cache.ObjectName) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.inProgress, key.Namespace)
	if len(o.waiting[key.Namespace]) > 0 {
		o.ready = append(o.ready, key.Namespace)
	}
}
