package controller

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/agent/internal/cached"
	"egress-agent/pkg/agent/internal/plan"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// decide returns the assessment of a policy, and what to do about it.
//
// It records the services of the policy before it compares the table again. In the other order, a table that is
// published between the two would miss the policy.
func (c *Controller) decide(ctx context.Context, key cache.ObjectName, source *cached.ConfigMap, current *netpol.Current, in netpol.Inputs) (*netpol.Assessment, plan.Decision, error) {
	configMap, exceeded, err := c.loadDocument(ctx, source)
	if err != nil {
		return nil, plan.Decision{}, err
	}
	in.Exceeded = exceeded
	assessment, err := c.assess(ctx, configMap, current, in)
	if err != nil {
		return nil, plan.Decision{}, err
	}
	c.tracker.SetServiceRegions(key, plan.ServiceRegionsOf(assessment.Policy, assessment.LastPolicy))
	if c.table.Load() != in.Table {
		c.queue.Add(key)
	}
	if assessment.Opens {
		if assessment, exceeded, err = c.checkOpening(ctx, key, configMap, current, assessment, in); err != nil {
			return nil, plan.Decision{}, err
		}
	}
	c.ledger.SetOverLimit(key.Namespace, key.Name, exceeded != nil)
	d := plan.Decide(assessment, current, c.wasInPlace(key, configMap), c.options.Plan)
	if d.Desired == nil && d.Warning == "" && current != nil {
		if err := c.warnIfOverLimit(ctx, key, configMap, current); err != nil {
			return nil, plan.Decision{}, err
		}
	}
	if d.NeedsSpec {
		full, err := c.api.readNetworkPolicy(ctx, current)
		if err != nil {
			return nil, plan.Decision{}, err
		}
		d = plan.Transition(d, assessment.Cause, full, c.options.Plan)
	}
	return assessment, d, nil
}

// loadSpec returns current with what its spec tells, if someone may have edited that since the agent wrote it. It reads
// the full object for that.
func (c *Controller) loadSpec(ctx context.Context, configMap *corev1.ConfigMap, current *netpol.Current) (*netpol.Current, error) {
	if current.DeletionTimestamp != nil || !netpol.IsOwned(configMap, current.ObjectMeta) {
		return current, nil
	}
	full, err := c.api.readNetworkPolicy(ctx, current)
	if err != nil {
		return nil, err
	}
	return netpol.CurrentOf(full), nil
}

// loadDocument returns the ConfigMap of a cached one, with its policy document. If the cache does not hold the document,
// it reads the ConfigMap. It returns problems instead if the document exceeds a limit.
func (c *Controller) loadDocument(ctx context.Context, source *cached.ConfigMap) (*corev1.ConfigMap, policy.Problems, error) {
	configMap := source.ConfigMap()
	if size := source.DocumentSize(); size > policy.MaxDocumentBytes {
		return configMap, policy.Problems{{Path: policy.Key, Message: policy.TooLarge(size)}}, nil
	}
	if problems := c.ledger.Excess(configMap.Namespace, configMap.Name); problems != nil {
		return configMap, problems, nil
	}
	if source.HasDocument() {
		return configMap, nil, nil
	}
	configMap, err := c.api.readDocument(ctx, configMap)
	return configMap, nil, err
}

// checkOpening checks an assessment that opens more than the current NetworkPolicy. If it exceeds a limit together with
// the other policies of the namespace, checkOpening returns another assessment that opens no more.
func (c *Controller) checkOpening(ctx context.Context, key cache.ObjectName, configMap *corev1.ConfigMap, current *netpol.Current, assessment *netpol.Assessment, in netpol.Inputs) (*netpol.Assessment, policy.Problems, error) {
	problems, err := c.checkDesired(ctx, key, current, assessment.Desired[0].Spec)
	if err != nil || problems == nil {
		return assessment, in.Exceeded, err
	}
	if assessment.State == netpol.Invalid { // Desired is the last valid version, which stays in force unchanged
		assessment.Desired, assessment.Cause = nil, ""
		return assessment, in.Exceeded, nil
	}
	in.Exceeded = problems
	checked, err := c.assess(ctx, configMap, current, in)
	if err != nil {
		return nil, nil, err
	}
	c.tracker.SetServiceRegions(key, plan.ServiceRegionsOf(assessment.Policy, assessment.LastPolicy, checked.LastPolicy))
	return checked, problems, nil
}

// assess returns the assessment of a policy. If the policy is invalid, it reads the last valid one from the
// NetworkPolicy.
func (c *Controller) assess(ctx context.Context, configMap *corev1.ConfigMap, current *netpol.Current, in netpol.Inputs) (*netpol.Assessment, error) {
	assessment := netpol.Assess(configMap, current, in)
	if !assessment.NeedsDocument {
		return assessment, nil
	}
	full, err := c.api.readNetworkPolicy(ctx, current)
	if err != nil {
		return nil, err
	}
	return netpol.Assess(configMap, netpol.CurrentOf(full), in), nil
}

// checkDesired returns the limits that a desired spec exceeds together with the other policies of the namespace. It
// returns nil if the spec only reduces a current NetworkPolicy that exceeds them already.
func (c *Controller) checkDesired(ctx context.Context, key cache.ObjectName, current *netpol.Current, desired networkingv1.NetworkPolicySpec) (policy.Problems, error) {
	problems, err := c.checkNamespace(ctx, key, desired)
	if err != nil || problems == nil || current == nil {
		return problems, err
	}
	full, err := c.api.readNetworkPolicy(ctx, current)
	if err != nil || netpol.Contains(full.Spec, desired) {
		return nil, err
	}
	return problems, nil
}

// warnIfOverLimit warns of a policy that is in force and exceeds a limit together with the others. It may have been
// applied by a version of the agent without the limit. It stays, because the dataplane already closes a part, and the
// agent would close the rest.
func (c *Controller) warnIfOverLimit(ctx context.Context, key cache.ObjectName, configMap *corev1.ConfigMap, current *netpol.Current) error {
	const topic = " beside" // the name of no ConfigMap
	var problems policy.Problems
	cidrs, ports, others := c.ledger.Total(key.Namespace, key.Name, c.ledger.Usage(key.Namespace, key.Name))
	if len(others) > 0 && c.options.Plan.Compile.MayExceed(cidrs, ports) {
		full, err := c.api.readNetworkPolicy(ctx, current)
		if err != nil {
			return err
		}
		if problems, err = c.checkNamespace(ctx, key, full.Spec); err != nil {
			return err
		}
	}
	if problems == nil {
		c.tracker.IsNewWarning(key, topic, "")
		return nil
	}
	c.warn(key, configMap, topic, plan.ReasonInvalid, problems.Error()+"; the policies stay in force, and the dataplane enforces a part of them")
	return nil
}

// maxOthersRead limits how many NetworkPolicies a sync reads to compare another with them.
const maxOthersRead = 100

// checkNamespace returns the limits that a spec exceeds together with the other NetworkPolicies of the agent in its
// namespace, which apply to the same pods. It reads these only if the ledger's totals do not rule that out.
func (c *Controller) checkNamespace(ctx context.Context, key cache.ObjectName, own networkingv1.NetworkPolicySpec) (policy.Problems, error) {
	cidrs, ports, others := c.ledger.Total(key.Namespace, key.Name, netpol.UsageOf(own))
	if len(others) == 0 || !c.options.Plan.Compile.MayExceed(cidrs, ports) {
		return nil, nil
	}
	if problems := netpol.SharedCIDRProblems(cidrs); problems != nil {
		return problems, nil
	}
	if len(others) > maxOthersRead {
		return policy.Problems{{Path: "allowedDestinations", Message: fmt.Sprintf(
			"Too many policies: this and the %d others of the namespace have %d CIDRs and %d ports and port ranges together; merge or remove some", len(others), cidrs, ports)}}, nil
	}
	specs, err := c.api.readSpecs(ctx, key.Namespace, others)
	if err != nil {
		return nil, err
	}
	return netpol.SharedLimitProblems(own, specs, c.options.Plan.Compile), nil
}
