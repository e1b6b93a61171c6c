package cached

import (
	"bytes"
	"encoding/hex"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// ConfigMap is a policy ConfigMap reduced to what the agent reads. It takes a third of the space of the full object.
type ConfigMap struct {
	namespace, name, resourceVersion string
	uid                              types.UID
	created                          int64 // epoch seconds
	isPolicy                         bool  // whether it has the label of policies
	isInheritable                    bool  // policy.IsInheritable

	digest   string  // netpol.PolicyDigestOf the stored ConfigMap, as bytes
	size     int     // of the stored policy document without white space, in bytes
	document string  // the policy document without white space; empty unless isCached
	isCached bool    // false if the ConfigMap has no policy document, or if the cache may not hold it
	binary   *[]byte // the head of a policy document in binaryData; nil if data has a document or binaryData has none
}

// ConfigMapOf returns the reduced form. It has the policy document only if mayCache returns true. Both arguments of
// mayCache are bytes: size of the document without white space, cachedSize of the document that the cache would hold.
func ConfigMapOf(full *corev1.ConfigMap, mayCache func(configMap *corev1.ConfigMap, size, cachedSize int) bool) *ConfigMap {
	c := &ConfigMap{
		namespace: share(full.Namespace), name: share(full.Name),
		resourceVersion: full.ResourceVersion, uid: types.UID(share(string(full.UID))),
		created: full.CreationTimestamp.Unix(), isPolicy: full.Labels[policy.Label] == policy.LabelValue,
		isInheritable: policy.IsInheritable(full.Annotations),
		digest:        digestBytes(netpol.PolicyDigestOf(full)),
	}
	document, hasDocument := full.Data[policy.Key]
	compact, size := policy.Compact(document)
	c.size = size
	isAllowed := mayCache(full, size, len(compact)) // also without a document, to count the ConfigMap
	switch {
	case !hasDocument:
		c.binary = binaryHead(full.BinaryData)
	case isAllowed:
		c.document, c.isCached = compact, true
	}
	return c
}

// binaryHead returns the first bytes of a policy document in binaryData; nil if binaryData has no such document. The
// compiler derives from these bytes why the document is not in data. For valid UTF-8 it needs none of them.
func binaryHead(binaryData map[string][]byte) *[]byte {
	const headBytes = 64
	binary, ok := binaryData[policy.Key]
	if !ok {
		return nil
	}
	if utf8.Valid(binary) {
		binary = nil
	}
	head := bytes.Clone(binary[:min(len(binary), headBytes)])
	if len(head) > 0 && utf8.Valid(head) {
		head = append(head, 0xff) // as invalid as the bytes that are cut
	}
	return &head
}

// ConfigMap returns a new ConfigMap with all that the reduced form holds.
func (c *ConfigMap) ConfigMap() *corev1.ConfigMap {
	configMap := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Namespace: c.namespace, Name: c.name, UID: c.uid, ResourceVersion: c.resourceVersion,
		CreationTimestamp: metav1.Time{Time: time.Unix(c.created, 0)},
	}}
	if c.isPolicy {
		configMap.Labels = map[string]string{policy.Label: policy.LabelValue}
	}
	if c.isCached {
		configMap.Data = map[string]string{policy.Key: c.document}
	}
	if c.binary != nil {
		configMap.BinaryData = map[string][]byte{policy.Key: *c.binary}
	}
	return configMap
}

// PolicyDigest returns netpol.PolicyDigestOf the stored ConfigMap.
func (c *ConfigMap) PolicyDigest() string { return hex.EncodeToString([]byte(c.digest)) }

// IsInheritable returns policy.IsInheritable of the stored ConfigMap.
func (c *ConfigMap) IsInheritable() bool { return c.isInheritable }

// DocumentSize returns the size of the stored policy document without white space, in bytes.
func (c *ConfigMap) DocumentSize() int { return c.size }

// HasDocument reports whether ConfigMap returns the stored policy document, apart from white space. It returns true if
// no document is stored.
func (c *ConfigMap) HasDocument() bool { return c.isCached || c.size == 0 }

// GetObjectMeta returns the metadata of the reduced form, which client-go needs to store the ConfigMap.
func (c *ConfigMap) GetObjectMeta() metav1.Object {
	return &metav1.ObjectMeta{
		Namespace: c.namespace, Name: c.name, UID: c.uid, ResourceVersion: c.resourceVersion,
		CreationTimestamp: metav1.Time{Time: time.Unix(c.created, 0)},
	}
}

// GetObjectKind makes ConfigMap a runtime.Object, because slimlist puts only such objects into a list.
func (c *ConfigMap) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// DeepCopyObject returns c itself, because c is immutable.
func (c *ConfigMap) DeepCopyObject() runtime.Object { return c }
