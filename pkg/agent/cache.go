package agent

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"unicode/utf8"

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

// observe makes a NetworkPolicy slim, and counts what it takes of its namespace's pods. It takes its metadata over.
func (a *Agent) observe(policy *networkingv1.NetworkPolicy) *observed {
	if netpol.IsMade(&policy.ObjectMeta) {
		a.ledger.setUsage(policy.Namespace, policy.Name, netpol.UsageOf(policy.Spec))
	} else {
		a.ledger.dropUsage(policy.Namespace, policy.Name)
	}
	return observe(policy)
}

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

// What the cache notes on a ConfigMap, as annotations whose keys the API takes from nobody.
const (
	slimNote   = " slim"   // on each, so that one that was listed is not made slim twice
	digestNote = " digest" // of the policy as it is stored, if the cache does not have it so
	sizeNote   = " size"   // how many bytes the policy has without white space, if the cache has not its text
)

// onlySlim is what the notes of nearly all come to, shared by them. Never to be modified.
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
	hold := a.ledger.addDocument(&slim, size, len(compact))
	switch {
	case !ok:
		slim.BinaryData = binaryHead(configMap.BinaryData)
	case !hold:
		slim.Annotations = map[string]string{slimNote: "", digestNote: netpol.DigestOf(configMap), sizeNote: strconv.Itoa(size)}
	default:
		if compact != document {
			slim.Annotations = map[string]string{slimNote: "", digestNote: netpol.DigestOf(configMap)}
		}
		slim.Data = configMap.Data
		if len(slim.Data) > 1 || compact != document {
			slim.Data = map[string]string{policy.Key: compact}
		}
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

// digestOf is netpol.DigestOf for a ConfigMap of the cache.
func digestOf(configMap *corev1.ConfigMap) string {
	if digest := configMap.Annotations[digestNote]; digest != "" {
		return digest
	}
	return netpol.DigestOf(configMap)
}

// document returns a ConfigMap of the cache with the text of its policy, which is read if the cache does not hold it, or
// the bound that the policy is over.
func (a *Agent) document(ctx context.Context, configMap *corev1.ConfigMap) (*corev1.ConfigMap, policy.Problems, error) {
	if size, err := strconv.Atoi(configMap.Annotations[sizeNote]); err == nil && size > policy.MaxDocumentBytes {
		return configMap, policy.Problems{{Path: policy.Key, Message: policy.TooLarge(size)}}, nil
	}
	if problems := a.ledger.excess(configMap.Namespace, configMap.Name); problems != nil {
		return configMap, problems, nil
	}
	if configMap.Annotations[sizeNote] == "" {
		return configMap, nil, nil
	}
	stored, err := a.client.CoreV1().ConfigMaps(configMap.Namespace).Get(ctx, configMap.Name, metav1.GetOptions{})
	if err != nil {
		return nil, nil, fmt.Errorf("read ConfigMap %s: %w", configMap.Name, err)
	}
	if stored.UID != configMap.UID || stored.ResourceVersion != configMap.ResourceVersion {
		return nil, nil, fmt.Errorf("the cache does not hold ConfigMap %s as it is yet", configMap.Name)
	}
	full := configMap.DeepCopy()
	full.Data = map[string]string{policy.Key: stored.Data[policy.Key]}
	return full, nil, nil
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
