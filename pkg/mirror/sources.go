package mirror

import (
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
)

// maxCachedBytes limits the policy documents that the mirror holds in memory. It reads further ones from the hub when it
// copies them.
const maxCachedBytes = 32 << 20

// sources are the policies of the hub, as of its last complete list and the watch that followed it.
type sources struct {
	mu          sync.RWMutex
	origin      string // the value of OriginLabel; empty before the first complete list
	byKey       map[cache.ObjectName]*source
	cachedBytes int
}

// get returns the origin, and the source with this key, or nil. origin is empty before the first complete list.
func (s *sources) get(key cache.ObjectName) (origin string, found *source) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.origin, s.byKey[key]
}

// replace takes over a complete list. It returns the keys whose copies may have to change.
func (s *sources) replace(origin string, list []*source) (changed []cache.ObjectName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	isOther := origin != s.origin
	byKey := make(map[cache.ObjectName]*source, len(list))
	s.cachedBytes = 0
	for _, next := range list {
		if previous := s.byKey[next.key]; previous.isEqual(next) {
			next = previous // the documents of the new list are free again
			if isOther {
				changed = append(changed, next.key)
			}
		} else {
			changed = append(changed, next.key)
		}
		byKey[next.key] = next
		s.cachedBytes += next.cachedSize()
	}
	for key := range s.byKey {
		if byKey[key] == nil {
			changed = append(changed, key)
		}
	}
	s.origin, s.byKey = origin, byKey
	return changed
}

// put takes over a policy that the watch delivered, and returns its key.
func (s *sources) put(full *corev1.ConfigMap) cache.ObjectName {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := cache.MetaObjectToName(full)
	s.cachedBytes -= s.byKey[key].cachedSize()
	next := newSource(full, func(size int) bool { return s.cachedBytes+size <= maxCachedBytes })
	s.cachedBytes += next.cachedSize()
	s.byKey[key] = next
	return key
}

// remove takes over a deletion that the watch delivered.
func (s *sources) remove(key cache.ObjectName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cachedBytes -= s.byKey[key].cachedSize()
	delete(s.byKey, key)
}

// keysIn returns the keys of a namespace.
func (s *sources) keysIn(namespace string) []cache.ObjectName {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var keys []cache.ObjectName
	for key := range s.byKey {
		if key.Namespace == namespace {
			keys = append(keys, key)
		}
	}
	return keys
}

// size returns the number of sources.
func (s *sources) size() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.byKey)
}
