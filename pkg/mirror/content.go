package mirror

import (
	"crypto/sha256"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/policy"
)

// OriginLabel is the label of a copy. Its value is the UID of the hub's Namespace kube-system, by which tools commonly
// identify a cluster.
const OriginLabel = "egress-controller/mirrored-from"

// content is what a copy takes from the hub. A label or annotation of Argo CD or Flux, for example, would make that
// tool delete the copy.
type content struct {
	document    string // policy.json
	inheritable bool
}

func contentOf(configMap *corev1.ConfigMap) content {
	return content{configMap.Data[policy.Key], policy.IsInheritable(configMap.Annotations)}
}

// digest identifies a content. The zero digest belongs to none.
type digest [sha256.Size]byte

func (c content) digest() digest {
	return sha256.Sum256(fmt.Appendf(nil, "%t %s", c.inheritable, c.document))
}

// newCopy returns a new copy.
func newCopy(key cache.ObjectName, origin string, c content) *corev1.ConfigMap {
	return c.applyTo(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}, origin)
}

// applyTo returns a ConfigMap with the content and the labels of a copy, and no other data. Labels and annotations of
// others stay.
func (c content) applyTo(configMap *corev1.ConfigMap, origin string) *corev1.ConfigMap {
	updated := configMap.DeepCopy()
	metav1.SetMetaDataLabel(&updated.ObjectMeta, policy.Label, policy.LabelValue)
	metav1.SetMetaDataLabel(&updated.ObjectMeta, OriginLabel, origin)
	if c.inheritable {
		metav1.SetMetaDataAnnotation(&updated.ObjectMeta, policy.InheritAnnotation, "true")
	} else {
		maps.DeleteFunc(updated.Annotations, func(key, _ string) bool { return key == policy.InheritAnnotation })
	}
	updated.Data, updated.BinaryData = map[string]string{policy.Key: c.document}, nil
	return updated
}

// source is a policy ConfigMap of the hub, in reduced form.
type source struct {
	key     cache.ObjectName
	digest  digest
	content *content // nil if it is not cached
	problem string   // why it is not copied; empty if it is
}

// newSource returns the reduced form. It has the content only if mayCache returns true for its size in bytes.
func newSource(full *corev1.ConfigMap, mayCache func(size int) bool) *source {
	s := &source{key: cache.MetaObjectToName(full)}
	c := contentOf(full)
	_, size := policy.Compact(c.document)
	_, hasDocument := full.Data[policy.Key]
	switch {
	case !hasDocument:
		s.problem = "the hub's ConfigMap has no " + policy.Key
	case size > policy.MaxDocumentBytes:
		s.problem = fmt.Sprintf("the hub's %s has %d bytes without white space; at most %d are allowed", policy.Key, size, policy.MaxDocumentBytes)
	default:
		s.digest = c.digest()
		if mayCache(len(c.document)) {
			s.content = &c
		}
	}
	return s
}

// cachedSize returns the bytes of the content that the source holds.
func (s *source) cachedSize() int {
	if s == nil || s.content == nil {
		return 0
	}
	return len(s.content.document)
}

// isEqual reports whether two sources give the same copy.
func (s *source) isEqual(other *source) bool {
	return s != nil && other != nil && s.digest == other.digest && s.problem == other.problem
}

// local is a policy ConfigMap of this cluster, in reduced form: a copy, or one that somebody else made.
type local struct {
	namespace, name, resourceVersion string
	uid                              types.UID
	origin                           string // the value of OriginLabel; empty if the ConfigMap is not a copy
	digest                           digest // zero if the ConfigMap has other data than a copy
}

func newLocal(full *corev1.ConfigMap) *local {
	l := &local{
		namespace: full.Namespace, name: full.Name, resourceVersion: full.ResourceVersion, uid: full.UID,
		origin: full.Labels[OriginLabel],
	}
	_, hasDocument := full.Data[policy.Key]
	if _, hasInherit := full.Annotations[policy.InheritAnnotation]; hasDocument && len(full.Data) == 1 && len(full.BinaryData) == 0 &&
		hasInherit == policy.IsInheritable(full.Annotations) {
		l.digest = contentOf(full).digest()
	}
	return l
}

func (l *local) key() cache.ObjectName { return cache.NewObjectName(l.namespace, l.name) }

// GetObjectMeta returns the metadata that client-go needs to store the ConfigMap.
func (l *local) GetObjectMeta() metav1.Object {
	return &metav1.ObjectMeta{Namespace: l.namespace, Name: l.name, UID: l.uid, ResourceVersion: l.resourceVersion}
}

// GetObjectKind makes local a runtime.Object, because slimlist puts only such objects into a list.
func (l *local) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// DeepCopyObject returns l itself, because l is immutable.
func (l *local) DeepCopyObject() runtime.Object { return l }

// namespace is a Namespace of this cluster, in reduced form.
type namespace struct {
	name, resourceVersion string
	uid                   types.UID
	isTerminating         bool
}

func newNamespace(metadata *metav1.PartialObjectMetadata) *namespace {
	return &namespace{metadata.Name, metadata.ResourceVersion, metadata.UID, metadata.DeletionTimestamp != nil}
}

// GetObjectMeta returns the metadata that client-go needs to store the Namespace.
func (n *namespace) GetObjectMeta() metav1.Object {
	return &metav1.ObjectMeta{Name: n.name, UID: n.uid, ResourceVersion: n.resourceVersion}
}

// GetObjectKind makes namespace a runtime.Object, because slimlist puts only such objects into a list.
func (n *namespace) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// DeepCopyObject returns n itself, because n is immutable.
func (n *namespace) DeepCopyObject() runtime.Object { return n }
