package tracker

import (
	"slices"
	"unique"

	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/awsranges"
)

// SetServiceRegions records the services and regions that a policy names; nil if the agent has not parsed the policy.
func (t *Tracker) SetServiceRegions(key cache.ObjectName, named []awsranges.ServiceRegion) {
	var handles []serviceRegion
	if len(named) > 0 {
		handles = make([]serviceRegion, len(named))
		for i, n := range named {
			handles[i] = unique.Make(n)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.open(key)
	if slices.Equal(p.serviceRegions, handles) {
		return
	}
	t.unindex(p)
	p.serviceRegions = handles
	for _, n := range handles {
		if t.naming[n] == nil {
			t.naming[n] = make(map[*policyState]struct{}, 1)
		}
		t.naming[n][p] = struct{}{}
	}
}

// unindex removes a policy from the index. The caller holds the lock.
func (t *Tracker) unindex(p *policyState) {
	for _, n := range p.serviceRegions {
		delete(t.naming[n], p)
		if len(t.naming[n]) == 0 {
			delete(t.naming, n)
		}
	}
}

// KeysNaming returns the keys of the policies that name any of these services and regions, in no order. It has only the
// policies that a sync has parsed.
func (t *Tracker) KeysNaming(serviceRegions []awsranges.ServiceRegion) []cache.ObjectName {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := make(map[*policyState]struct{})
	var keys []cache.ObjectName
	for _, n := range serviceRegions {
		for p := range t.naming[unique.Make(n)] {
			if _, repeated := seen[p]; !repeated {
				seen[p] = struct{}{}
				keys = append(keys, p.key)
			}
		}
	}
	return keys
}
