package main

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"

	"egress-agent/pkg/analysis/flows"
)

// readPods reads the pods and Services of all namespaces. Without permission it prints a note, and reads those of
// namespace, which may be empty. If it may not read those either, it returns an empty Cluster.
func readPods(ctx context.Context, client kubernetes.Interface, namespace string, progress *progress, note func(format string, args ...any)) (*flows.Cluster, error) {
	found, err := readPodsOf(ctx, client, metav1.NamespaceAll, progress)
	if apierrors.IsForbidden(err) && namespace != "" {
		note("note: no permission to list pods and services in all namespaces: a connection to a pod of another namespace counts as denied, unless a CIDR allows it")
		found, err = readPodsOf(ctx, client, namespace, progress)
	}
	if apierrors.IsForbidden(err) {
		note("note: no permission to list pods and services: all connections count as those of one namespace; --pods FILE gives the pods")
		return flows.NewCluster(), nil
	}
	return found, err
}

func readPodsOf(ctx context.Context, client kubernetes.Interface, namespace string, progress *progress) (*flows.Cluster, error) {
	found := flows.NewCluster()
	err := listEach(ctx, progress, "", func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return client.CoreV1().Pods(namespace).List(ctx, options)
	}, found.AddPodObject)
	if err != nil {
		return nil, err
	}
	return found, listEach(ctx, progress, "", func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return client.CoreV1().Services(namespace).List(ctx, options)
	}, found.AddServiceObject)
}
