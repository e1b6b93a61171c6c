package netpol

import "slices"

// DefaultNamespace is the agent's own, unless it is told another.
const DefaultNamespace = "egress-system"

// exempt are the namespaces that a cluster itself rests on: a policy in one of them could cut off its DNS.
var exempt = []string{"kube-system", "kube-public", "kube-node-lease"}

// IsExempt reports whether the agent writes nothing in a namespace: one of the cluster's, or the agent's own.
func IsExempt(namespace, own string) bool {
	return namespace == own || slices.Contains(exempt, namespace)
}
