package companions

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/netpol"
	"egress-agent/pkg/status"
)

// NamespaceKey is the key of a namespace's Report.
func NamespaceKey(namespace string) cache.ObjectName { return cache.NewObjectName(namespace, "") }

// Reports is the kind of OpenReports' Reports. The key is NamespaceKey. reportOf returns the report of a namespace, or
// nil. ok is false if it is not known yet.
func Reports(reportOf func(ctx context.Context, namespace string) (report *status.OpenReport, ok bool, err error)) Kind {
	return Kind{
		Resource: schema.GroupVersionResource{Group: "openreports.io", Version: "v1alpha1", Resource: "reports"},
		Name:     "Report",
		Selector: netpol.ManagedByLabel + "=" + netpol.ManagedBy,
		KeyOf: func(companion metav1.Object) cache.ObjectName {
			if companion.GetName() != netpol.ManagedBy {
				return cache.ObjectName{}
			}
			return NamespaceKey(companion.GetNamespace())
		},
		Desired: func(ctx context.Context, key cache.ObjectName) ([]*unstructured.Unstructured, error) {
			report, ok, err := reportOf(ctx, key.Namespace)
			switch {
			case err != nil:
				return nil, err
			case !ok:
				return nil, ErrNotReady
			case report == nil:
				return nil, nil
			}
			object, err := unstructuredOf(report)
			return []*unstructured.Unstructured{object}, err
		},
	}
}
