package netpol

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/policy"
)

// result has the fields of a Compiled without problems, and the spec.
type result struct {
	Spec       networkingv1.NetworkPolicySpec
	Counts     []Count
	Unresolved []string
	Warnings   policy.Problems
}

// compile compiles a policy that a test made without policy.json. Exactly one of the results is nil.
func compile(p *policy.Policy, table *awsranges.Table, options Options) (*result, policy.Problems) {
	c := &Compiled{Policy: p, options: options}
	c.compile(Inputs{Table: table, Options: options}, &policy.Warnings{})
	return resultOf(c)
}

func compileDocument(configMap *corev1.ConfigMap, table *awsranges.Table, options Options) (*result, policy.Problems) {
	return resultOf(CompileConfigMap(configMap, Inputs{Table: table, Options: options}))
}

func resultOf(c *Compiled) (*result, policy.Problems) {
	if c.Problems != nil {
		return nil, c.Problems
	}
	return &result{c.Spec(), c.Counts, c.Unresolved, c.Warnings}, nil
}
