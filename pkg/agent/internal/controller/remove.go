package controller

import (
	"context"
	"fmt"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/agent/internal/plan"
	"egress-agent/pkg/audit"
	"egress-agent/pkg/netpol"
)

// removeOrphan deletes a NetworkPolicy that the agent made, if its ConfigMap does not exist. After that the pods may
// open any connection, so the API server must confirm that the ConfigMap is gone: the cache of ConfigMaps may be older
// than the cache of NetworkPolicies. A NetworkPolicy that only has the agent's label stays, because someone else made
// it.
func (c *Controller) removeOrphan(ctx context.Context, key cache.ObjectName, current *netpol.Current) error {
	warnings := c.tracker.Warnings(key)
	state := c.tracker.Drop(key)
	c.reporter.StateChanged(state, "")
	c.results.set(key, nil)
	if current == nil && state != "" {
		c.auditCollected(key)
	}
	if current == nil || !netpol.HasManagedLabel(current.ObjectMeta) || current.DeletionTimestamp != nil {
		return nil
	}
	if !netpol.IsMade(current.ObjectMeta) {
		c.tracker.RestoreWarnings(key, warnings)
		object := &networkingv1.NetworkPolicy{ObjectMeta: *current.ObjectMeta}
		c.warn(key, object, key.Name, plan.ReasonNotMade, fmt.Sprintf(
			"It has the label %s=%s but no ConfigMap owns it, so %s does not change it; remove the label or delete the NetworkPolicy",
			netpol.ManagedByLabel, netpol.ManagedBy, plan.AgentName))
		return nil
	}
	configMap, err := c.api.readPolicy(ctx, key, configMapName(current))
	if err != nil {
		return err
	}
	if configMap != nil {
		return fmt.Errorf("the cache lacks ConfigMap %s", configMap.Name)
	}
	return c.deleteIfMade(ctx, key, current)
}

// deleteIfMade deletes a NetworkPolicy that the agent made. It does nothing if current is nil, if someone else made the
// NetworkPolicy, or if the NetworkPolicy is already being deleted.
func (c *Controller) deleteIfMade(ctx context.Context, key cache.ObjectName, current *netpol.Current) error {
	if current == nil || !netpol.IsMade(current.ObjectMeta) || current.DeletionTimestamp != nil {
		return nil
	}
	entry, err := c.auditEntry(ctx, current, nil)
	if apierrors.IsNotFound(err) {
		c.auditCollected(key)
		return nil
	}
	if err != nil {
		return err
	}
	deleted, err := c.api.delete(ctx, current)
	if err != nil {
		return err
	}
	if deleted {
		c.reporter.Deleted(key)
	}
	entry.Event = audit.Deleted // also if the garbage collector was faster
	c.options.Trail.Write(entry)
	return nil
}

// configMapName returns the name of the ConfigMap that a NetworkPolicy was made from.
func configMapName(current *netpol.Current) string {
	for _, owner := range current.OwnerReferences {
		if owner.Kind == "ConfigMap" && netpol.NetworkPolicyName(owner.Name) == current.Name {
			return owner.Name
		}
	}
	return current.Name
}
