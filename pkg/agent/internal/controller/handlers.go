package controller

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/agent/internal/cached"
	"egress-agent/pkg/agent/internal/plan"
	"egress-agent/pkg/awsranges"
)

// configMapHandler returns a handler that enqueues each policy whose ConfigMap changes, and what inherits it.
func (c *Controller) configMapHandler() cache.ResourceEventHandler {
	own := c.handlerFor(c.configMapChanged, func(configMap metav1.Object) {
		c.ledger.DropDocument(configMap.GetNamespace(), configMap.GetName(), configMap.GetUID())
	})
	inherited := handlerOf(func(configMap *cached.ConfigMap, isDeleted bool) {
		name := cache.MetaObjectToName(configMap.GetObjectMeta())
		c.enqueue(c.governance.PolicyChanged(name.Namespace, name.Name, !isDeleted && configMap.IsInheritable()))
	})
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { own.OnAdd(object, false); inherited.OnAdd(object, false) },
		UpdateFunc: func(old, object any) { own.OnUpdate(old, object); inherited.OnUpdate(old, object) },
		DeleteFunc: func(object any) { own.OnDelete(object); inherited.OnDelete(object) },
	}
}

// networkPolicyHandler returns a handler that enqueues each NetworkPolicy that others change.
func (c *Controller) networkPolicyHandler() cache.ResourceEventHandler {
	return c.handlerFor(c.networkPolicyChanged, func(networkPolicy metav1.Object) {
		c.ledger.DropUsage(networkPolicy.GetNamespace(), networkPolicy.GetName())
		c.forgetLeak(cache.MetaObjectToName(networkPolicy))
	})
}

// handlerFor returns a handler that enqueues keys. onChange returns the key for an object, and whether it needs a sync.
// A deleted object always needs a sync, whatever onChange returns: an informer that missed the deletion passes an old
// version of the object. For a deleted object, the handler first calls onDelete. A standby enqueues nothing, because a
// new leader enqueues all objects.
func (c *Controller) handlerFor(
	onChange func(metav1.Object) (key cache.ObjectName, needsSync bool), onDelete func(metav1.Object),
) cache.ResourceEventHandler {
	return handlerOf(func(object any, isDeleted bool) {
		accessor, err := meta.Accessor(object)
		if err != nil {
			return
		}
		if isDeleted {
			onDelete(accessor)
		}
		if !c.isLeader.Load() {
			return
		}
		if key, needsSync := onChange(accessor); needsSync || isDeleted {
			c.queue.Add(key)
		}
	})
}

// serviceHandler returns a handler that records the Service of the API server.
func (c *Controller) serviceHandler() cache.ResourceEventHandler {
	return handlerOf(func(service *corev1.Service, isDeleted bool) {
		if isDeleted {
			service = nil
		}
		c.apiServerChanged(c.apiServer.SetService(service, c.now()))
	})
}

// endpointsHandler returns a handler that records the endpoints of the API server.
func (c *Controller) endpointsHandler() cache.ResourceEventHandler {
	return handlerOf(func(endpoints *discoveryv1.EndpointSlice, isDeleted bool) {
		if isDeleted {
			endpoints = nil
		}
		c.apiServerChanged(c.apiServer.SetEndpoints(endpoints, c.now()))
	})
}

// apiServerChanged enqueues the policies that open the API server.
func (c *Controller) apiServerChanged(isChanged bool) {
	if isChanged {
		c.enqueue(c.tracker.KeysNaming([]awsranges.ServiceRegion{plan.APIServer}))
	}
}

// handlerOf returns a handler that calls handle for each change of an object of type T. For a deleted object whose
// deletion the informer missed, handle gets the last known version.
func handlerOf[T any](handle func(object T, isDeleted bool)) cache.ResourceEventHandler {
	handleAny := func(object any, isDeleted bool) {
		if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = tombstone.Obj
		}
		if typed, ok := object.(T); ok {
			handle(typed, isDeleted)
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { handleAny(object, false) },
		UpdateFunc: func(_, object any) { handleAny(object, false) },
		DeleteFunc: func(object any) { handleAny(object, true) },
	}
}

// configMapChanged records the time of a change. It returns the key of the policy, which always needs a sync.
func (c *Controller) configMapChanged(configMap metav1.Object) (key cache.ObjectName, needsSync bool) {
	key = policyKey(configMap)
	c.enqueueOverLimit(key)
	c.tracker.SetChanged(key, c.now())
	return key, true
}

// networkPolicyChanged returns the key of a NetworkPolicy. needsSync is false for the version that this process wrote.
func (c *Controller) networkPolicyChanged(networkPolicy metav1.Object) (key cache.ObjectName, needsSync bool) {
	key = cache.MetaObjectToName(networkPolicy)
	c.enqueueOverLimit(key)
	return key, c.tracker.WrittenVersion(key) != networkPolicy.GetResourceVersion()
}

// overLimitInterval is the time between two keys that enqueueOverLimit adds. Each key costs a compilation, and all at
// once would delay other policies.
const overLimitInterval = 10 * time.Millisecond

// enqueueOverLimit enqueues the other policies of the namespace that exceed a limit. After the change of this key they
// may fit.
func (c *Controller) enqueueOverLimit(changedKey cache.ObjectName) {
	for i, name := range c.ledger.OverLimit(changedKey.Namespace, changedKey.Name) {
		c.queue.AddAfter(cache.NewObjectName(changedKey.Namespace, name), time.Duration(i)*overLimitInterval)
	}
}

// enqueueAll enqueues every base, and every policy, the oldest first. It also enqueues every NetworkPolicy with the agent's label,
// because its policy may be gone.
func (c *Controller) enqueueAll() {
	for _, key := range c.governance.Keys() {
		c.queue.Add(key)
	}
	for _, key := range c.caches.policyKeys() {
		c.queue.Add(key)
	}
	for _, key := range c.caches.managedKeys() {
		c.queue.Add(key)
	}
}
