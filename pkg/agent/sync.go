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
	seen := a.takeChangedAt(key)
	written, err := a.syncWith(ctx, key, table)
	if err != nil {
		a.restoreChangedAt(key, seen)
		return err
	}
	if written && !seen.IsZero() {
		a.metrics.applyLatency.Observe(time.Since(seen).Seconds())
	}
	a.fanout.policySynced(key, table, written)
	return nil
}

func (a *Agent) syncWith(ctx context.Context, key cache.ObjectName, table *awsranges.Table) (written bool, err error) {
	current, err := a.cachedNetworkPolicy(key)
	if err != nil {
		return false, err
	}
	configMap, younger, err := a.configMapOf(key, current)
	if err != nil {
		return false, err
	}
	if configMap == nil {
		return false, a.remove(ctx, key, current)
	}
	for _, loser := range younger {
		a.warn(key, loser, loser.Name, ReasonNameConflict, fmt.Sprintf(
			"NetworkPolicy %s is that of ConfigMap %s, which is older, so this policy is not applied; give this ConfigMap another name", key.Name, configMap.Name))
	}
	in := netpol.Inputs{Table: table, Options: a.options.Compile, AgentNamespace: a.options.Namespace, PolicyDigest: digestOf(configMap)}
	if netpol.IsExempt(key.Namespace, a.options.Namespace) {
		a.reportDecision(key, configMap, plan(netpol.Assess(configMap, nil, in), nil, false, a.options))
		return false, a.removeMade(ctx, key, current)
	}
	assessment, d, err := a.decide(ctx, key, configMap, current, in)
	if err != nil || !a.stepDelay(key, d.step) {
		return false, err
	}
	if d.desired != nil {
		if assessment.Cause == netpol.CauseMissing && a.wasThere(key, configMap) {
			exists, err := a.stillExists(ctx, key, configMap)
			if err != nil || !exists {
				return false, err
			}
		}
		written, err := a.apply(ctx, current, d.desired)
		if err != nil || written == nil {
			return false, err
		}
		a.ledger.setUsage(key.Namespace, key.Name, netpol.UsageOf(d.desired.Spec))
		if d.step != netpol.Widen { // after which another sync is due
			a.update(key, func(m *policyState) { m.writtenVersion = written.ResourceVersion })
		}
		a.log.Info("NetworkPolicy written", "namespace", key.Namespace, "name", key.Name, "cause", assessment.Cause, "step", d.step)
	}
	if assessment.State != netpol.NameConflict {
		a.update(key, func(m *policyState) { m.ownerUID = configMap.UID })
	}
	a.setState(key, assessment.State)
	a.reportDecision(key, configMap, d)
	return d.desired != nil, nil
}

// wasThere reports whether this process has seen a NetworkPolicy that was made from the ConfigMap.
func (a *Agent) wasThere(key cache.ObjectName, configMap *corev1.ConfigMap) bool {
	return a.get(key).ownerUID == configMap.UID
}

// decide returns what to write for a policy, and why.
func (a *Agent) decide(ctx context.Context, key cache.ObjectName, configMap *corev1.ConfigMap, current *networkPolicyMeta, in netpol.Inputs) (*netpol.Assessment, decision, error) {
	configMap, exceeded, err := a.document(ctx, configMap)
	if err != nil {
		return nil, decision{}, err
	}
	in.Exceeded = exceeded
	assessment, err := a.assess(ctx, configMap, current, in)
	if err != nil {
		return nil, decision{}, err
	}
	named := serviceRegionsOf(assessment.Policy, assessment.LastPolicy)
	a.update(key, func(m *policyState) { m.serviceRegions = named })
	if a.table.Load() != in.Table {
		a.queue.Add(key) // publish may not have known that the table concerns this policy
	}
	if assessment.Opens {
		if in.Exceeded, err = a.exceeds(ctx, key, current, assessment.Desired[0].Spec); err != nil {
			return nil, decision{}, err
		}
		switch {
		case in.Exceeded == nil:
		case assessment.State == netpol.Invalid: // its last valid version stays as it is
			assessment.Desired, assessment.Cause = nil, ""
		default:
			exceeded = in.Exceeded
			if assessment, err = a.assess(ctx, configMap, current, in); err != nil {
				return nil, decision{}, err
			}
			if last := serviceRegionsOf(assessment.LastPolicy); last != nil {
				a.update(key, func(m *policyState) { m.serviceRegions = append(m.serviceRegions, last...) })
			}
		}
	}
	a.ledger.setUnfit(key.Namespace, key.Name, exceeded != nil)
	d := plan(assessment, current, a.wasThere(key, configMap), a.options)
	if d.desired == nil && d.warning == "" && current != nil {
		if err := a.warnOfCrowd(ctx, key, configMap, current); err != nil {
			return nil, decision{}, err
		}
	}
	if d.needsSpec {
		whole, err := a.readNetworkPolicy(ctx, current)
		if err != nil {
			return nil, decision{}, err
		}
		d = planTransition(d, assessment.Cause, whole, a.options)
	}
	return assessment, d, nil
}

// assess reads the last valid policy from the NetworkPolicy if the ConfigMap's is invalid.
func (a *Agent) assess(ctx context.Context, configMap *corev1.ConfigMap, current *networkPolicyMeta, in netpol.Inputs) (*netpol.Assessment, error) {
	var seen *netpol.Current
	if current != nil {
		seen = current.current()
	}
	assessment := netpol.Assess(configMap, seen, in)
	if !assessment.NeedsDocument {
		return assessment, nil
	}
	whole, err := a.readNetworkPolicy(ctx, current)
	if err != nil {
		return nil, err
	}
	return netpol.Assess(configMap, netpol.CurrentOf(whole), in), nil
}

// exceeds returns what keeps a spec from applying beside the other policies of its namespace. It returns nil if it fits,
// and if it only reduces a NetworkPolicy that is too much already.
func (a *Agent) exceeds(ctx context.Context, key cache.ObjectName, current *networkPolicyMeta, desired networkingv1.NetworkPolicySpec) (policy.Problems, error) {
	problems, err := a.beside(ctx, key, desired)
	if problems == nil || current == nil || err != nil {
		return problems, err
	}
	whole, err := a.readNetworkPolicy(ctx, current)
	if err != nil || netpol.Holds(whole.Spec, desired) {
		return nil, err
	}
	return problems, nil
}

// warnOfCrowd tells of a policy that is in force and too much beside the others, as it may be from before that was an
// error. It stays: to close it would be no better than what the dataplane does.
func (a *Agent) warnOfCrowd(ctx context.Context, key cache.ObjectName, configMap *corev1.ConfigMap, current *networkPolicyMeta) error {
	const topic = " beside" // no ConfigMap's name
	cidrs, ports, others := a.ledger.together(key.Namespace, key.Name, a.ledger.usage(key.Namespace, key.Name))
	if len(others) == 0 || !a.options.Compile.MayExceed(cidrs, ports) {
		a.isNewWarning(key, topic, "")
		return nil
	}
	whole, err := a.readNetworkPolicy(ctx, current)
	if err != nil {
		return err
	}
	problems, err := a.beside(ctx, key, whole.Spec)
	if err != nil {
		return err
	}
	if problems == nil {
		a.isNewWarning(key, topic, "")
		return nil
	}
	a.warn(key, configMap, topic, ReasonInvalid, problems.Error()+"; the policies stay in force, and the dataplane enforces a part of them")
	return nil
}

// mostRead bounds the NetworkPolicies that are read to see whether another fits beside them.
const mostRead = 100

// beside returns what keeps a spec from applying to the same pods as the other policies of its namespace, which are in
// force. Nil for nothing. It reads these only if they may be too much together.
func (a *Agent) beside(ctx context.Context, key cache.ObjectName, own networkingv1.NetworkPolicySpec) (policy.Problems, error) {
	cidrs, ports, others := a.ledger.together(key.Namespace, key.Name, netpol.UsageOf(own))
	if len(others) == 0 || !a.options.Compile.MayExceed(cidrs, ports) {
		return nil, nil
	}
	if problems := netpol.TooManyBeside(cidrs); problems != nil {
		return problems, nil
	}
	if len(others) > mostRead {
		return policy.Problems{{Path: "allowedDestinations", Message: fmt.Sprintf(
			"Too many policies: the %d others of the namespace have %d CIDRs and %d ports and port ranges together; join or remove some", len(others), cidrs, ports)}}, nil
	}
	var specs []networkingv1.NetworkPolicySpec
	for _, name := range others {
		other, err := a.client.NetworkingV1().NetworkPolicies(key.Namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read NetworkPolicy %s: %w", name, err)
		}
		specs = append(specs, other.Spec)
	}
	return netpol.Beside(own, specs, a.options.Compile), nil
}

// readNetworkPolicy reads a NetworkPolicy that the cache has without its spec.
func (a *Agent) readNetworkPolicy(ctx context.Context, current *networkPolicyMeta) (*networkingv1.NetworkPolicy, error) {
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
func (a *Agent) apply(ctx context.Context, current *networkPolicyMeta, write *networkingv1.NetworkPolicy) (written *networkingv1.NetworkPolicy, err error) {
	if err := a.checkLease(); err != nil {
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

// remove deletes a NetworkPolicy that the agent made and that has no ConfigMap. Without it the pods are open,
// so the API server itself must say that the ConfigMap is gone: the cache of one kind may be behind
// that of the other. One that only has the label stays: somebody else made it.
func (a *Agent) remove(ctx context.Context, key cache.ObjectName, current *networkPolicyMeta) error {
	told := a.get(key).told
	a.drop(key)
	if current == nil || !netpol.HasManagedLabel(&current.ObjectMeta) || current.DeletionTimestamp != nil {
		return nil
	}
	if !netpol.IsMade(&current.ObjectMeta) {
		a.update(key, func(m *policyState) { m.told = told })
		a.warn(key, &networkingv1.NetworkPolicy{ObjectMeta: current.ObjectMeta}, key.Name, ReasonNotMade, fmt.Sprintf(
			"It has the label %s=%s, but no ConfigMap for its owner: %s leaves it as it is; take the label off, or delete it", netpol.ManagedByLabel, netpol.ManagedBy, Name))
		return nil
	}
	configMap, err := a.readConfigMap(ctx, key, configMapName(current))
	if err != nil {
		return err
	}
	if configMap != nil {
		return fmt.Errorf("the cache does not hold ConfigMap %s yet", configMap.Name)
	}
	return a.removeMade(ctx, key, current)
}

// removeMade deletes a NetworkPolicy that the agent made; another, or none, it leaves.
func (a *Agent) removeMade(ctx context.Context, key cache.ObjectName, current *networkPolicyMeta) error {
	if current == nil || !netpol.IsMade(&current.ObjectMeta) || current.DeletionTimestamp != nil {
		return nil
	}
	if err := a.checkLease(); err != nil {
		return err
	}
	err := a.client.NetworkingV1().NetworkPolicies(key.Namespace).Delete(ctx, key.Name, metav1.DeleteOptions{
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

// stillExists says whether the ConfigMap of a NetworkPolicy that is gone has not gone as well. With it goes its
// NetworkPolicy, and a cache that is behind would have that back each time the garbage collector deletes it. Once the
// cache catches up, another look is due.
func (a *Agent) stillExists(ctx context.Context, key cache.ObjectName, configMap *corev1.ConfigMap) (bool, error) {
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
func configMapName(current *networkPolicyMeta) string {
	for _, owner := range current.OwnerReferences {
		if owner.Kind == "ConfigMap" && netpol.NetworkPolicyName(owner.Name) == current.Name {
			return owner.Name
		}
	}
	return current.Name
}
