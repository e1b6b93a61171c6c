package agent

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// What the caches keep of each object: what decisions need, and no more.

// networkPolicyMeta is a NetworkPolicy without its spec and its PolicyAnnotation. The informer's list takes it as an
// object of the API by its metadata. What is counted and hashed is empty for a NetworkPolicy that is not the agent's.
type networkPolicyMeta struct {
	metav1.PartialObjectMetadata
	SpecDigest     string
	CIDRCount      int
	DocumentDigest string
}

func (m *networkPolicyMeta) current() *netpol.Current {
	return &netpol.Current{ObjectMeta: &m.ObjectMeta, SpecDigest: m.SpecDigest, CIDRCount: m.CIDRCount, DocumentDigest: m.DocumentDigest}
}

// What the labels of nearly all objects come to, shared by them. Never to be modified.
var (
	onlyManaged = map[string]string{netpol.ManagedByLabel: netpol.ManagedBy}
	onlyPolicy  = map[string]string{policy.Label: policy.LabelValue}
)

// observe makes a NetworkPolicy slim, and counts what it takes of its namespace's pods. It takes its metadata over.
func (a *Agent) observe(policy *networkingv1.NetworkPolicy) *networkPolicyMeta {
	if netpol.IsMade(&policy.ObjectMeta) {
		a.ledger.setUsage(policy.Namespace, policy.Name, netpol.UsageOf(policy.Spec))
	} else {
		a.ledger.dropUsage(policy.Namespace, policy.Name)
	}
	return metaOf(policy)
}

func metaOf(policy *networkingv1.NetworkPolicy) *networkPolicyMeta {
	o := &networkPolicyMeta{}
	o.ObjectMeta = policy.ObjectMeta
	o.ManagedFields = nil
	if len(o.Labels) == 1 && netpol.HasManagedLabel(&o.ObjectMeta) {
		o.Labels = onlyManaged
	}
	if netpol.HasManagedLabel(&o.ObjectMeta) || len(o.OwnerReferences) > 0 {
		whole := netpol.CurrentOf(policy)
		o.SpecDigest, o.CIDRCount, o.DocumentDigest = whole.SpecDigest, whole.CIDRCount, whole.DocumentDigest
		if written := o.Annotations[netpol.SpecDigestAnnotation]; written == o.SpecDigest {
			o.SpecDigest = written // the same memory
		}
	}
	if o.DocumentDigest != "" {
		o.Annotations = maps.Clone(o.Annotations) // others may have the object, too
		delete(o.Annotations, netpol.PolicyAnnotation)
	}
	return o
}

// slimNote marks a ConfigMap of the cache, so that one that was listed is not made slim twice. It is an annotation with a
// key that the API takes from nobody. Two fields of the metadata that the agent does not need hold what is known of the policy as
// it is stored: GenerateName its digest, as bytes, and Generation its size without white space.
const slimNote = " slim"

// onlySlim is what the notes of the cache's come to, shared by them. Never to be modified.
var onlySlim = map[string]string{slimNote: ""}

// slim makes a ConfigMap slim, and returns the same: its policy has no white space, and none of its text is held that is
// over a bound.
func (a *Agent) slim(configMap *corev1.ConfigMap) *corev1.ConfigMap {
	if _, done := configMap.Annotations[slimNote]; done {
		return configMap
	}
	slim := corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Namespace: configMap.Namespace, Name: configMap.Name, UID: configMap.UID, ResourceVersion: configMap.ResourceVersion,
		CreationTimestamp: configMap.CreationTimestamp, DeletionTimestamp: configMap.DeletionTimestamp,
		Annotations: onlySlim,
	}}
	if configMap.Labels[policy.Label] == policy.LabelValue {
		slim.Labels = onlyPolicy
	}
	document, ok := configMap.Data[policy.Key]
	compact, size := policy.Compact(document)
	digest, _ := hex.DecodeString(netpol.PolicyDigestOf(configMap)) // it is one
	slim.GenerateName, slim.Generation = string(digest), int64(size)
	hold := a.ledger.addDocument(&slim, size, len(compact))
	switch {
	case !ok:
		slim.BinaryData = binaryHead(configMap.BinaryData)
	case hold && len(configMap.Data) == 1 && compact == document:
		slim.Data = configMap.Data
	case hold:
		slim.Data = map[string]string{policy.Key: compact}
	}
	*configMap = slim
	return configMap
}

// binaryHead returns as much of a policy among binary data as tells why it is there.
func binaryHead(data map[string][]byte) map[string][]byte {
	const enough = 64
	binary, ok := data[policy.Key]
	if !ok {
		return nil
	}
	if utf8.Valid(binary) {
		binary = nil
	}
	return map[string][]byte{policy.Key: bytes.Clone(binary[:min(len(binary), enough)])}
}

// digestOf is netpol.DigestOf for a ConfigMap of the cache, too.
func digestOf(configMap *corev1.ConfigMap) string {
	if _, slim := configMap.Annotations[slimNote]; slim {
		return hex.EncodeToString([]byte(configMap.GenerateName))
	}
	return netpol.PolicyDigestOf(configMap)
}

// document returns a ConfigMap of the cache with the text of its policy, which is read if the cache does not hold it, or
// the bound that the policy is over.
func (a *Agent) document(ctx context.Context, cached *corev1.ConfigMap) (*corev1.ConfigMap, policy.Problems, error) {
	size := int(cached.Generation)
	if size > policy.MaxDocumentBytes {
		return cached, policy.Problems{{Path: policy.Key, Message: policy.TooLarge(size)}}, nil
	}
	if problems := a.ledger.excess(cached.Namespace, cached.Name); problems != nil {
		return cached, problems, nil
	}
	if size == 0 || cached.Data != nil {
		return cached, nil, nil
	}
	stored, err := a.client.CoreV1().ConfigMaps(cached.Namespace).Get(ctx, cached.Name, metav1.GetOptions{})
	if err != nil {
		return nil, nil, fmt.Errorf("read ConfigMap %s: %w", cached.Name, err)
	}
	if stored.UID != cached.UID || stored.ResourceVersion != cached.ResourceVersion {
		return nil, nil, fmt.Errorf("the cache does not hold ConfigMap %s as it is yet", cached.Name)
	}
	full := *cached
	full.Data = map[string]string{policy.Key: stored.Data[policy.Key]}
	return &full, nil, nil
}

// cachedNetworkPolicy returns what the cache has of a NetworkPolicy; nil for none.
func (a *Agent) cachedNetworkPolicy(key cache.ObjectName) (*networkPolicyMeta, error) {
	object, exists, err := a.networkPolicies.GetByKey(key.String())
	if err != nil || !exists {
		return nil, err
	}
	o, ok := object.(*networkPolicyMeta)
	if !ok {
		return nil, fmt.Errorf("the cache of NetworkPolicies holds a %T", object)
	}
	return o, nil
}
