package bare

import (
	"context"
	"encoding/json"
	"errors"
	"sync"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"egress-agent/scripts/e2e/cluster"
)

// destination is an item of allowedDestinations with a CIDR and single ports.
type destination struct {
	CIDR  string  `json:"cidr"`
	Ports []int32 `json:"ports"`
}

// Spec returns the spec of a policy whose destinations have only a CIDR and single TCP ports, with egress-agent's rule for
// DNS. Like egress-agent, it has a rule for each destination, but in their order in the document.
func Spec(document string) (networkingv1.NetworkPolicySpec, error) {
	var policy struct {
		AllowedDestinations []destination `json:"allowedDestinations"`
	}
	if err := json.Unmarshal([]byte(document), &policy); err != nil {
		return networkingv1.NetworkPolicySpec{}, err
	}
	port := func(protocol corev1.Protocol, number int32) networkingv1.NetworkPolicyPort {
		value := intstr.FromInt32(number)
		return networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: &value}
	}
	rules := []networkingv1.NetworkPolicyEgressRule{{
		Ports: []networkingv1.NetworkPolicyPort{port(corev1.ProtocolUDP, 53), port(corev1.ProtocolTCP, 53)},
		To: []networkingv1.NetworkPolicyPeer{{
			PodSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"k8s-app": "kube-dns"}},
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: metav1.NamespaceSystem}},
		}},
	}}
	for _, d := range policy.AllowedDestinations {
		rule := networkingv1.NetworkPolicyEgressRule{To: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: d.CIDR}}}}
		for _, number := range d.Ports {
			rule.Ports = append(rule.Ports, port(corev1.ProtocolTCP, number))
		}
		rules = append(rules, rule)
	}
	return networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}, Egress: rules}, nil
}

// Watch creates a NetworkPolicy for each new ConfigMap with the label egress-controller=managed, on cluster.Workers
// goroutines, until ctx is canceled. It never checks, updates, retries or deletes. kubeconfig is a file.
func Watch(ctx context.Context, kubeconfig string) error {
	client, err := cluster.Bare(kubeconfig)
	if err != nil {
		return err
	}
	watcher, err := client.CoreV1().ConfigMaps("").Watch(ctx, metav1.ListOptions{LabelSelector: "egress-controller=managed"})
	if err != nil {
		return err
	}
	defer watcher.Stop()
	var running sync.WaitGroup
	errs := make([]error, cluster.Workers)
	for worker := range cluster.Workers {
		running.Go(func() {
			for event := range watcher.ResultChan() {
				if configMap, ok := event.Object.(*corev1.ConfigMap); ok && event.Type == watch.Added && errs[worker] == nil {
					errs[worker] = create(ctx, client, configMap)
				}
			}
		})
	}
	running.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return errors.Join(append(errs, errors.New("the watch ended"))...)
}

func create(ctx context.Context, client kubernetes.Interface, configMap *corev1.ConfigMap) error {
	spec, err := Spec(configMap.Data["policy.json"])
	if err != nil {
		return err
	}
	policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: configMap.Name}, Spec: spec}
	_, err = client.NetworkingV1().NetworkPolicies(configMap.Namespace).Create(ctx, policy, metav1.CreateOptions{})
	return err
}
