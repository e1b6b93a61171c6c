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

	digest   string  // netpol.PolicyDigestOf the stored ConfigMap, as bytes
	size     int     // bytes without white space of the stored policy document
	document string  // without white space, if isHeld
	isHeld   bool    // false if there is no document, or if the cache may not hold it
	binary   *[]byte // the head of a policy document in binaryData; nil if there is none
}

// ConfigMapOf returns the reduced form. It holds the policy document only if mayHold allows that.
func ConfigMapOf(full *corev1.ConfigMap, mayHold func(configMap *corev1.ConfigMap, size, text int) bool) *ConfigMap {
	c := &ConfigMap{
		namespace: share(full.Namespace), name: share(full.Name), resourceVersion: full.ResourceVersion, uid: types.UID(share(string(full.UID))),
		created: full.CreationTimestamp.Unix(), isPolicy: full.Labels[policy.Label] == policy.LabelValue,
		digest: digestBytes(netpol.PolicyDigestOf(full)),
	}
	document, ok := full.Data[policy.Key]
	compact, size := policy.Compact(document)
	c.size = size
	hold := mayHold(full, size, len(compact))
	switch {
	case !ok:
		c.binary = binaryHead(full.BinaryData)
	case hold:
		c.document, c.isHeld = compact, true
	}
	return c
}

// binaryHead returns the head of a policy document in binaryData. From it the compiler sees why the document is there.
func binaryHead(data map[string][]byte) *[]byte {
	const headBytes = 64
	binary, ok := data[policy.Key]
	if !ok {
		return nil
	}
	if utf8.Valid(binary) {
		binary = nil
	}
	head := bytes.Clone(binary[:min(len(binary), headBytes)])
	return &head
}

// ConfigMap returns a new ConfigMap with what the reduced form holds.
func (c *ConfigMap) ConfigMap() *corev1.ConfigMap {
	configMap := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Namespace: c.namespace, Name: c.name, UID: c.uid, ResourceVersion: c.resourceVersion, CreationTimestamp: metav1.Time{Time: time.Unix(c.created, 0)},
	}}
	if c.isPolicy {
		configMap.Labels = map[string]string{policy.Label: policy.LabelValue}
	}
	if c.isHeld {
		configMap.Data = map[string]string{policy.Key: c.document}
	}
	if c.binary != nil {
		configMap.BinaryData = map[string][]byte{policy.Key: *c.binary}
	}
	return configMap
}

// PolicyDigest returns netpol.PolicyDigestOf the stored ConfigMap.
func (c *ConfigMap) PolicyDigest() string { return hex.EncodeToString([]byte(c.digest)) }

// DocumentSize returns how many bytes without white space the stored policy document has.
func (c *ConfigMap) DocumentSize() int { return c.size }

// HasDocument reports whether ConfigMap returns the policy document as it is stored, apart from white space.
func (c *ConfigMap) HasDocument() bool { return c.isHeld || c.size == 0 }

// GetObjectMeta returns the metadata by which client-go stores the ConfigMap.
func (c *ConfigMap) GetObjectMeta() metav1.Object {
	return &metav1.ObjectMeta{
		Namespace: c.namespace, Name: c.name, UID: c.uid, ResourceVersion: c.resourceVersion, CreationTimestamp: metav1.Time{Time: time.Unix(c.created, 0)},
	}
}

// GetObjectKind makes it a runtime.Object, of which a list of the API consists.
func (c *ConfigMap) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// DeepCopyObject returns c itself, which nobody modifies.
func (c *ConfigMap) DeepCopyObject() runtime.Object { return c }
