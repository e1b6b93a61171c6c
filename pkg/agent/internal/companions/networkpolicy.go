package companions

import (
	"context"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/netpol"
)

// ofNetworkPolicy is a kind whose objects come from one NetworkPolicy of the agent, which owns them and whose key they
// have. objectsOf returns the objects as they are sent, except their owner.
func ofNetworkPolicy(client kubernetes.Interface, resource schema.GroupVersionResource, name string,
	objectsOf func(networkPolicy *networkingv1.NetworkPolicy) ([]any, error)) Kind {
	return Kind{
		Resource: resource,
		Name:     name,
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
			objects, err := objectsOf(networkPolicy)
			if err != nil {
				return nil, err
			}
			var desired []*unstructured.Unstructured
			for _, object := range objects {
				converted, err := unstructuredOf(object)
				if err != nil {
					return nil, err
				}
				converted.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy", Name: networkPolicy.Name, UID: networkPolicy.UID}})
				desired = append(desired, converted)
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
