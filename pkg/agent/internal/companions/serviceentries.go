package companions

import (
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"

	"egress-agent/pkg/serviceentry"
)

// ServiceEntries is the kind of Istio's ServiceEntries. The key is that of the NetworkPolicy, which owns them. What
// ServiceEntries cannot say, egress-agent render -o serviceentry tells.
func ServiceEntries(client kubernetes.Interface) Kind {
	resource := schema.GroupVersionResource{Group: "networking.istio.io", Version: "v1", Resource: "serviceentries"}
	return ofNetworkPolicy(client, resource, "ServiceEntry", func(networkPolicy *networkingv1.NetworkPolicy) (objects []any, err error) {
		entries, _ := serviceentry.Of(networkPolicy)
		for i := range entries {
			objects = append(objects, &entries[i])
		}
		return objects, nil
	})
}
