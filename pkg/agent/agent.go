// Package agent keeps one NetworkPolicy beside each policy ConfigMap of a cluster.
//
// This package only connects packages in internal: ranges keeps the table of ranges current, and controller writes the
// NetworkPolicies. Both run only in the leader, the agent that holds the Lease. A standby only keeps its caches
// current.
package agent

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"

	"egress-agent/pkg/agent/internal/controller"
	"egress-agent/pkg/agent/internal/events"
	"egress-agent/pkg/agent/internal/fairqueue"
	"egress-agent/pkg/agent/internal/plan"
	"egress-agent/pkg/agent/internal/ranges"
	"egress-agent/pkg/agent/internal/reporter"
	"egress-agent/pkg/audit"
	"egress-agent/pkg/netpol"
)

// Name is the agent's name towards the API server. It is the user agent, the field manager of writes, the source of
// Events and the name of the Lease.
const Name = plan.AgentName

// The ConfigMap of ranges, which other programs read, and its annotations.
const (
	RangesName          = ranges.ConfigMapName
	RangesKey           = ranges.RangesKey
	CustomKey           = ranges.CustomKey
	ConfirmedAnnotation = ranges.ConfirmedAnnotation
	RefusedAnnotation   = ranges.RefusedAnnotation
	OptionsAnnotation   = ranges.OptionsAnnotation
)

// EventsPerSecond is how many Events the agent writes in a second at most.
const EventsPerSecond = events.PerSecond

// Source is the source of the ranges.
type Source = ranges.Source

// Options control an agent.
type Options struct {
	// Compile has the options of the compiler for every policy.
	Compile netpol.Options
	// Source is the source of the AWS ranges.
	Source Source
	// Namespace is the agent's namespace. It has the Lease and the ConfigMap of ranges.
	Namespace string
	// LeaderElect makes the agent wait for the Lease before it leads. If it is false, the agent leads immediately.
	LeaderElect bool
	// ParentLabels are the keys of the labels with which a Namespace names its parent. The first one that it has counts.
	ParentLabels []string
	// Trail gets an audit entry for each write and each deletion of a NetworkPolicy; it may be nil.
	Trail *audit.Log
	// Companions are the objects of other APIs to keep.
	Companions Companions
	// Workers is how many policies are synced concurrently; at least 1.
	Workers int
	// ChunkPeers is the largest number of CIDRs that a single write changes. Settle is the time between the two writes
	// of a larger change.
	ChunkPeers int
	Settle     time.Duration
	// Metrics is the registry for the agent's metrics.
	Metrics prometheus.Registerer
}

// Companions are kinds of objects that an agent keeps beside NetworkPolicies. By default it keeps none. Objects that open
// names follow Options.Compile.
type Companions struct {
	Reports        bool // OpenReports' Report for each namespace with policies
	ServiceEntries bool // Istio's ServiceEntries for each NetworkPolicy
}

// Agent connects the parts. Run may be called once.
type Agent struct {
	options    Options
	log        *slog.Logger
	lease      *lease
	events     *events.Recorder
	queue      *fairqueue.Queue
	updater    *ranges.Updater
	controller *controller.Controller
	companions companionSet
}

// Clients are the agent's clients of one API server. Events has a client of its own, so that slow Events delay no
// NetworkPolicy.
type Clients struct {
	API      kubernetes.Interface
	Metadata metadata.Interface
	Events   kubernetes.Interface
	Dynamic  dynamic.Interface // may be nil without Options.Companions and Domains
}

// New returns an agent.
func New(clients Clients, options Options, log *slog.Logger) *Agent {
	queue := fairqueue.New(Name, options.Metrics)
	a := &Agent{
		options: options, log: log,
		lease:  newLease(clients.API, options.Namespace, log),
		events: events.New(clients.Events, Name, options.Metrics, func() bool { return queue.Len() > 0 }),
		queue:  queue,
	}
	a.controller = controller.New(clients.API, clients.Metadata, controller.Options{
		Plan:      plan.Options{Compile: options.Compile, ChunkPeers: options.ChunkPeers},
		Settle:    options.Settle,
		Workers:   options.Workers,
		Namespace: options.Namespace, ParentLabels: options.ParentLabels, Trail: options.Trail,
		Reports: options.Companions.Reports, Synced: a.companions.enqueue,
	}, queue, reporter.New(a.events, options.Metrics, log), a.lease.check, log)
	a.companions = a.newCompanions(clients)
	a.updater = ranges.New(clients.API, options.Source, ranges.Options{
		Namespace: options.Namespace, FieldManager: Name, AgentOptions: options.Compile.String(),
	}, ranges.Hooks{
		Publish: a.controller.Publish,
		Report: func(ctx context.Context, reason, message string) {
			a.events.Event(a.lease.reference(ctx), corev1.EventTypeWarning, reason, reporter.Truncate(message))
		},
		CheckLease: a.lease.check,
	}, options.Metrics, log)
	return a
}

// Run works until ctx ends, and returns after the last sync has ended. It returns nil if it stopped because ctx ended.
func (a *Agent) Run(ctx context.Context) error {
	defer a.queue.ShutDown()
	defer a.events.Shutdown()
	go a.events.Run(ctx)

	cacheCtx, stopCaches := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer stopCaches() // also after the loss of the Lease, which does not end ctx
	a.log.Info("waiting for caches")
	running.Go(func() { a.controller.RunCaches(cacheCtx) })
	if !a.options.LeaderElect {
		return a.lead(ctx, context.WithoutCancel(ctx))
	}
	if !a.waitForCaches(ctx) {
		return nil
	}
	return a.lease.elect(ctx, a.lead)
}

// waitForCaches waits until the caches have synced. It returns false if ctx ended first.
func (a *Agent) waitForCaches(ctx context.Context) bool {
	select {
	case <-a.controller.CachesSynced():
		return true
	case <-ctx.Done():
		return false
	}
}

// stopTimeout is how long a stop waits for writes in flight.
const stopTimeout = 10 * time.Second

// lead does the work of the leader until ctx ends. It returns after all syncs in flight have ended. Their API requests
// use requestCtx, which lead cancels stopTimeout after the end of ctx.
func (a *Agent) lead(ctx, requestCtx context.Context) error {
	requestCtx, cancel := context.WithCancel(requestCtx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(stopTimeout, cancel) })()
	a.controller.SetLeader(true)
	defer a.controller.SetLeader(false)

	// The saved ranges must be loaded before the first sync. The caches may still be filling meanwhile.
	firstDelay, err := a.updater.LoadInitial(ctx)
	if err != nil {
		return err
	}
	if !a.waitForCaches(ctx) {
		return nil
	}
	a.controller.RestorePlatform(ctx)
	synced := a.updater.Publish()
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { a.updater.Run(ctx, firstDelay, synced) })
	for _, c := range a.companions.all() {
		running.Go(func() { c.Run(ctx, requestCtx) })
	}
	a.controller.Run(ctx, requestCtx)
	return nil
}

// Ready reports whether the caches have synced, and the role: leading or standby.
func (a *Agent) Ready() (status string, ready bool) {
	select {
	case <-a.controller.CachesSynced():
	default:
		return "waiting for caches", false
	}
	if a.controller.IsLeader() {
		return "leading", true
	}
	return "standby", true
}
