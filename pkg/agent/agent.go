// Package agent keeps one NetworkPolicy beside each policy ConfigMap of a cluster.
//
// Handlers of two informers only put keys on one queue; workers take a key and make the cluster
// match it. What is to be done is decided by plan, from the caches, and done by sync with at most one
// write. The caches lack the specs: a change of many CIDRs, or by other ranges, first reads the NetworkPolicy it is of.
// Beside them stands what may be forgotten at any time without harm, in memory.
package agent

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/internal/filewatch"
	"egress-agent/pkg/netpol"
)

// Name is what the agent calls itself towards the API server: its user agent, the field manager of
// its writes and the source of its Events.
const Name = "egress-agent"

// Options say how an agent works.
type Options struct {
	// Compile shape every policy.
	Compile netpol.Options
	// Source is where the AWS ranges come from.
	Source Source
	// Namespace is the agent's own, with its Lease and the ConfigMap of ranges.
	Namespace string
	// LeaderElect lets one agent of several work, and the others wait.
	LeaderElect bool
	// Workers is how many policies are synced side by side, at least 1.
	Workers int
	// ChunkPeers is the number of CIDRs up to which every change of a policy is one write, and Settle the
	// time between the two writes of a larger change.
	ChunkPeers int
	Settle     time.Duration
	// Metrics is where the agent registers its own.
	Metrics prometheus.Registerer
}

// Agent is made by New and used by one Run.
type Agent struct {
	client      kubernetes.Interface
	eventClient kubernetes.Interface
	options     Options
	log         *slog.Logger

	configMaps      cache.Indexer // of those labelled as policies
	networkPolicies cache.Indexer // of NetworkPolicies, as observed
	informers       []cache.Controller

	// queue holds the keys of NetworkPolicies, whether they exist or are to.
	queue workqueue.TypedRateLimitingInterface[cache.ObjectName]
	order *fairQueue // of the queue
	// ledger counts what the policies of each namespace take together.
	ledger *ledger
	table  atomic.Pointer[awsranges.Table] // in use; nil for none

	cachesSynced chan struct{} // closed when the caches are
	isLeader     atomic.Bool
	// checkLease is an error where the Lease may be another agent's by now; nil where none is elected.
	checkLease func() error

	// Of the goroutine that refreshes the ranges.
	custom       *awsranges.Table // an organisation's own services; nil for none
	published    struct{ aws, custom *awsranges.Table }
	watchedFiles struct{ ranges, custom *filewatch.Files }
	kept         acceptedRanges
	store        rangesStore

	fanout  rollout
	metrics *metrics

	broadcaster record.EventBroadcaster
	slowEvents  *pacedRecorder
	events      recorder // that, but for tests

	mu         sync.Mutex
	remembered map[cache.ObjectName]*policyState // of every policy
	changedAt  map[cache.ObjectName]time.Time    // when a change was seen that has not been synced
	widenedAt  map[cache.ObjectName]time.Time    // since when a NetworkPolicy waits for the second write of a change
}

// byPolicyKey indexes those ConfigMaps whose NetworkPolicy has another name, by its key.
const byPolicyKey = "policyKey"

// New makes an agent. Its Events are written by a client of their own, which may be slower, so that they
// never delay a NetworkPolicy.
func New(client, events kubernetes.Interface, options Options, log *slog.Logger) *Agent {
	order := newFairQueue()
	a := &Agent{
		client: client, eventClient: events, options: options, log: log,
		queue:        newQueue(options.Metrics, order),
		order:        order,
		ledger:       newLedger(),
		store:        rangesStore{client: client, namespace: options.Namespace, options: options.Compile.String()},
		cachesSynced: make(chan struct{}),
		checkLease:   func() error { return nil },
		metrics:      newMetrics(options.Metrics, options.Source.Feed.Now),
		broadcaster:  record.NewBroadcaster(),
		remembered:   make(map[cache.ObjectName]*policyState),
		changedAt:    make(map[cache.ObjectName]time.Time),
		widenedAt:    make(map[cache.ObjectName]time.Time),
	}
	a.slowEvents = newSlowRecorder(a.broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: Name}), a.metrics.eventsDropped, func() bool { return a.queue.Len() > 0 })
	a.events = a.slowEvents
	a.watchPolicies()
	return a
}

// Run works until the context ends, and returns when the last sync has. A nil error is a clean stop.
func (a *Agent) Run(ctx context.Context) error {
	defer a.queue.ShutDown()
	defer a.broadcaster.Shutdown()
	a.broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: a.eventClient.CoreV1().Events("")})
	go a.slowEvents.run(ctx)

	watching, stopWatching := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer stopWatching() // also where the Lease is lost, which does not end ctx
	var synced []cache.DoneChecker
	for _, informer := range a.informers {
		running.Go(func() { informer.RunWithContext(watching) })
		synced = append(synced, informer.HasSyncedChecker())
	}
	a.log.Info("filling caches")
	running.Go(func() {
		if cache.WaitFor(watching, "", synced...) {
			close(a.cachesSynced)
		}
	})
	if !a.options.LeaderElect {
		return a.lead(ctx, context.WithoutCancel(ctx))
	}
	if !a.waitForCaches(ctx) {
		return nil
	}
	return a.elect(ctx)
}

// waitForCaches waits until the caches are full. It is false where the context ended first.
func (a *Agent) waitForCaches(ctx context.Context) bool {
	select {
	case <-a.cachesSynced:
		return true
	case <-ctx.Done():
		return false
	}
}

// stopWithin is how long a stop waits for writes in flight.
const stopWithin = 10 * time.Second

// lead does the work, which only one agent of several does, until the context ends; it returns when what
// was in flight is done. The requests themselves end with requests, and at the latest some time after the
// context.
func (a *Agent) lead(ctx, requests context.Context) error {
	requests, cancel := context.WithCancel(requests)
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(stopWithin, cancel) })()
	a.isLeader.Store(true)
	a.metrics.leader.Set(1)
	defer a.metrics.leader.Set(0)
	defer a.isLeader.Store(false)

	next, err := a.loadInitial(ctx) // while the caches fill, where they are not full
	if err != nil {
		return err
	}
	if !a.waitForCaches(ctx) {
		return nil
	}
	a.publish(a.options.Source.Feed.Table())
	a.enqueueAll()
	var running sync.WaitGroup
	for range a.options.Workers {
		running.Go(func() {
			for ctx.Err() == nil && a.processNext(ctx, requests) {
			}
		})
	}
	running.Go(func() { a.runRefresh(ctx, next) })
	a.log.Info("running", "configmaps", len(a.configMaps.ListKeys()), "workers", a.options.Workers)
	<-ctx.Done()
	a.log.Info("stopping")
	a.queue.ShutDown()
	running.Wait()
	return nil
}

// Ready says whether the caches are full, so that the agent works or could at once, and in a word which of
// both.
func (a *Agent) Ready() (status string, ready bool) {
	select {
	case <-a.cachesSynced:
	default:
		return "filling caches", false
	}
	if a.isLeader.Load() {
		return "leading", true
	}
	return "standby", true
}

// processNext is the only place that retries. It is false when the queue has been shut down.
func (a *Agent) processNext(ctx, requests context.Context) bool {
	key, shutdown := a.queue.Get()
	if shutdown {
		return false
	}
	defer func() {
		a.queue.Done(key)
		a.order.release(key)
	}()
	start := time.Now()
	err := a.sync(requests, key)
	a.metrics.syncs.Observe(time.Since(start).Seconds())
	if err != nil {
		if ctx.Err() == nil {
			a.metrics.countSyncError(err)
			a.log.Warn("will retry", "namespace", key.Namespace, "name", key.Name, "error", err, "failures", a.queue.NumRequeues(key)+1)
		}
		a.queue.AddRateLimited(key)
		return true
	}
	a.queue.Forget(key)
	return true
}
