// Package mirror copies the policy ConfigMaps of another cluster, the hub, into the namespaces of the same name that
// exist in this cluster.
//
// A copy has the label OriginLabel, and the mirror never touches a ConfigMap without it. It acts only on complete lists
// of the hub: while the hub is away, the last copies stay. Before it deletes a copy, it asks the hub for that very policy,
// and a brake holds many deletions.
//
// The mirror needs no leader election. Each update and each deletion has the resourceVersion that the mirror has seen, and the
// record of deletions is in the cluster. So two mirrors at once do the same as one.
package mirror

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"egress-agent/pkg/internal/slimlist"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// Name is the mirror's name towards both API servers: the user agent, the field manager of writes, and the name of the
// ConfigMap in which it records deletions.
const Name = "egress-mirror"

// Options control a mirror.
type Options struct {
	// HubKubeconfig is the file with the server and the credentials of the hub.
	HubKubeconfig string
	// Namespace is the mirror's own namespace. The mirror copies nothing into it.
	Namespace string
	// AcceptDeletions is the token of the held deletions to do; empty accepts none.
	AcceptDeletions string
	// Metrics is the registry for the mirror's metrics.
	Metrics prometheus.Registerer
}

// Clients are the clients of this cluster.
type Clients struct {
	API      kubernetes.Interface
	Metadata metadata.Interface
}

// Mirror connects the parts. Run may be called once.
type Mirror struct {
	options Options
	client  kubernetes.Interface
	log     *slog.Logger
	hub     *hub
	sources *sources
	results *results

	locals     cache.Indexer // of *local: the policy ConfigMaps of this cluster
	namespaces cache.Indexer // of *namespace
	informers  []cache.Controller
	queue      workqueue.TypedRateLimitingInterface[cache.ObjectName]
	deleter    *deleter

	synced      chan struct{} // closed when the informers have listed all objects
	firstListed chan struct{} // closed after the first complete list of the hub
	isListed    atomic.Bool
}

const (
	// workers is how many policies are copied concurrently. They mostly wait for the API server.
	workers = 8
	// The wait before a failed policy is tried again. It doubles with each failure.
	minRetryDelay = 100 * time.Millisecond
	maxRetryDelay = 5 * time.Minute
	// stopTimeout is how long a stop waits for requests in flight.
	stopTimeout = 10 * time.Second
)

// New returns a mirror.
func New(clients Clients, options Options, log *slog.Logger) *Mirror {
	m := &Mirror{
		options: options, client: clients.API, log: log,
		sources: &sources{}, results: newResults(options.Metrics, log),
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[cache.ObjectName](minRetryDelay, maxRetryDelay)),
		synced: make(chan struct{}), firstListed: make(chan struct{}),
	}
	m.hub = &hub{
		kubeconfig: options.HubKubeconfig, sources: m.sources, isSelf: m.isSelf, listed: m.hubListed, changed: m.queue.Add,
		log: log, reload: make(chan struct{}, 1),
	}
	m.deleter = newDeleter(m)
	m.newInformers(clients)
	return m
}

func (m *Mirror) newInformers(clients Clients) {
	core := clients.API.CoreV1()
	var locals, namespaces cache.Controller
	m.locals, locals = slimlist.NewInformer(slimlist.Resource{
		Name: "configmaps", Selector: policy.Label + "=" + policy.LabelValue,
		Client: core.RESTClient(), Watcher: core.ConfigMaps(metav1.NamespaceAll),
	}, newLocal, handlerOf(func(object metav1.Object) {
		m.queue.Add(cache.NewObjectName(object.GetNamespace(), object.GetName()))
	}), cache.Indexers{})
	m.namespaces, namespaces = slimlist.NewInformer(slimlist.Resource{
		Name: "namespaces", Accept: slimlist.MetadataList, Client: core.RESTClient(),
		Watcher: clients.Metadata.Resource(corev1.SchemeGroupVersion.WithResource("namespaces")),
	}, newNamespace, handlerOf(func(object metav1.Object) {
		for _, key := range m.sources.keysIn(object.GetName()) {
			m.queue.Add(key)
		}
	}), cache.Indexers{})
	m.informers = []cache.Controller{locals, namespaces}
}

// handlerOf returns a handler that calls handle with each object that appears, changes or disappears.
func handlerOf(handle func(metav1.Object)) cache.ResourceEventHandler {
	handleAny := func(object any) {
		if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = tombstone.Obj
		}
		if accessor, err := meta.Accessor(object); err == nil {
			handle(accessor)
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: handleAny, UpdateFunc: func(_, object any) { handleAny(object) }, DeleteFunc: handleAny,
	}
}

// Run works until ctx ends, and returns after the last write has ended.
func (m *Mirror) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	defer m.queue.ShutDown()
	requestCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer context.AfterFunc(ctx, func() { time.AfterFunc(stopTimeout, cancel) })()

	m.log.Info("waiting for caches")
	var checkers []cache.DoneChecker
	for _, informer := range m.informers {
		running.Go(func() { informer.RunWithContext(ctx) })
		checkers = append(checkers, informer.HasSyncedChecker())
	}
	if !cache.WaitFor(ctx, "", checkers...) {
		return
	}
	close(m.synced)
	running.Go(func() { m.hub.run(ctx) })
	select {
	case <-m.firstListed:
	case <-ctx.Done():
		return
	}
	for range workers {
		running.Go(func() {
			for ctx.Err() == nil && m.processNext(requestCtx) {
			}
		})
	}
	m.deleter.run(ctx, requestCtx)
}

// hubListed takes over a complete list of the hub.
func (m *Mirror) hubListed(changed []cache.ObjectName) {
	m.results.hubListed(time.Now())
	for _, key := range changed {
		m.queue.Add(key)
	}
	m.deleter.wake()
	if !m.isListed.Swap(true) {
		close(m.firstListed)
	}
}

// isSelf reports whether a cluster's identity is that of this cluster.
func (m *Mirror) isSelf(origin string) bool {
	system := m.namespaceOf(metav1.NamespaceSystem)
	return system != nil && string(system.uid) == origin
}

// namespaceOf returns a Namespace of this cluster, or nil.
func (m *Mirror) namespaceOf(name string) *namespace {
	object, _, err := m.namespaces.GetByKey(name)
	if err != nil {
		return nil
	}
	found, _ := object.(*namespace)
	return found
}

// localOf returns the policy ConfigMap of this cluster with this key, or nil.
func (m *Mirror) localOf(key cache.ObjectName) *local {
	object, _, err := m.locals.GetByKey(key.String())
	if err != nil {
		return nil
	}
	found, _ := object.(*local)
	return found
}

// isExempt reports whether the mirror copies nothing into a namespace: that of the cluster's or the programs' own Pods.
func (m *Mirror) isExempt(namespace string) bool {
	return netpol.IsExempt(namespace, m.options.Namespace)
}

// Ready reports whether the caches have synced, and the hub was listed once. If the hub is away later, the copies stay
// and the mirror stays ready.
func (m *Mirror) Ready() (status string, ready bool) {
	select {
	case <-m.synced:
	default:
		return "waiting for caches", false
	}
	if !m.isListed.Load() {
		return "waiting for the first complete list of the hub", false
	}
	return "mirroring", true
}
