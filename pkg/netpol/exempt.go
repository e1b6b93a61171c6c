package netpol

import (
	"cmp"
	"slices"
)

// DefaultNamespace is the namespace of the agent, unless a flag names another namespace.
const DefaultNamespace = "egress-system"

// systemNamespaces hold the components of the cluster. A policy in such a namespace could close the cluster's DNS.
var systemNamespaces = []string{"kube-system", "kube-public", "kube-node-lease"}

// IsExempt reports whether the agent writes nothing in a namespace, because the cluster or the agent itself runs there.
func IsExempt(namespace, agentNamespace string) bool {
	return namespace == agentNamespace || slices.Contains(systemNamespaces, namespace)
}

func (in Inputs) isExempt(namespace string) bool {
	return IsExempt(namespace, cmp.Or(in.AgentNamespace, DefaultNamespace))
}
