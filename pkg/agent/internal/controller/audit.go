package controller

import (
	"context"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/agent/internal/plan"
	"egress-agent/pkg/audit"
	"egress-agent/pkg/netpol"
)

// auditEntry returns the audit entry of a write or a deletion that follows. It reads the stored NetworkPolicy, whose spec
// the caches lack. current is nil before a creation, and desired before a deletion. Without an audit trail it reads
// nothing.
func (c *Controller) auditEntry(ctx context.Context, current *netpol.Current, desired *networkingv1.NetworkPolicy) (audit.Entry, error) {
	if c.options.Trail == nil {
		return audit.Entry{}, nil
	}
	var e audit.Entry
	var stored *networkingv1.NetworkPolicy
	if current != nil {
		var err error
		if stored, err = c.api.readNetworkPolicy(ctx, current); err != nil {
			return audit.Entry{}, err
		}
		e.Namespace, e.Name, e.OldPolicy = stored.Namespace, stored.Name, stored.Annotations[netpol.PolicyDigestAnnotation]
		e.EditedBy = lastManager(stored.ManagedFields)
	}
	if desired != nil {
		e.Namespace, e.Name, e.NewPolicy = desired.Namespace, desired.Name, desired.Annotations[netpol.PolicyDigestAnnotation]
	}
	e.Change = audit.Compare(stored, desired)
	return e, nil
}

// auditWrite writes the entry of a write that succeeded.
func (c *Controller) auditWrite(e audit.Entry, cause netpol.Cause, d plan.Decision) {
	if c.options.Trail == nil {
		return
	}
	e.Event, e.Cause, e.Step = audit.Written, string(cause), string(d.Step)
	if table := c.table.Load(); table != nil {
		e.Ranges = table.SyncToken()
	}
	if cause != netpol.CauseEdited {
		e.EditedBy = ""
	}
	c.options.Trail.Write(e)
}

// auditCollected writes the entry of a NetworkPolicy that the garbage collector deleted with its ConfigMap.
func (c *Controller) auditCollected(key cache.ObjectName) {
	c.options.Trail.Write(audit.Entry{Event: audit.Deleted, Namespace: key.Namespace, Name: key.Name,
		Change: audit.Change{Unknown: "it was deleted with its ConfigMap; its last entry shows what it opened"}})
}

// lastManager returns who last edited an object, except the agent; empty if unknown.
func lastManager(fields []metav1.ManagedFieldsEntry) string {
	var last *metav1.ManagedFieldsEntry
	for i := range fields {
		if f := &fields[i]; f.Manager != plan.AgentName && f.Time != nil && (last == nil || last.Time.Before(f.Time)) {
			last = f
		}
	}
	if last == nil {
		return ""
	}
	return last.Manager
}
