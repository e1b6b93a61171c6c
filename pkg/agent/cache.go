package agent

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// What the caches keep of each object: what decisions need, and no more.

// observed is a NetworkPolicy without its spec. As an object of the API, which a list takes, it is that of its
// metadata.
type observed struct {
	metav1.PartialObjectMetadata
	digest string // of the spec, as netpol.Digest gives it; empty for one that is not the agent's
	cidrs  int    // of the spec, as netpol.CIDRs counts them; 0 for one that is not the agent's
}

// What the labels of nearly all objects come to, shared by them. Never to be modified.
var (
	onlyManaged = map[string]string{netpol.ManagedByLabel: netpol.ManagedBy}
	onlyPolicy  = map[string]string{policy.Label: policy.LabelValue}
)

// observe makes a NetworkPolicy slim. It takes its metadata over.
func observe(policy *networkingv1.NetworkPolicy) *observed {
	o := &observed{}
	o.ObjectMeta = policy.ObjectMeta
	o.ManagedFields = nil
	if len(o.Labels) == 1 && netpol.Managed(&o.ObjectMeta) {
		o.Labels = onlyManaged
	}
	if netpol.Managed(&o.ObjectMeta) || len(o.OwnerReferences) > 0 {
		o.digest, o.cidrs = netpol.Digest(policy.Spec), netpol.CIDRs(policy.Spec)
		if written := o.Annotations[netpol.SpecDigest]; written == o.digest {
			o.digest = written // whose memory they share
		}
	}
	return o
}

// slimConfigMap makes a ConfigMap slim, and returns the same.
func slimConfigMap(configMap *corev1.ConfigMap) *corev1.ConfigMap {
	slim := corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Namespace: configMap.Namespace, Name: configMap.Name, UID: configMap.UID, ResourceVersion: configMap.ResourceVersion,
		CreationTimestamp: configMap.CreationTimestamp, DeletionTimestamp: configMap.DeletionTimestamp,
	}}
	if configMap.Labels[policy.Label] == policy.LabelValue {
		slim.Labels = onlyPolicy
	}
	if document, ok := configMap.Data[policy.Key]; ok {
		slim.Data = configMap.Data
		if len(slim.Data) > 1 {
			slim.Data = map[string]string{policy.Key: document}
		}
	}
	*configMap = slim
	return configMap
}

// observedPolicy returns what the cache has of a NetworkPolicy; nil for none.
func (a *Agent) observedPolicy(key cache.ObjectName) (*observed, error) {
	object, exists, err := a.policies.GetByKey(key.String())
	if err != nil || !exists {
		return nil, err
	}
	o, ok := object.(*observed)
	if !ok {
		return nil, fmt.Errorf("the cache of NetworkPolicies holds a %T", object)
	}
	return o, nil
}
