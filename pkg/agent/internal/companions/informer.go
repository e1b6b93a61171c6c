package companions

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// digestField is a field of a reduced companion: the digest of its content. No CustomResourceDefinition has this field,
// so the API server stores none.
const digestField = "egress-agent-digest"

// pageSize is the number of companions in a page of a list.
const pageSize = 200

// newInformer returns a store of the existing companions in reduced form, and the informer that fills the store and
// enqueues the key of each companion that changes. It calls stop if the API server has no such kind any more.
func (c *Companions) newInformer(queue workqueue.TypedRateLimitingInterface[cache.ObjectName], stop func()) (cache.Indexer, cache.Controller) {
	resource := c.Client.Resource(c.kind.Resource)
	enqueue := func(object any) {
		if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = tombstone.Obj
		}
		companion, err := meta.Accessor(object)
		if err != nil {
			return
		}
		if key := c.kind.KeyOf(companion); key != (cache.ObjectName{}) {
			queue.Add(key)
		}
	}
	store, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: pagedLister{&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
				options.LabelSelector, options.Limit, options.ResourceVersion = c.kind.Selector, pageSize, ""
				all := &unstructured.UnstructuredList{}
				for {
					page, err := resource.List(ctx, options)
					if apierrors.IsNotFound(err) {
						stop()
					}
					if err != nil {
						return nil, err
					}
					for i := range page.Items {
						all.Items = append(all.Items, *reduce(&page.Items[i]))
					}
					all.Object = page.Object
					all.SetContinue("")
					if options.Continue = page.GetContinue(); options.Continue == "" {
						return all, nil
					}
				}
			},
			WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
				options.LabelSelector = c.kind.Selector
				return resource.Watch(ctx, options)
			},
		}},
		ObjectType: &unstructured.Unstructured{},
		Transform: func(object any) (any, error) {
			if companion, ok := object.(*unstructured.Unstructured); ok {
				return reduce(companion), nil
			}
			return object, nil
		},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc: enqueue, UpdateFunc: func(_, object any) { enqueue(object) }, DeleteFunc: enqueue,
		},
		Indexers: c.indexers(),
	})
	return store.(cache.Indexer), informer // client-go returns a cache.Indexer if Indexers is not nil
}

// pagedLister is a ListWatch that makes the informer call List, which reads page by page.
type pagedLister struct{ *cache.ListWatch }

// IsWatchListSemanticsUnSupported returns true, so that the informer does not request the list as a stream of events.
func (pagedLister) IsWatchListSemanticsUnSupported() bool { return true }

// reduce returns the metadata of a companion, with the digest of its content. It leaves a reduced companion as it is.
func reduce(companion *unstructured.Unstructured) *unstructured.Unstructured {
	if _, isReduced := companion.Object[digestField]; isReduced {
		return companion
	}
	reduced := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": companion.GetAPIVersion(), "kind": companion.GetKind(), digestField: digestOf(companion),
	}}
	reduced.SetNamespace(companion.GetNamespace())
	reduced.SetName(companion.GetName())
	reduced.SetUID(companion.GetUID())
	reduced.SetResourceVersion(companion.GetResourceVersion())
	reduced.SetOwnerReferences(companion.GetOwnerReferences())
	reduced.SetDeletionTimestamp(companion.GetDeletionTimestamp())
	reduced.SetLabels(companion.GetLabels())
	reduced.SetAnnotations(companion.GetAnnotations())
	return reduced
}

// digestOf returns a digest of everything but the kind, the metadata and the status.
func digestOf(companion *unstructured.Unstructured) string {
	content := make(map[string]any, len(companion.Object))
	for field, value := range companion.Object {
		switch field {
		case "apiVersion", "kind", "metadata", "status":
		default:
			content[field] = value
		}
	}
	encoded, err := json.Marshal(content) // with sorted fields
	if err != nil {
		return ""
	}
	digest := sha256.Sum256(encoded)
	return hex.EncodeToString(digest[:])
}
