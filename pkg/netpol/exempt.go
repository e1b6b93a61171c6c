package netpol

import (
	"cmp"
	"slices"
)

// DefaultNamespace is the agent's own, unless a flag names another.
const DefaultNamespace = "egress-system"

// systemNamespaces hold what the cluster itself runs on: a policy in one of them could cut off its DNS.
var systemNamespaces = []string{"kube-system", "kube-public", "kube-node-lease"}

// IsExempt reports whether the agent writes nothing in a namespace: one of the cluster's, or the agent's own.
func IsExempt(namespace, agentNamespace string) bool {
	return namespace == agentNamespace || slices.Contains(systemNamespaces, namespace)
}

func (in Inputs) isExempt(namespace string) bool {
	return IsExempt(namespace, cmp.Or(in.AgentNamespace, DefaultNamespace))
}
