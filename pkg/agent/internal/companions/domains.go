package companions

import (
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"

	"egress-agent/pkg/domains"
	"egress-agent/pkg/netpol"
)

// Domains is the kind of the objects that open names; options.Domains, which must be on, says which kind. The key is that
// of the NetworkPolicy, which owns the object.
func Domains(client kubernetes.Interface, options netpol.Options) Kind {
	resource, kind := schema.GroupVersionResource{Group: "networking.k8s.aws", Version: "v1alpha1", Resource: "applicationnetworkpolicies"}, "ApplicationNetworkPolicy"
	if options.Domains == netpol.Cilium {
		resource, kind = schema.GroupVersionResource{Group: "cilium.io", Version: "v2", Resource: "ciliumnetworkpolicies"}, "CiliumNetworkPolicy"
	}
	return ofNetworkPolicy(client, resource, kind, func(networkPolicy *networkingv1.NetworkPolicy) ([]any, error) {
		object, err := domains.Of(networkPolicy, options)
		if err != nil || object == nil {
			return nil, err
		}
		return []any{object}, nil
	})
}
