// Package companions keeps objects of another API beside the agent's NetworkPolicies: Istio's ServiceEntries, and
// OpenReports' Reports. It works only where the API server has the CustomResourceDefinition.
package companions

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// ErrNotReady is an error of Kind.Desired: the objects are not known yet. Run then keeps the existing ones and tries
// again soon.
var ErrNotReady = errors.New("not ready")

// errBehind means that the cache lacks an earlier write of this agent.
var errBehind = errors.New("the cache is behind")

// Kind is a kind of companions.
type Kind struct {
	Resource schema.GroupVersionResource
	// Name is the kind, such as ServiceEntry.
	Name string
	// Selector selects the companions that exist, by their labels. No other object has these labels.
	Selector string
	// KeyOf returns the key of a companion: what it belongs to. It returns the zero key if the agent did not make it;
	// Run then leaves it alone.
	KeyOf func(companion metav1.Object) cache.ObjectName
	// Desired returns the companions of a key; none if the key is gone. Each must have the labels of Selector.
	Desired func(ctx context.Context, key cache.ObjectName) ([]*unstructured.Unstructured, error)
}

// Config has what the companions of an agent share.
type Config struct {
	Client       dynamic.Interface
	Discovery    discovery.DiscoveryInterface
	FieldManager string
	CheckLease   func() error // returns an error if another agent may hold the Lease
	Metrics      *Metrics
	Log          *slog.Logger
}

// Companions keeps the objects of one Kind. Run may be called several times, but not concurrently.
type Companions struct {
	Config
	kind Kind

	mu      sync.Mutex
	queue   workqueue.TypedRateLimitingInterface[cache.ObjectName] // nil while Run does not run
	pending map[cache.ObjectName]bool                              // enqueued before Run
	// stored has the content that the API server returned for a written companion, if it is not what was written, by UID.
	// Otherwise a default of the CustomResourceDefinition would look like an edit.
	stored map[string]storedAs
	told   map[cache.ObjectName]string // the last problem that was logged for a key
}

type storedAs struct{ desired, stored string } // digests

// New returns the companions of a kind.
func New(kind Kind, config Config) *Companions {
	return &Companions{Config: config, kind: kind, pending: make(map[cache.ObjectName]bool), stored: make(map[string]storedAs), told: make(map[cache.ObjectName]string)}
}

// Enqueue syncs a key soon.
func (c *Companions) Enqueue(key cache.ObjectName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.queue != nil {
		c.queue.Add(key)
	} else {
		c.pending[key] = true
	}
}

const (
	workers = 8
	// discoveryInterval is the time between two looks for the CustomResourceDefinition.
	discoveryInterval = time.Minute
	// notReadyDelay is the time until another try after ErrNotReady.
	notReadyDelay = time.Second
	maxDelay      = 5 * time.Minute
)

// Run keeps the companions until ctx ends. It waits until the API server has the CustomResourceDefinition, also after
// somebody has deleted it. The API requests of a sync use requestCtx.
func (c *Companions) Run(ctx, requestCtx context.Context) {
	for c.waitForDefinition(ctx) {
		c.run(ctx, requestCtx)
	}
}

// run keeps the companions until ctx ends, or until the API server has lost the CustomResourceDefinition.
func (c *Companions) run(ctx, requestCtx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[cache.ObjectName](100*time.Millisecond, maxDelay)
	queue := workqueue.NewTypedRateLimitingQueue(limiter)
	store, informer := c.newInformer(queue, stop)
	var running sync.WaitGroup
	defer running.Wait()
	defer queue.ShutDown()
	running.Go(func() { informer.RunWithContext(ctx) })
	if !cache.WaitFor(ctx, "", informer.HasSyncedChecker()) {
		return
	}
	c.start(queue)
	defer c.stop()
	for range workers {
		running.Go(func() {
			for ctx.Err() == nil && c.processNext(requestCtx, queue, store) {
			}
		})
	}
	<-ctx.Done()
}

// start makes Enqueue use the queue, and enqueues what is pending.
func (c *Companions) start(queue workqueue.TypedRateLimitingInterface[cache.ObjectName]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = queue
	for key := range c.pending {
		queue.Add(key)
	}
	clear(c.pending)
}

func (c *Companions) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = nil
}

// waitForDefinition waits until the API server has the kind. It logs once that it does not. It returns false if ctx ends
// first.
func (c *Companions) waitForDefinition(ctx context.Context) bool {
	for isLogged := false; ; isLogged = true {
		hasKind, err := c.hasDefinition()
		c.Metrics.ready.WithLabelValues(c.kind.Resource.Resource).Set(boolValue(hasKind))
		if ctx.Err() != nil {
			return false
		}
		if hasKind {
			c.Log.Info("companions begin", "kind", c.kind.Name, "apiVersion", c.kind.Resource.GroupVersion().String())
			return true
		}
		if !isLogged {
			c.Log.Warn("the API server lacks a kind; companions wait for its CustomResourceDefinition",
				"kind", c.kind.Name, "apiVersion", c.kind.Resource.GroupVersion().String(), "error", err)
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(discoveryInterval):
		}
	}
}

func (c *Companions) hasDefinition() (bool, error) {
	list, err := c.Discovery.ServerResourcesForGroupVersion(c.kind.Resource.GroupVersion().String())
	if err != nil {
		return false, err
	}
	for _, resource := range list.APIResources {
		if resource.Name == c.kind.Resource.Resource && resource.Kind == c.kind.Name {
			return true, nil
		}
	}
	return false, nil
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// processNext syncs the next key. It returns false after the queue has been shut down.
func (c *Companions) processNext(ctx context.Context, queue workqueue.TypedRateLimitingInterface[cache.ObjectName], store cache.Indexer) bool {
	key, shutdown := queue.Get()
	if shutdown {
		return false
	}
	defer queue.Done(key)
	err := c.sync(ctx, key, store)
	switch {
	case errors.Is(err, ErrNotReady):
		queue.AddAfter(key, notReadyDelay)
	case errors.Is(err, errBehind):
		queue.AddRateLimited(key)
	case err != nil:
		c.Metrics.errors.WithLabelValues(c.kind.Resource.Resource).Inc()
		c.tell(key, err.Error())
		queue.AddRateLimited(key)
	default:
		c.tell(key, "")
		queue.Forget(key)
	}
	return true
}

// tell logs a problem of a key, unless it equals the last one. An empty problem means that there is none now.
func (c *Companions) tell(key cache.ObjectName, problem string) {
	c.mu.Lock()
	isNew := c.told[key] != problem
	if problem == "" {
		delete(c.told, key)
	} else {
		c.told[key] = problem
	}
	c.mu.Unlock()
	if isNew && problem != "" {
		c.Log.Warn("companion not written, retrying", "kind", c.kind.Name, "namespace", key.Namespace, "name", key.Name, "error", problem)
	}
}

// sync brings the companions of a key in line with the desired ones.
func (c *Companions) sync(ctx context.Context, key cache.ObjectName, store cache.Indexer) error {
	objects, err := store.ByIndex(byKey, key.String())
	if err != nil {
		return err
	}
	existing := make(map[string]*unstructured.Unstructured)
	for _, object := range objects {
		if companion, ok := object.(*unstructured.Unstructured); ok {
			existing[companion.GetName()] = companion
		}
	}
	desired, err := c.kind.Desired(ctx, key)
	if apierrors.HasStatusCause(err, "NamespaceTerminating") {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range desired {
		errs = append(errs, c.write(ctx, existing[d.GetName()], d))
		delete(existing, d.GetName())
	}
	for _, leftover := range existing {
		errs = append(errs, c.delete(ctx, leftover))
	}
	return errors.Join(errs...)
}

// write creates or updates a companion, unless the cached one is equal. current is the cached one, or nil.
func (c *Companions) write(ctx context.Context, current, desired *unstructured.Unstructured) error {
	digest := digestOf(desired)
	if current != nil && c.isEqual(current, desired, digest) {
		return nil
	}
	if err := c.CheckLease(); err != nil {
		return err
	}
	client := c.Client.Resource(c.kind.Resource).Namespace(desired.GetNamespace())
	var written *unstructured.Unstructured
	var err error
	verb := "create"
	if current == nil {
		written, err = client.Create(ctx, desired, metav1.CreateOptions{FieldManager: c.FieldManager})
	} else {
		verb = "update"
		updated := desired.DeepCopy()
		updated.SetResourceVersion(current.GetResourceVersion())
		updated.SetUID(current.GetUID())
		updated.SetAnnotations(mergeMaps(current.GetAnnotations(), desired.GetAnnotations()))
		updated.SetLabels(mergeMaps(current.GetLabels(), desired.GetLabels()))
		written, err = client.Update(ctx, updated, metav1.UpdateOptions{FieldManager: c.FieldManager})
	}
	switch {
	case apierrors.IsConflict(err), current != nil && apierrors.IsNotFound(err), apierrors.IsAlreadyExists(err) && c.isOwn(ctx, desired):
		return errBehind
	case apierrors.IsAlreadyExists(err):
		return fmt.Errorf("%s %s exists without the label %s, so somebody else made it: rename or delete it", c.kind.Name, desired.GetName(), c.kind.Selector)
	case apierrors.HasStatusCause(err, "NamespaceTerminating"), current == nil && apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("%s %s %s: %w", verb, c.kind.Name, desired.GetName(), err)
	}
	c.Metrics.writes.WithLabelValues(c.kind.Resource.Resource, verb).Inc()
	c.mu.Lock()
	defer c.mu.Unlock()
	if stored := digestOf(written); stored != digest {
		c.stored[string(written.GetUID())] = storedAs{digest, stored}
	} else {
		delete(c.stored, string(written.GetUID()))
	}
	return nil
}

// isOwn reports whether the API server has a companion of the agent with the name of desired. It needs no right to get a
// companion.
func (c *Companions) isOwn(ctx context.Context, desired *unstructured.Unstructured) bool {
	found, err := c.Client.Resource(c.kind.Resource).Namespace(desired.GetNamespace()).List(ctx, metav1.ListOptions{
		LabelSelector: c.kind.Selector, FieldSelector: "metadata.name=" + desired.GetName(),
	})
	return err == nil && slices.ContainsFunc(found.Items, func(item unstructured.Unstructured) bool {
		return item.GetName() == desired.GetName() && c.kind.KeyOf(&item) == c.kind.KeyOf(desired)
	})
}

// isEqual reports whether a cached companion is as desired. digest is that of desired.
func (c *Companions) isEqual(current, desired *unstructured.Unstructured, digest string) bool {
	if !equality.Semantic.DeepEqual(current.GetOwnerReferences(), desired.GetOwnerReferences()) {
		return false
	}
	cached, _ := current.Object[digestField].(string)
	if cached == digest {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stored[string(current.GetUID())] == storedAs{digest, cached}
}

func (c *Companions) delete(ctx context.Context, companion *unstructured.Unstructured) error {
	if companion.GetDeletionTimestamp() != nil {
		return nil
	}
	if err := c.CheckLease(); err != nil {
		return err
	}
	err := c.Client.Resource(c.kind.Resource).Namespace(companion.GetNamespace()).Delete(ctx, companion.GetName(),
		metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(companion.GetUID()))})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete %s %s: %w", c.kind.Name, companion.GetName(), err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.stored, string(companion.GetUID()))
	c.Metrics.writes.WithLabelValues(c.kind.Resource.Resource, "delete").Inc()
	return nil
}

func mergeMaps(first, second map[string]string) map[string]string {
	merged := make(map[string]string, len(first)+len(second))
	for _, m := range []map[string]string{first, second} {
		for key, value := range m {
			merged[key] = value
		}
	}
	if len(merged) == 0 {
		return nil
	}
	return merged
}

// Metrics are the metrics of all companions.
type Metrics struct {
	writes *prometheus.CounterVec
	errors *prometheus.CounterVec
	ready  *prometheus.GaugeVec
}

// NewMetrics returns metrics, and registers them.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "egress_agent_companion_writes_total", Help: "Writes of companions, such as ServiceEntries and Reports."}, []string{"resource", "verb"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "egress_agent_companion_errors_total", Help: "Failed syncs of companions."}, []string{"resource"}),
		ready:  prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "egress_agent_companion_ready", Help: "1 if the API server has the CustomResourceDefinition of the companions."}, []string{"resource"}),
	}
	registry.MustRegister(m.writes, m.errors, m.ready)
	return m
}

// byKey is the index of companions by Kind.KeyOf.
const byKey = "key"

// indexers returns the indexers of the cache.
func (c *Companions) indexers() cache.Indexers {
	return cache.Indexers{byKey: func(object any) ([]string, error) {
		companion, err := meta.Accessor(object)
		if err != nil {
			return nil, err
		}
		if key := c.kind.KeyOf(companion); key != (cache.ObjectName{}) {
			return []string{key.String()}, nil
		}
		return nil, nil
	}}
}
