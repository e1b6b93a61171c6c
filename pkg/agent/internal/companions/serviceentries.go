package companions

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/netpol"
	"egress-agent/pkg/serviceentry"
)

// ServiceEntries is the kind of Istio's ServiceEntries. The key is that of the NetworkPolicy, which owns them. What
// ServiceEntries cannot say, egress-agent render -o serviceentry tells.
func ServiceEntries(client kubernetes.Interface) Kind {
	return Kind{
		Resource: schema.GroupVersionResource{Group: "networking.istio.io", Version: "v1", Resource: "serviceentries"},
		Name:     "ServiceEntry",
		Selector: netpol.ManagedByLabel + "=" + netpol.ManagedBy,
		KeyOf: func(companion metav1.Object) cache.ObjectName {
			for _, owner := range companion.GetOwnerReferences() {
				if owner.Kind == "NetworkPolicy" {
					return cache.NewObjectName(companion.GetNamespace(), owner.Name)
				}
			}
			return cache.ObjectName{}
		},
		Desired: func(ctx context.Context, key cache.ObjectName) ([]*unstructured.Unstructured, error) {
			networkPolicy, err := client.NetworkingV1().NetworkPolicies(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil, nil
			}
			if err != nil {
				return nil, err
			}
			if !netpol.IsMade(&networkPolicy.ObjectMeta) || networkPolicy.DeletionTimestamp != nil {
				return nil, nil
			}
			entries, _ := serviceentry.Of(networkPolicy)
			var desired []*unstructured.Unstructured
			for i := range entries {
				object, err := unstructuredOf(&entries[i])
				if err != nil {
					return nil, err
				}
				object.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy", Name: networkPolicy.Name, UID: networkPolicy.UID}})
				desired = append(desired, object)
			}
			return desired, nil
		},
	}
}

// unstructuredOf converts a value to the form that a dynamic client sends.
func unstructuredOf(value any) (*unstructured.Unstructured, error) {
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(value)
	return &unstructured.Unstructured{Object: object}, err
}
