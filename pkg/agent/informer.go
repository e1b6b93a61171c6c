package agent

import (
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"
)

// newInformer returns a cache of what a kind's objects come to by slim, and what keeps it so. It has one handler,
// and so needs none of what a shared informer has to serve several. indexers may be empty, but not nil.
func newInformer(source cache.ListerWatcher, kind runtime.Object, slim cache.TransformFunc, handler cache.ResourceEventHandler, indexers cache.Indexers) (cache.Indexer, cache.Controller) {
	store, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: source, ObjectType: kind, Handler: handler, Indexers: indexers, Transform: slim,
	})
	return store.(cache.Indexer), informer // it is one where it is given indexers, be there none
}
