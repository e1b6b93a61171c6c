package agent

import (
	"slices"
	"sync"
	"unique"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/policy"
)

// serviceRegion is a service and region that a policy names: one pointer, however many policies do.
type serviceRegion = unique.Handle[awsranges.ServiceRegion]

// serviceRegionsOf returns what policies name, of which any may be nil.
func serviceRegionsOf(policies ...*policy.Policy) []serviceRegion {
	var destinations []policy.Destination
	for _, p := range policies {
		if p != nil {
			destinations = append(destinations, p.Destinations...)
		}
	}
	var named []serviceRegion
	for _, destination := range destinations {
		if destination.Service == "" {
			continue
		}
		service := awsranges.Canonical(destination.Service)
		if destination.Regions == nil {
			named = append(named, unique.Make(awsranges.ServiceRegion{Service: service}))
		}
		for _, region := range destination.Regions {
			named = append(named, unique.Make(awsranges.ServiceRegion{Service: service, Region: region}))
		}
	}
	return named
}

// countServiceRegions counts the services in a region that a change is of.
func countServiceRegions(change awsranges.Change) int {
	count := 0
	for _, pair := range change.ServiceRegions {
		if pair.Region != "" {
			count++
		}
	}
	return count
}

// publish puts AWS's rows, which may be nil, and the custom ones in use, and queues the policies that name a
// service and region whose prefixes changed. The channel is closed when all of them have been synced.
func (a *Agent) publish(aws *awsranges.Table) (synced <-chan struct{}) {
	if aws == a.published.aws && a.custom == a.published.custom {
		nothing := make(chan struct{})
		close(nothing)
		return nothing
	}
	a.published.aws, a.published.custom = aws, a.custom
	table := awsranges.Merge(aws, a.custom)
	change := table.Diff(a.table.Load())
	a.table.Store(table)
	a.metrics.setTable(table, change)
	keys := a.keysNaming(change)
	synced = a.fanout.start(table, keys, func(written, waiting int) {
		a.metrics.policiesWritten.Add(float64(written))
		a.log.Info("AWS ranges in use", "syncToken", table.SyncToken(), "createDate", table.CreateDate(), "rows", len(table.Rows()),
			"pairsChanged", countServiceRegions(change), "prefixesAdded", change.Added, "prefixesRemoved", change.Removed, "held", len(table.Held()),
			"policiesAffected", len(keys), "policiesWritten", written, "policiesWaiting", waiting)
	})
	for _, key := range keys {
		a.queue.Add(key)
	}
	return synced
}

// keysNaming returns the keys of the policies that a change may be felt by, and that have been synced: the
// others are queued, and a sync that has begun looks for other ranges before it ends.
func (a *Agent) keysNaming(change awsranges.Change) []cache.ObjectName {
	if change.NamesChanged {
		return a.allKeys()
	}
	changed := make(map[serviceRegion]bool, len(change.ServiceRegions))
	for _, p := range change.ServiceRegions {
		changed[unique.Make(p)] = true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var keys []cache.ObjectName
	for key, m := range a.remembered {
		if slices.ContainsFunc(m.serviceRegions, func(p serviceRegion) bool { return changed[p] }) {
			keys = append(keys, key)
		}
	}
	return keys
}

// allKeys returns the key of each policy's NetworkPolicy.
func (a *Agent) allKeys() []cache.ObjectName {
	objects := a.configMaps.List()
	keys := make([]cache.ObjectName, 0, len(objects))
	for _, object := range objects {
		if accessor, err := meta.Accessor(object); err == nil {
			keys = append(keys, policyKey(accessor))
		}
	}
	return keys
}

// rollout follows a new table to the policies it affects, and tells when all of them have been looked at.
type rollout struct {
	mu       sync.Mutex
	table    *awsranges.Table
	waiting  map[cache.ObjectName]bool
	written  int
	finished func(written, waiting int) // nil once called
	done     chan struct{}              // closed with that
}

// start follows another table, and returns a channel that is closed when there is nothing left to follow.
// What was still waiting for the one before is told of that one.
func (f *rollout) start(table *awsranges.Table, keys []cache.ObjectName, finished func(written, waiting int)) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.finish()
	f.table, f.written, f.finished, f.done = table, 0, finished, make(chan struct{})
	f.waiting = make(map[cache.ObjectName]bool, len(keys))
	for _, key := range keys {
		f.waiting[key] = true
	}
	if len(keys) == 0 {
		f.finish()
	}
	return f.done
}

// policySynced says that a policy was synced with a table, and whether it was written.
func (f *rollout) policySynced(key cache.ObjectName, table *awsranges.Table, written bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if table != f.table || !f.waiting[key] {
		return
	}
	delete(f.waiting, key)
	if written {
		f.written++
	}
	if len(f.waiting) == 0 {
		f.finish()
	}
}

func (f *rollout) finish() {
	if f.finished != nil {
		f.finished(f.written, len(f.waiting))
		f.finished, f.waiting = nil, nil
		close(f.done)
	}
}
