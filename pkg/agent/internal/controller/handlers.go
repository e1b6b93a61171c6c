package controller

import (
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// configMapHandler enqueues the policies that change.
func (c *Controller) configMapHandler() cache.ResourceEventHandler {
	return c.handlerFor(c.configMapChanged, func(configMap metav1.Object) {
		c.ledger.DropDocument(configMap.GetNamespace(), configMap.GetName(), configMap.GetUID())
	})
}

// networkPolicyHandler enqueues the NetworkPolicies that others change.
func (c *Controller) networkPolicyHandler() cache.ResourceEventHandler {
	return c.handlerFor(c.networkPolicyChanged, func(networkPolicy metav1.Object) {
		c.ledger.DropUsage(networkPolicy.GetNamespace(), networkPolicy.GetName())
	})
}

// handlerFor returns a handler that enqueues keys. changed returns the key for an object, and whether it needs a sync.
// A deleted object always does, because an informer that missed the deletion has the last version that it saw. For a
// deleted object, the handler calls deleted first. A standby enqueues nothing, because a new leader begins with all
// objects.
func (c *Controller) handlerFor(changed func(metav1.Object) (key cache.ObjectName, needsSync bool), deleted func(metav1.Object)) cache.ResourceEventHandler {
	enqueue := func(object any, isDeleted bool) {
		if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = tombstone.Obj
		}
		accessor, err := meta.Accessor(object)
		if err != nil {
			return
		}
		if isDeleted {
			deleted(accessor)
		}
		if !c.isLeader.Load() {
			return
		}
		if key, needsSync := changed(accessor); needsSync || isDeleted {
			c.queue.Add(key)
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { enqueue(object, false) },
		UpdateFunc: func(_, object any) { enqueue(object, false) },
		DeleteFunc: func(object any) { enqueue(object, true) },
	}
}

// configMapChanged records the time of a change.
func (c *Controller) configMapChanged(configMap metav1.Object) (key cache.ObjectName, needsSync bool) {
	key = policyKey(configMap)
	c.enqueueOverLimit(key)
	c.tracker.SetChanged(key, c.now())
	return key, true
}

// networkPolicyChanged skips a NetworkPolicy that is still as this process has written it.
func (c *Controller) networkPolicyChanged(networkPolicy metav1.Object) (key cache.ObjectName, needsSync bool) {
	key = cache.MetaObjectToName(networkPolicy)
	c.enqueueOverLimit(key)
	return key, c.tracker.WrittenVersion(key) != networkPolicy.GetResourceVersion()
}

// overLimitInterval is the time between the keys that enqueueOverLimit adds, because each takes a compilation.
const overLimitInterval = 10 * time.Millisecond

// enqueueOverLimit enqueues the other policies of a namespace that exceed a limit. After this change they may fit.
func (c *Controller) enqueueOverLimit(changed cache.ObjectName) {
	for i, name := range c.ledger.OverLimit(changed.Namespace, changed.Name) {
		c.queue.AddAfter(cache.NewObjectName(changed.Namespace, name), time.Duration(i)*overLimitInterval)
	}
}

// enqueueAll enqueues every policy, the oldest first, and every NetworkPolicy with the agent's label, whose policy may
// be gone.
func (c *Controller) enqueueAll() {
	for _, key := range c.caches.policyKeys() {
		c.queue.Add(key)
	}
	for _, key := range c.caches.managedKeys() {
		c.queue.Add(key)
	}
}
