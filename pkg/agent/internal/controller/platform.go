package controller

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/agent/internal/cached"
	"egress-agent/pkg/agent/internal/governance"
	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/platform"
)

// platformHandler returns a handler that tells governance of each platform ConfigMap.
func (c *Controller) platformHandler() cache.ResourceEventHandler {
	return handlerOf(func(configMap *corev1.ConfigMap, isDeleted bool) {
		if isDeleted {
			c.platformChanged(c.governance.RemoveDocument(configMap.Name))
			c.tracker.Drop(c.documentKey(configMap.Name))
			return
		}
		change := c.governance.SetDocument(configMap, c.table.Load())
		c.platformChanged(change)
		if c.isLeader.Load() {
			if status, ok := c.governance.Status(configMap.Name); ok {
				c.reportDocument(status, change.IsNew)
			}
			c.countDocuments()
		}
	})
}

// namespaceHandler returns a handler that tells governance of the labels of each namespace.
func (c *Controller) namespaceHandler() cache.ResourceEventHandler {
	return handlerOf(func(namespace *cached.Namespace, isDeleted bool) {
		name := namespace.GetObjectMeta().GetName()
		if isDeleted {
			c.governance.RemoveNamespace(name)
			c.snapshots.changed()
			return
		}
		c.platformChanged(c.governance.SetNamespace(name, namespace.Labels()))
	})
}

// platformChanged enqueues the keys that a change of the documents or namespaces affects.
func (c *Controller) platformChanged(change governance.Change) {
	c.snapshots.changed()
	c.enqueue(change.Keys)
	for _, namespace := range change.Namespaces {
		c.enqueue(c.policyKeysIn(namespace))
		c.enqueue(c.governance.InheritedKeys(namespace))
	}
}

// enqueue puts keys on the queue. A standby enqueues nothing, because a new leader enqueues all.
func (c *Controller) enqueue(keys []cache.ObjectName) {
	if !c.isLeader.Load() {
		return
	}
	for _, key := range keys {
		c.tracker.SetChanged(key, c.now())
		c.queue.Add(key)
	}
}

// policyKeysIn returns the keys of the policies of a namespace.
func (c *Controller) policyKeysIn(namespace string) []cache.ObjectName {
	var keys []cache.ObjectName
	for _, name := range c.ledger.Names(namespace) {
		keys = append(keys, cache.NewObjectName(namespace, netpol.NetworkPolicyName(name)))
	}
	return keys
}

// documentKey returns the key under which the tracker keeps the last Warning about a platform document.
func (c *Controller) documentKey(name string) cache.ObjectName {
	return cache.NewObjectName(c.options.Namespace, name)
}

// reportDocuments reports every platform document that is invalid.
func (c *Controller) reportDocuments() {
	statuses, _ := c.governance.Statuses()
	for _, status := range statuses {
		c.reportDocument(status, false)
	}
	c.countDocuments()
}

// reportDocument reports a platform document. isChanged means that its stored version is new.
func (c *Controller) reportDocument(status governance.Status, isChanged bool) {
	name := status.Stored.Name
	key := c.documentKey(name)
	if status.Problems == nil {
		c.tracker.RecordWarning(key, name, "")
		if isChanged {
			c.reporter.PlatformApplied(status.Stored, status.Namespaces)
		}
		return
	}
	message := platform.Error(status.Problems) + "; until it is corrected, "
	if status.IsInForce {
		message += "the last valid version stays in force"
	} else {
		message += "the document governs nothing"
	}
	if c.tracker.RecordWarning(key, name, message) {
		c.reporter.PlatformInvalid(status.Stored, message)
	}
}

// countDocuments updates the metrics of the platform.
func (c *Controller) countDocuments() {
	statuses, governed := c.governance.Statuses()
	valid := 0
	for _, status := range statuses {
		if status.Problems == nil {
			valid++
		}
	}
	cycles := c.governance.Cycles()
	c.reporter.PlatformChanged(valid, len(statuses)-valid, governed, len(cycles))
	if len(cycles) > 0 && c.tracker.RecordWarning(c.documentKey(" cycles"), "", strings.Join(cycles, " ")) {
		c.reporter.CyclesFound(cycles)
	}
}

// warnOfInheritance warns of a policy that nothing inherits, because its namespace has too many such policies.
func (c *Controller) warnOfInheritance(key cache.ObjectName, configMap *corev1.ConfigMap) {
	const topic = " inherit" // no ConfigMap can have this name
	if !c.governance.ExceedsInherited(cache.MetaObjectToName(configMap)) {
		c.tracker.RecordWarning(key, topic, "")
		return
	}
	c.warn(key, configMap, topic, "NotInherited", fmt.Sprintf(
		"Namespaces below inherit at most %d policies of a namespace, the first by name, and not this one; merge some policies",
		governance.MaxInherited))
}

// warnReserved warns of tenants' ConfigMaps whose name belongs to the platform.
func (c *Controller) warnReserved(key cache.ObjectName, configMaps []*corev1.ConfigMap) {
	for _, configMap := range configMaps {
		assessment := netpol.Assess(configMap, nil, netpol.Inputs{Options: c.options.Plan.Compile, AgentNamespace: c.options.Namespace})
		c.warn(key, configMap, configMap.Name, string(assessment.State), assessment.Message())
	}
}

// syncPlatforms syncs a NetworkPolicy of the platform. It deletes the NetworkPolicy if the platform does not need it.
func (c *Controller) syncPlatforms(
	ctx context.Context, key cache.ObjectName, table *awsranges.Table, current *netpol.Current, isSpecKnown bool,
) (written bool, err error) {
	source, err := c.platformSource(ctx, key)
	if err != nil {
		return false, err
	}
	if source == nil {
		return false, c.removePlatforms(ctx, key, current)
	}
	reduced := cached.ConfigMapOf(source.ConfigMap, func(*corev1.ConfigMap, int, int) bool { return true })
	inputs := c.inputs(table, reduced)
	if inputs.Origin = source.Origin; source.Origin.Kind == netpol.Inherited {
		inputs.Guardrails = c.governance.Guardrails(key.Namespace, table)
	}
	return c.apply(ctx, key, reduced, source.Stored, current, isSpecKnown, inputs)
}

// platformSource returns the source of a NetworkPolicy of the platform; nil if the platform does not need it.
func (c *Controller) platformSource(ctx context.Context, key cache.ObjectName) (*governance.Source, error) {
	if base := c.governance.Base(key); base != nil {
		return base, nil
	}
	policy, ok := c.governance.Inherited(key)
	if !ok {
		return nil, nil
	}
	object, exists, err := c.caches.configMaps.GetByKey(policy.String())
	if err != nil || !exists {
		return nil, err
	}
	reduced, ok := object.(*cached.ConfigMap)
	if !ok {
		return nil, fmt.Errorf("the cache of ConfigMaps holds a %T", object)
	}
	configMap, exceeded, err := c.loadDocument(ctx, reduced)
	if err != nil || exceeded == nil {
		return governance.InheritedConfigMap(key, configMap), err
	}
	// The policy exceeds a limit, and has a Warning about that. The agent does not read it, so nothing inherits it.
	return nil, nil
}

// removePlatforms deletes a NetworkPolicy that the platform does not need. The API server must confirm that the
// ConfigMap is gone that it was made from: an informer may be behind.
func (c *Controller) removePlatforms(ctx context.Context, key cache.ObjectName, current *netpol.Current) error {
	c.tracker.Drop(key)
	if current == nil || !netpol.IsMade(current.ObjectMeta) || current.DeletionTimestamp != nil {
		return nil
	}
	source := sourceOf(current)
	isKnown := c.governance.HasDocument(source.Name)
	if current.Labels[netpol.PlatformLabel] == netpol.Inherited {
		isKnown = c.governance.IsInheritable(source)
	} else if c.governance.HasNoVersion(source.Name) {
		return nil // its last valid version is unknown, so its NetworkPolicies stay
	}
	if !isKnown {
		exists, err := c.api.sourceExists(ctx, source, current.Labels[netpol.PlatformLabel])
		if err != nil {
			return err
		}
		if exists {
			return fmt.Errorf("the cache lacks ConfigMap %s", source)
		}
	}
	return c.deleteIfMade(ctx, key, current)
}

// sourceOf returns the key of the ConfigMap that a NetworkPolicy of the platform was made from.
func sourceOf(current *netpol.Current) cache.ObjectName {
	namespace, name, _ := strings.Cut(current.Annotations[netpol.SourceAnnotation], "/")
	return cache.NewObjectName(namespace, name)
}

// RestorePlatform loads the platform documents that were in force before this process led. The leader calls it before
// the first sync. It retries while the API server fails, until ctx ends.
func (c *Controller) RestorePlatform(ctx context.Context) {
	c.governance.Restore(c.snapshots.load(ctx))
	c.platformChanged(c.governance.Reevaluate(c.table.Load()))
}
