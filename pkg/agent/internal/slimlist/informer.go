// Package slimlist provides informers that keep a reduced form of each object, and list without holding all full
// objects.
package slimlist

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// Watcher watches one resource in all namespaces. A typed client implements it.
type Watcher interface {
	Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error)
}

// MetadataList is the media type of a list of *metav1.PartialObjectMetadata.
const MetadataList = runtime.ContentTypeProtobuf + ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

// Resource selects the objects of the API that an informer lists and watches.
type Resource struct {
	Name     string // plural and lower case, such as "configmaps"
	Selector string // of labels; empty for all objects
	Accept   string // the media type of a list, such as MetadataList; empty for full objects in protobuf
	Client   rest.Interface
	Watcher  Watcher
}

// NewInformer returns a store of slim(object) for every object, and the controller that fills it and calls handler. It
// needs no shared informer, because there is one handler. indexers may be empty, but not nil.
func NewInformer[T any, P Decodable[T], S runtime.Object](resource Resource, slim func(P) S, handler cache.ResourceEventHandler, indexers cache.Indexers) (cache.Indexer, cache.Controller) {
	store, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: lister{&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
				options.LabelSelector = resource.Selector
				return list(ctx, resource, options, slim)
			},
			WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
				options.LabelSelector = resource.Selector
				return resource.Watcher.Watch(ctx, options)
			},
		}},
		ObjectType: any(P(nil)).(runtime.Object),
		Transform: func(object any) (any, error) {
			if full, ok := object.(P); ok {
				return slim(full), nil
			}
			return object, nil // a listed object, already reduced, or a tombstone
		},
		Handler:  handler,
		Indexers: indexers,
	})
	return store.(cache.Indexer), informer // client-go returns an Indexer if Indexers is not nil
}

// lister is a ListWatch whose List the informer must use.
type lister struct{ *cache.ListWatch }

// IsWatchListSemanticsUnSupported keeps the informer from requesting the list as a stream of events.
func (lister) IsWatchListSemanticsUnSupported() bool { return true }
