package controller

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/agent/internal/cached"
	"egress-agent/pkg/agent/internal/plan"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// decide returns the assessment of a policy, and the decision about it.
//
// It first records the services of the policy, and then compares the table again. In the reverse order, a table that is
// published between these two steps would not cause a sync of the policy.
func (c *Controller) decide(
	ctx context.Context, key cache.ObjectName, source *cached.ConfigMap, current *netpol.Current, inputs netpol.Inputs,
) (*netpol.Assessment, plan.Decision, error) {
	configMap, exceeded, err := c.loadDocument(ctx, source)
	if err != nil {
		return nil, plan.Decision{}, err
	}
	inputs.Exceeded = exceeded
	assessment, err := c.assess(ctx, configMap, current, inputs)
	if err != nil {
		return nil, plan.Decision{}, err
	}
	c.tracker.SetServiceRegions(key, plan.ServiceRegionsOf(assessment.Policy, assessment.LastPolicy))
	if addresses, _ := c.apiServer.At(inputs.Now); c.table.Load() != inputs.Table || !slices.Equal(addresses, inputs.APIServer) {
		c.queue.Add(key)
	}
	isTenants := inputs.Origin.Kind != netpol.Base // a base takes precedence over the policies of tenants
	isRestored := assessment.Cause == netpol.CauseMissing && c.wasInPlace(key, configMap)
	if assessment.Opens && !isRestored && isTenants {
		if assessment, exceeded, err = c.checkOpening(ctx, key, configMap, current, assessment, inputs); err != nil {
			return nil, plan.Decision{}, err
		}
	}
	c.ledger.SetOverLimit(key.Namespace, key.Name, exceeded != nil)
	d := plan.Decide(assessment, current, c.wasInPlace(key, configMap), c.options.Plan)
	if d.Desired == nil && d.Warning == "" && current != nil && isTenants {
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

// loadSpec reads the full NetworkPolicy, because someone may have edited its spec, and returns it in place of current.
// It returns current itself if the NetworkPolicy is being deleted or the ConfigMap does not own it.
func (c *Controller) loadSpec(
	ctx context.Context, configMap *corev1.ConfigMap, origin netpol.Origin, current *netpol.Current,
) (*netpol.Current, error) {
	if current.DeletionTimestamp != nil || !netpol.IsOwned(configMap, origin, current.ObjectMeta) {
		return current, nil
	}
	full, err := c.api.readNetworkPolicy(ctx, current)
	if err != nil {
		return nil, err
	}
	return netpol.CurrentOf(full), nil
}

// loadDocument returns a cached ConfigMap with its policy document. If the cache does not hold the document,
// loadDocument reads the ConfigMap from the API server. If the document exceeds a limit, loadDocument returns the
// problems, and the ConfigMap may lack the document.
func (c *Controller) loadDocument(ctx context.Context, source *cached.ConfigMap) (*corev1.ConfigMap, policy.Problems, error) {
	configMap := source.ConfigMap()
	if size := source.DocumentSize(); size > policy.MaxDocumentBytes {
		return configMap, policy.Problems{{Path: policy.Key, Message: policy.TooLarge(size)}}, nil
	}
	if problems := c.ledger.CheckFit(configMap.Namespace, configMap.Name); problems != nil {
		return configMap, problems, nil
	}
	if source.HasDocument() {
		return configMap, nil, nil
	}
	configMap, err := c.api.readDocument(ctx, configMap)
	return configMap, nil, err
}

// checkOpening checks an assessment that opens more than the current NetworkPolicy. If the desired spec and the other
// policies of the namespace together exceed a limit, checkOpening returns the problems and another assessment. That
// assessment opens no more than the current NetworkPolicy.
func (c *Controller) checkOpening(
	ctx context.Context, key cache.ObjectName, configMap *corev1.ConfigMap, current *netpol.Current,
	assessment *netpol.Assessment, inputs netpol.Inputs,
) (*netpol.Assessment, policy.Problems, error) {
	problems, err := c.checkDesired(ctx, key, current, assessment.Desired[0].Spec, inputs.Guardrails)
	if err != nil || problems == nil {
		return assessment, inputs.Exceeded, err
	}
	if assessment.State == netpol.Invalid { // Desired is the last valid version, which stays in force unchanged
		assessment.Desired, assessment.Cause = nil, ""
		return assessment, inputs.Exceeded, nil
	}
	inputs.Exceeded = problems
	checked, err := c.assess(ctx, configMap, current, inputs)
	if err != nil {
		return nil, nil, err
	}
	c.tracker.SetServiceRegions(key, plan.ServiceRegionsOf(assessment.Policy, assessment.LastPolicy, checked.LastPolicy))
	return checked, problems, nil
}

// assess returns the assessment of a policy. If the policy is invalid, assess reads the last valid version of the
// policy from the NetworkPolicy.
func (c *Controller) assess(
	ctx context.Context, configMap *corev1.ConfigMap, current *netpol.Current, inputs netpol.Inputs,
) (*netpol.Assessment, error) {
	assessment := netpol.Assess(configMap, current, inputs)
	if !assessment.NeedsObject {
		return assessment, nil
	}
	full, err := c.api.readNetworkPolicy(ctx, current)
	if err != nil {
		return nil, err
	}
	return netpol.Assess(configMap, netpol.CurrentOf(full), inputs), nil
}

// checkDesired returns the problems if a desired spec and the other policies of the namespace together exceed a limit.
// It returns nil if the spec opens nothing that the current NetworkPolicy does not open, and if the guardrails do not
// permit that the current NetworkPolicy stays.
func (c *Controller) checkDesired(
	ctx context.Context, key cache.ObjectName, current *netpol.Current, desired networkingv1.NetworkPolicySpec,
	guardrails *netpol.Guardrails,
) (policy.Problems, error) {
	problems, err := c.checkNamespace(ctx, key, desired)
	if err != nil || problems == nil || current == nil {
		return problems, err
	}
	full, err := c.api.readNetworkPolicy(ctx, current)
	if err != nil || netpol.Contains(full.Spec, desired) || guardrails.Violates(full.Spec, c.options.Plan.Compile.Family) {
		return nil, err
	}
	return problems, nil
}

// warnIfOverLimit warns of a policy that is in force, if it and the other policies of the namespace together exceed a
// limit. A version of the agent without this limit may have applied it. The agent does not remove it: the dataplane
// already closes a part of its addresses, and a removal would close the rest.
func (c *Controller) warnIfOverLimit(
	ctx context.Context, key cache.ObjectName, configMap *corev1.ConfigMap, current *netpol.Current,
) error {
	const topic = " beside" // no ConfigMap can have this name
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
		c.tracker.RecordWarning(key, topic, "")
		return nil
	}
	c.warn(key, configMap, topic, plan.ReasonInvalid, problems.Error()+
		"; the policies stay in force, and the dataplane enforces a part of them")
	return nil
}

// maxOthersRead is how many other NetworkPolicies of its namespace a sync reads at most.
const maxOthersRead = 100

// checkNamespace returns the problems if a spec and the agent's other NetworkPolicies in the namespace together exceed
// a limit. These NetworkPolicies count together, because all apply to the same pods. checkNamespace reads the other
// NetworkPolicies only if the totals of the ledger may exceed a limit.
func (c *Controller) checkNamespace(
	ctx context.Context, key cache.ObjectName, spec networkingv1.NetworkPolicySpec,
) (policy.Problems, error) {
	cidrs, ports, others := c.ledger.Total(key.Namespace, key.Name, netpol.UsageOf(spec))
	if len(others) == 0 || !c.options.Plan.Compile.MayExceed(cidrs, ports) {
		return nil, nil
	}
	if problems := netpol.SharedCIDRProblems(cidrs); problems != nil {
		return problems, nil
	}
	if len(others) > maxOthersRead {
		return policy.Problems{{Path: "allowedDestinations", Message: fmt.Sprintf(
			"Too many policies: this and the %d others of the namespace have %d CIDRs and %d ports and port ranges together; "+
				"merge or remove some",
			len(others), cidrs, ports)}}, nil
	}
	otherSpecs, err := c.api.readSpecs(ctx, key.Namespace, others)
	if err != nil {
		return nil, err
	}
	return netpol.SharedLimitProblems(spec, otherSpecs, c.options.Plan.Compile), nil
}
