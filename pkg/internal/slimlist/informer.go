// Package slimlist provides informers that store a reduced form of each object. While they list, they hold at most one
// full object at a time.
package slimlist

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// Watcher watches one resource, in the namespace of Resource. A typed client implements it.
type Watcher interface {
	Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error)
}

// MetadataList is the media type of a list of *metav1.PartialObjectMetadata.
const MetadataList = runtime.ContentTypeProtobuf + ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

// Resource selects the objects of the API that an informer lists and watches.
type Resource struct {
	Name      string // plural and lower case, such as "configmaps"
	Namespace string // empty for all namespaces, and for a resource without namespaces
	Selector  string // a label selector; an empty one selects all objects
	Object    string // the name of the only object; an empty one selects all objects
	Accept    string // the media type of a list, such as MetadataList; if empty, full objects in protobuf
	Client    rest.Interface
	Watcher   Watcher
}

// narrow makes options select the objects of the resource.
func (r Resource) narrow(options *metav1.ListOptions) {
	options.LabelSelector = r.Selector
	if r.Object != "" {
		options.FieldSelector = "metadata.name=" + r.Object
	}
}

// NewInformer returns a store of reduce(object) for every object, and the controller that fills the store and calls
// handler. A shared informer would only be needed for several handlers. indexers may be empty, but not nil.
func NewInformer[T any, P Decodable[T], S runtime.Object](
	resource Resource, reduce func(P) S, handler cache.ResourceEventHandler, indexers cache.Indexers,
) (cache.Indexer, cache.Controller) {
	store, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: lister{&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
				resource.narrow(&options)
				return list(ctx, resource, options, reduce)
			},
			WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
				resource.narrow(&options)
				return resource.Watcher.Watch(ctx, options)
			},
		}},
		ObjectType: any(P(nil)).(runtime.Object),
		Transform: func(object any) (any, error) {
			if full, ok := object.(P); ok {
				return reduce(full), nil
			}
			return object, nil // from list, so already reduced; or a tombstone
		},
		Handler:  handler,
		Indexers: indexers,
	})
	return store.(cache.Indexer), informer // client-go returns a cache.Indexer if Indexers is not nil
}

// lister is a ListWatch that makes the informer call List.
type lister struct{ *cache.ListWatch }

// IsWatchListSemanticsUnSupported returns true, so that the informer does not request the list as a stream of events.
func (lister) IsWatchListSemanticsUnSupported() bool { return true }
