package recommend

import (
	"maps"
	"slices"
	"strings"

	"egress-agent/pkg/analysis/flows"
)

// podsOf returns the pods that a flow of a namespace leads to.
func podsOf(cluster *flows.Cluster, namespace string, flow flows.Flow) (target, bool) {
	if pod, ok := cluster.PodOf(flow.Destination); ok {
		return podsTarget(namespace, pod.Namespace, identityOf(pod.Labels)), true
	}
	if service, ok := cluster.ServiceOf(flow.Destination); ok && len(service.Selector) > 0 {
		return podsTarget(namespace, service.Namespace, service.Selector), true
	}
	return target{}, false
}

func podsTarget(own, namespace string, labels map[string]string) target {
	t := target{isPods: true, namespace: namespace}
	if namespace == own {
		t.namespace = ""
	}
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		pairs = append(pairs, key+"="+labels[key])
	}
	t.labels = strings.Join(pairs, ",")
	return t
}

// identityOf returns the label that names the program of a pod. Other labels, such as the hash of a template, change with
// each version. It returns nil, which selects every pod of the namespace, if the pod has no such label.
func identityOf(labels map[string]string) map[string]string {
	for _, key := range []string{"app.kubernetes.io/name", "app", "k8s-app", "app.kubernetes.io/instance", "name"} {
		if value, ok := labels[key]; ok {
			return map[string]string{key: value}
		}
	}
	return nil
}
