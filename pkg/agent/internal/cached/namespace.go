package cached

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Namespace is a Namespace reduced to its name and labels.
type Namespace struct {
	name, resourceVersion string
	labels                labels.Set
}

// NamespaceOf returns the reduced form.
func NamespaceOf(metadata *metav1.PartialObjectMetadata) *Namespace {
	n := &Namespace{name: share(metadata.Name), resourceVersion: metadata.ResourceVersion}
	if len(metadata.Labels) > 0 {
		n.labels = make(labels.Set, len(metadata.Labels))
		for key, value := range metadata.Labels {
			n.labels[share(key)] = share(value)
		}
	}
	return n
}

// Labels returns the labels. The caller must not modify them.
func (n *Namespace) Labels() labels.Set { return n.labels }

// GetObjectMeta returns the metadata that client-go needs to store the Namespace.
func (n *Namespace) GetObjectMeta() metav1.Object {
	return &metav1.ObjectMeta{Name: n.name, ResourceVersion: n.resourceVersion}
}

// GetObjectKind makes Namespace a runtime.Object, because slimlist puts only such objects into a list.
func (n *Namespace) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// DeepCopyObject returns n itself, because n is immutable.
func (n *Namespace) DeepCopyObject() runtime.Object { return n }
