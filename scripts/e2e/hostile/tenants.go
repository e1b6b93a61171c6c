package hostile

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"egress-agent/scripts/e2e/cluster"
)

// tenantCount is the number of ordinary tenants, each with a small policy.
const tenantCount = 50

// ErrEnded reports that the agent ended before it applied a change.
var ErrEnded = errors.New("the agent has ended")

func tenant(i int) string { return fmt.Sprintf("tenant-%d", i%tenantCount) }

// CreateTenants creates the namespaces and policies of the ordinary tenants.
func CreateTenants(ctx context.Context, client kubernetes.Interface) error {
	return cluster.Each(tenantCount, func(i int) error {
		if err := CreateNamespace(ctx, client, tenant(i)); err != nil {
			return err
		}
		_, err := client.CoreV1().ConfigMaps(tenant(i)).Create(ctx, ConfigMap("egress", Small(0)), metav1.CreateOptions{})
		return err
	})
}

// CreateNamespace creates a namespace. It returns no error if the namespace exists.
func CreateNamespace(ctx context.Context, client kubernetes.Interface, name string) error {
	_, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// ConfigMap returns a policy ConfigMap.
func ConfigMap(name, policy string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"egress-controller": "managed"}},
		Data:       map[string]string{"policy.json": policy},
	}
}

// Change edits the policy of ordinary tenant n, and returns the time until the NetworkPolicy has the change. Each call
// needs another n. ended returns how the agent ended, or "" while it runs. Change returns ErrEnded if the agent ends.
// It returns an error that wraps the context's error if ctx ends first.
func Change(ctx context.Context, client kubernetes.Interface, n int, ended func() string) (time.Duration, error) {
	started := time.Now()
	if _, err := client.CoreV1().ConfigMaps(tenant(n)).Update(ctx, ConfigMap("egress", Small(n)), metav1.UpdateOptions{}); err != nil {
		return 0, err
	}
	for ended() == "" {
		policy, err := client.NetworkingV1().NetworkPolicies(tenant(n)).Get(ctx, "egress", metav1.GetOptions{})
		if err == nil && Opens(policy, SmallCIDR(n)) {
			return time.Since(started), nil
		}
		if ctx.Err() != nil {
			return 0, fmt.Errorf("change %d of %s is not applied: %w", n, tenant(n), ctx.Err())
		}
		time.Sleep(10 * time.Millisecond)
	}
	return 0, ErrEnded
}

// Opens reports whether a rule of the NetworkPolicy has exactly this CIDR as a peer.
func Opens(policy *networkingv1.NetworkPolicy, cidr string) bool {
	for _, rule := range policy.Spec.Egress {
		for _, peer := range rule.To {
			if peer.IPBlock != nil && peer.IPBlock.CIDR == cidr {
				return true
			}
		}
	}
	return false
}
