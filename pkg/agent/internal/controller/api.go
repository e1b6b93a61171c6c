package controller

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/agent/internal/plan"
	"egress-agent/pkg/agent/internal/reporter"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/platform"
	"egress-agent/pkg/policy"
)

// api reads full objects from the API server, because the caches hold only reduced forms. It is the only writer of
// NetworkPolicies.
type api struct {
	client     kubernetes.Interface
	checkLease func() error // returns an error if another agent may hold the Lease
}

// write creates the desired NetworkPolicy, or updates current, and returns the result and the verb. The update has the
// resourceVersion of current. It therefore fails if the NetworkPolicy has changed since, and undoes no change that the
// caches lack. written is nil if the namespace is being deleted or is gone.
func (a *api) write(
	ctx context.Context, current *netpol.Current, desired *networkingv1.NetworkPolicy,
) (written *networkingv1.NetworkPolicy, verb string, err error) {
	if err := a.checkLease(); err != nil {
		return nil, "", err
	}
	networkPolicies := a.client.NetworkingV1().NetworkPolicies(desired.Namespace)
	if current != nil {
		written, err := networkPolicies.Update(ctx, desired, metav1.UpdateOptions{FieldManager: plan.AgentName})
		if err != nil {
			return nil, "", fmt.Errorf("update NetworkPolicy %s: %w", desired.Name, err)
		}
		return written, reporter.VerbUpdate, nil
	}
	written, err = networkPolicies.Create(ctx, desired, metav1.CreateOptions{FieldManager: plan.AgentName})
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) || apierrors.IsNotFound(err) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("create NetworkPolicy %s: %w", desired.Name, err)
	}
	return written, reporter.VerbCreate, nil
}

// delete deletes a NetworkPolicy. It fails for a NetworkPolicy with the same name and another UID. deleted is false if
// the NetworkPolicy does not exist.
func (a *api) delete(ctx context.Context, current *netpol.Current) (deleted bool, err error) {
	if err := a.checkLease(); err != nil {
		return false, err
	}
	err = a.client.NetworkingV1().NetworkPolicies(current.Namespace).Delete(ctx, current.Name, metav1.DeleteOptions{
		Preconditions: metav1.NewUIDPreconditions(string(current.UID)),
	})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("delete NetworkPolicy %s: %w", current.Name, err)
	}
	return true, nil
}

// readNetworkPolicy returns the full object of a cached NetworkPolicy. It returns an error if the cache has another
// version.
func (a *api) readNetworkPolicy(ctx context.Context, current *netpol.Current) (*networkingv1.NetworkPolicy, error) {
	networkPolicy, err := a.client.NetworkingV1().NetworkPolicies(current.Namespace).Get(ctx, current.Name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read NetworkPolicy %s: %w", current.Name, err)
	}
	if networkPolicy.ResourceVersion != current.ResourceVersion {
		return nil, fmt.Errorf("the cache has another version of NetworkPolicy %s than the API server", current.Name)
	}
	return networkPolicy, nil
}

// readSpecs returns the specs of the named NetworkPolicies. It skips a NetworkPolicy that does not exist.
func (a *api) readSpecs(ctx context.Context, namespace string, names []string) ([]networkingv1.NetworkPolicySpec, error) {
	var specs []networkingv1.NetworkPolicySpec
	for _, name := range names {
		networkPolicy, err := a.client.NetworkingV1().NetworkPolicies(namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read NetworkPolicy %s: %w", name, err)
		}
		specs = append(specs, networkPolicy.Spec)
	}
	return specs, nil
}

// readDocument returns a copy of a cached ConfigMap with its policy document. It returns an error if the cache has
// another version.
func (a *api) readDocument(ctx context.Context, configMap *corev1.ConfigMap) (*corev1.ConfigMap, error) {
	stored, err := a.client.CoreV1().ConfigMaps(configMap.Namespace).Get(ctx, configMap.Name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read ConfigMap %s: %w", configMap.Name, err)
	}
	if stored.UID != configMap.UID || stored.ResourceVersion != configMap.ResourceVersion {
		return nil, fmt.Errorf("the cache has another version of ConfigMap %s than the API server", configMap.Name)
	}
	withDocument := *configMap
	withDocument.Data = map[string]string{policy.Key: stored.Data[policy.Key]}
	return &withDocument, nil
}

// stillExists asks the API server whether the ConfigMap of a deleted NetworkPolicy exists. After the deletion of a
// ConfigMap the garbage collector deletes its NetworkPolicy. An agent whose cache still has the ConfigMap would create
// the NetworkPolicy again. When the cache gets the deletion of the ConfigMap, its handler enqueues the key.
func (a *api) stillExists(ctx context.Context, key cache.ObjectName, configMap *corev1.ConfigMap) (bool, error) {
	stored, err := a.readPolicy(ctx, key, configMap.Name)
	return stored != nil && stored.UID == configMap.UID, err
}

// readPolicy returns the policy ConfigMap of this name. It returns nil if the ConfigMap does not exist, lacks the
// label, or belongs to another key.
func (a *api) readPolicy(ctx context.Context, key cache.ObjectName, name string) (*corev1.ConfigMap, error) {
	configMap, err := a.client.CoreV1().ConfigMaps(key.Namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read the ConfigMap of NetworkPolicy %s: %w", key.Name, err)
	case configMap.Labels[policy.Label] != policy.LabelValue || policyKey(configMap) != key:
		return nil, nil
	}
	return configMap, nil
}

// sourceExists reports whether the ConfigMap exists that a NetworkPolicy of the platform was made from. kind is the value
// of netpol.PlatformLabel.
func (a *api) sourceExists(ctx context.Context, source cache.ObjectName, kind string) (bool, error) {
	configMap, err := a.client.CoreV1().ConfigMaps(source.Namespace).Get(ctx, source.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read ConfigMap %s: %w", source, err)
	}
	if kind == netpol.Inherited {
		return configMap.Labels[policy.Label] == policy.LabelValue && policy.IsInheritable(configMap.Annotations), nil
	}
	return configMap.Labels[policy.Label] == platform.LabelValue, nil
}
