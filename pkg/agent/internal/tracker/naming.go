package tracker

import (
	"slices"
	"unique"

	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/awsranges"
)

// SetServiceRegions records the services and regions that a policy names. serviceRegions is nil if the policy could not
// be parsed.
func (t *Tracker) SetServiceRegions(key cache.ObjectName, serviceRegions []awsranges.ServiceRegion) {
	var handles []serviceRegion
	if len(serviceRegions) > 0 {
		handles = make([]serviceRegion, len(serviceRegions))
		for i, value := range serviceRegions {
			handles[i] = unique.Make(value)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.getOrCreate(key)
	if slices.Equal(p.serviceRegions, handles) {
		return
	}
	t.unindex(p)
	p.serviceRegions = handles
	for _, handle := range handles {
		if t.policiesNaming[handle] == nil {
			t.policiesNaming[handle] = make(map[*policyState]struct{}, 1)
		}
		t.policiesNaming[handle][p] = struct{}{}
	}
}

// unindex removes a policy from policiesNaming. The caller holds the lock.
func (t *Tracker) unindex(p *policyState) {
	for _, handle := range p.serviceRegions {
		delete(t.policiesNaming[handle], p)
		if len(t.policiesNaming[handle]) == 0 {
			delete(t.policiesNaming, handle)
		}
	}
}

// KeysNaming returns the keys of the policies that name at least one of these services and regions, in no order. It
// knows only the policies that a sync has parsed.
func (t *Tracker) KeysNaming(serviceRegions []awsranges.ServiceRegion) []cache.ObjectName {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := make(map[*policyState]struct{})
	var keys []cache.ObjectName
	for _, value := range serviceRegions {
		for p := range t.policiesNaming[unique.Make(value)] {
			if _, isRepeated := seen[p]; !isRepeated {
				seen[p] = struct{}{}
				keys = append(keys, p.key)
			}
		}
	}
	return keys
}
