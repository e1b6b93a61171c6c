package agent

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// sync makes the NetworkPolicy of this key what its ConfigMap calls for. An error means to try again.
func (a *Agent) sync(ctx context.Context, key cache.ObjectName) error {
	table := a.table.Load()
	seen := a.takeSeen(key)
	written, err := a.syncWith(ctx, key, table)
	if err != nil {
		a.putSeen(key, seen)
		return err
	}
	if written && !seen.IsZero() {
		a.metrics.lag.Observe(time.Since(seen).Seconds())
	}
	a.fanout.done(key, table, written)
	return nil
}

func (a *Agent) syncWith(ctx context.Context, key cache.ObjectName, table *awsranges.Table) (written bool, err error) {
	configMap, err := a.configMapOf(key)
	if err != nil {
		return false, err
	}
	current, err := a.observedPolicy(key)
	if err != nil {
		return false, err
	}
	if configMap == nil {
		return false, a.remove(ctx, key, current)
	}
	known := false
	a.remember(key, func(m *memory) {
		known = m.known == configMap.UID
		m.ports = 0
	})
	d := plan(configMap, current, known, table, a.options)
	a.remember(key, func(m *memory) { m.pairs = d.pairs })
	if a.table.Load() != table {
		a.queue.Add(key) // what affected this policy may not have known that it does
	}
	if d.change {
		whole, err := a.whole(ctx, current)
		if err != nil {
			return false, err
		}
		d = planChange(d, whole, a.options)
	}
	if !a.isDue(key, d.step) {
		return false, nil
	}
	if d.write != nil {
		if current == nil && known {
			still, err := a.isStill(ctx, key, configMap)
			if err != nil || !still {
				return false, err
			}
		}
		written, err := a.apply(ctx, current, d.write)
		if err != nil || written == nil {
			return false, err
		}
		if d.step != netpol.Widen { // after which another look is due
			a.remember(key, func(m *memory) { m.written = written.ResourceVersion })
		}
		a.log.Info("NetworkPolicy written", "namespace", key.Namespace, "name", key.Name, "reason", d.reason, "step", d.step, "new", current == nil)
	}
	if d.reason != ReasonNameConflict {
		a.remember(key, func(m *memory) { m.known = configMap.UID })
	}
	a.setState(key, d.reason)
	a.tell(key, configMap, d)
	if d.reason == ReasonApplied || d.reason == ReasonRangesChanged {
		a.tellSlots(key, configMap, d.write.Spec, table)
	}
	return d.write != nil, nil
}

// whole reads a NetworkPolicy that the cache has without its spec.
func (a *Agent) whole(ctx context.Context, current *observed) (*networkingv1.NetworkPolicy, error) {
	policy, err := a.client.NetworkingV1().NetworkPolicies(current.Namespace).Get(ctx, current.Name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read NetworkPolicy %s: %w", current.Name, err)
	}
	if policy.ResourceVersion != current.ResourceVersion {
		return nil, fmt.Errorf("the cache does not hold NetworkPolicy %s as it is yet", current.Name)
	}
	return policy, nil
}

// apply is the one place that writes a NetworkPolicy, and returns it as it is then. An update carries the
// version that the decision was made on, so that it cannot undo a change the caches had not seen. Nil where
// the namespace is being deleted, and nothing is to be done.
func (a *Agent) apply(ctx context.Context, current *observed, write *networkingv1.NetworkPolicy) (written *networkingv1.NetworkPolicy, err error) {
	if err := a.mayWrite(); err != nil {
		return nil, err
	}
	policies := a.client.NetworkingV1().NetworkPolicies(write.Namespace)
	if current != nil {
		written, err := policies.Update(ctx, write, metav1.UpdateOptions{FieldManager: Name})
		if err != nil {
			return nil, fmt.Errorf("update NetworkPolicy %s: %w", write.Name, err)
		}
		a.metrics.writes.WithLabelValues("update").Inc()
		return written, nil
	}
	written, err = policies.Create(ctx, write, metav1.CreateOptions{FieldManager: Name})
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) || apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("create NetworkPolicy %s: %w", write.Name, err)
	}
	a.metrics.writes.WithLabelValues("create").Inc()
	return written, nil
}

// remove deletes a NetworkPolicy of the agent's that has no ConfigMap. Without it the pods are open,
// so the API server itself must say that the ConfigMap is gone: the cache of one kind may be behind
// that of the other.
func (a *Agent) remove(ctx context.Context, key cache.ObjectName, current *observed) error {
	a.forget(key)
	if current == nil || !netpol.Managed(&current.ObjectMeta) || current.DeletionTimestamp != nil {
		return nil
	}
	configMap, err := a.readConfigMap(ctx, key, configMapName(current))
	if err != nil {
		return err
	}
	if configMap != nil {
		return fmt.Errorf("the cache does not hold ConfigMap %s yet", configMap.Name)
	}
	if err := a.mayWrite(); err != nil {
		return err
	}
	err = a.client.NetworkingV1().NetworkPolicies(key.Namespace).Delete(ctx, key.Name, metav1.DeleteOptions{
		Preconditions: metav1.NewUIDPreconditions(string(current.UID)),
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete NetworkPolicy %s: %w", key.Name, err)
	}
	a.metrics.writes.WithLabelValues("delete").Inc()
	a.log.Info("NetworkPolicy deleted", "namespace", key.Namespace, "name", key.Name)
	return nil
}

// isStill says whether the ConfigMap of a NetworkPolicy that is gone has not gone as well. With it goes its
// NetworkPolicy, and a cache that is behind would have that back each time the garbage collector deletes it. Once the
// cache catches up, another look is due.
func (a *Agent) isStill(ctx context.Context, key cache.ObjectName, configMap *corev1.ConfigMap) (bool, error) {
	now, err := a.readConfigMap(ctx, key, configMap.Name)
	return now != nil && now.UID == configMap.UID, err
}

// readConfigMap asks the API server for the ConfigMap of a policy. Nil where there is none, or it is no policy, or
// not that of this key.
func (a *Agent) readConfigMap(ctx context.Context, key cache.ObjectName, name string) (*corev1.ConfigMap, error) {
	configMap, err := a.client.CoreV1().ConfigMaps(key.Namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look for the ConfigMap of NetworkPolicy %s: %w", key.Name, err)
	case configMap.Labels[policy.Label] != policy.LabelValue || policyKey(configMap) != key:
		return nil, nil
	}
	return configMap, nil
}

// configMapName is the name of the ConfigMap that a NetworkPolicy was made from.
func configMapName(current *observed) string {
	for _, owner := range current.OwnerReferences {
		if owner.Kind == "ConfigMap" && netpol.Name(owner.Name) == current.Name {
			return owner.Name
		}
	}
	return current.Name
}
