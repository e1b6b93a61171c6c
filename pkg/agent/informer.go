package agent

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// watcher is the client of one kind of the API.
type watcher interface {
	Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error)
}

// newInformer returns a cache of what the objects of a resource come to by slim, and what keeps it so. selector is
// that of labels, empty for all. It has one handler, and so needs none of what a shared informer has to serve
// several. indexers may be empty, but not nil.
func newInformer[T any, P wire[T], S runtime.Object](client rest.Interface, resource string, watcher watcher, selector string, slim func(P) S, handler cache.ResourceEventHandler, indexers cache.Indexers) (cache.Indexer, cache.Controller) {
	store, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: lister{&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
				options.LabelSelector = selector
				return listSlim(ctx, client, resource, options, slim)
			},
			WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
				options.LabelSelector = selector
				return watcher.Watch(ctx, options)
			},
		}},
		ObjectType: any(P(nil)).(runtime.Object),
		Transform: func(object any) (any, error) {
			if whole, ok := object.(P); ok {
				return slim(whole), nil
			}
			return object, nil // a slim one of another type, or a tombstone
		},
		Handler:  handler,
		Indexers: indexers,
	})
	return store.(cache.Indexer), informer // it is one where it is given indexers, be there none
}

// lister is a ListWatch whose List is to be used.
type lister struct{ *cache.ListWatch }

// IsWatchListSemanticsUnSupported tells the informer not to have the list streamed as events.
func (lister) IsWatchListSemanticsUnSupported() bool { return true }
