// Package controller keeps the NetworkPolicies of a cluster in line with its policy ConfigMaps.
//
// Handlers of informers only put keys on one queue. Workers take a key and sync it: plan decides from the caches
// what to do, and sync does it with at most one write. The caches have no specs. For a large change, or a change of the
// ranges, sync therefore first reads the current NetworkPolicy.
package controller

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/agent/internal/apiserver"
	"egress-agent/pkg/agent/internal/cached"
	"egress-agent/pkg/agent/internal/clock"
	"egress-agent/pkg/agent/internal/fairqueue"
	"egress-agent/pkg/agent/internal/governance"
	"egress-agent/pkg/agent/internal/ledger"
	"egress-agent/pkg/agent/internal/plan"
	"egress-agent/pkg/agent/internal/reporter"
	"egress-agent/pkg/agent/internal/rollout"
	"egress-agent/pkg/agent/internal/tracker"
	"egress-agent/pkg/audit"
	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/status"
)

// Options control a controller.
type Options struct {
	Plan plan.Options
	// Settle is the time between the two writes of a large change.
	Settle time.Duration
	// Workers is how many policies are synced concurrently; at least 1.
	Workers int
	// Namespace is the agent's namespace. The agent applies no policy in it.
	Namespace string
	// ParentLabels are the keys of the labels with which a Namespace names its parent. The first one that it has counts.
	ParentLabels []string
	// Trail gets an audit entry for each write and each deletion; it may be nil.
	Trail *audit.Log
	// Reports makes the controller keep what Report returns.
	Reports bool
	// Synced is called after each sync, with its key; it may be nil.
	Synced func(key cache.ObjectName)
}

// Controller syncs policies. Run may be called once.
type Controller struct {
	options Options
	api     api
	caches  *caches
	queue   *fairqueue.Queue // of the keys of NetworkPolicies that exist or that a policy needs
	ledger  *ledger.Ledger
	tracker *tracker.Tracker
	// governance knows the platform documents, and the documents of each namespace.
	governance *governance.Governance
	snapshots  *snapshots
	rollout    rollout.Rollout
	reporter   *reporter.Reporter
	log        *slog.Logger
	now        func() time.Time // the time of day, by which destinations expire
	apiServer  *apiserver.Addresses
	results    *results

	table    atomic.Pointer[awsranges.Table] // the current table; nil before the first Publish
	isLeader atomic.Bool
}

// New returns a controller that writes only while checkLease returns nil.
func New(
	client kubernetes.Interface, metadataClient metadata.Interface, options Options, queue *fairqueue.Queue,
	reporter *reporter.Reporter, checkLease func() error, log *slog.Logger,
) *Controller {
	c := &Controller{
		options:  options,
		api:      api{client: client, checkLease: checkLease},
		queue:    queue,
		ledger:   ledger.New(),
		tracker:  tracker.New(options.Settle),
		reporter: reporter,
		log:      log,
		now:      clock.New().Now,

		apiServer:  &apiserver.Addresses{Hold: options.Settle},
		results:    newResults(options.Reports),
		governance: governance.New(options.Namespace, options.Plan.Compile, options.ParentLabels),
	}
	c.snapshots = newSnapshots(client, options.Namespace, c.governance, checkLease, reporter)
	c.caches = newCaches(client, metadataClient, options.Namespace, c.ledger, options.Reports, handlers{
		configMaps: c.configMapHandler(), networkPolicies: c.networkPolicyHandler(),
		platforms: c.platformHandler(), namespaces: c.namespaceHandler(),
		service: c.serviceHandler(), endpoints: c.endpointsHandler(),
	})
	reporter.SetNextExpiry(c.tracker.NextExpiry)
	return c
}

// RunCaches fills the caches and keeps them current until ctx ends.
func (c *Controller) RunCaches(ctx context.Context) { c.caches.run(ctx) }

// CachesSynced returns a channel that is closed when the caches have synced.
func (c *Controller) CachesSynced() <-chan struct{} { return c.caches.synced }

// SetLeader records whether this agent leads. The handlers enqueue keys only in a leader.
func (c *Controller) SetLeader(isLeader bool) {
	c.isLeader.Store(isLeader)
	c.reporter.SetLeader(isLeader)
}

// IsLeader reports whether this agent leads.
func (c *Controller) IsLeader() bool { return c.isLeader.Load() }

// Run syncs every policy, and then each policy that changes, until ctx ends. It returns after the last sync has ended.
// The API requests of a sync use requestCtx.
func (c *Controller) Run(ctx, requestCtx context.Context) {
	c.enqueueAll()
	c.reportDocuments()
	var running sync.WaitGroup
	running.Go(func() { c.snapshots.run(ctx, requestCtx, c.countDocuments) })
	for range c.options.Workers {
		running.Go(func() {
			for ctx.Err() == nil && c.processNext(ctx, requestCtx) {
			}
		})
	}
	c.log.Info("running", "configmaps", c.caches.configMapCount(), "workers", c.options.Workers)
	<-ctx.Done()
	c.log.Info("stopping")
	c.queue.ShutDown()
	running.Wait()
}

// Publish makes a table current, and enqueues the policies that name a service-region whose prefixes changed. It
// returns a channel that is closed when all these policies have been synced.
func (c *Controller) Publish(table *awsranges.Table) (synced <-chan struct{}) {
	change := table.Diff(c.table.Load())
	c.table.Store(table)
	c.reporter.TablePublished(table, change)
	keys := c.keysAffected(table, change)
	synced = c.rollout.Start(table, keys, func(written, waiting int) {
		c.reporter.RolloutFinished(table, change, len(keys), written, waiting)
	})
	for _, key := range keys {
		c.queue.Add(key)
	}
	return synced
}

// keysAffected returns the keys of the synced policies that a change of the table may affect. A policy that no sync has
// parsed is on the queue, or in a sync that compares the table again before it ends.
func (c *Controller) keysAffected(table *awsranges.Table, change awsranges.Change) []cache.ObjectName {
	namespaces := c.governance.TablePublished(table, change.ServiceRegions)
	if change.NamesChanged {
		c.platformChanged(c.governance.Reevaluate(table))
		return append(c.caches.policyKeys(), c.governance.Keys()...)
	}
	keys := c.tracker.KeysNaming(change.ServiceRegions)
	if len(namespaces) == 0 {
		return keys
	}
	affected := sets.New(keys...)
	for _, namespace := range namespaces {
		affected.Insert(c.policyKeysIn(namespace)...)
		affected.Insert(c.governance.InheritedKeys(namespace)...)
	}
	return affected.UnsortedList()
}

// processNext syncs the next key. It is the only place that retries. It returns false after the queue has been shut
// down.
func (c *Controller) processNext(ctx, requestCtx context.Context) bool {
	key, shutdown := c.queue.Get()
	if shutdown {
		return false
	}
	defer c.queue.Done(key)
	start := time.Now()
	err := c.sync(requestCtx, key)
	c.reporter.Synced(time.Since(start))
	if err == nil {
		c.queue.Forget(key)
		if c.options.Synced != nil {
			c.options.Synced(key)
		}
		return true
	}
	if ctx.Err() == nil {
		c.reporter.SyncFailed(key, err, c.queue.NumRequeues(key)+1)
	}
	c.queue.AddRateLimited(key)
	return true
}

// sync brings the NetworkPolicy of this key in line with its ConfigMap. After an error the caller must retry.
//
// It takes the time of the change before it reads the caches. The time of a later change then stays for the next sync.
func (c *Controller) sync(ctx context.Context, key cache.ObjectName) error {
	table := c.table.Load()
	changedAt := c.tracker.TakeChangedAt(key)
	written, err := c.syncWith(ctx, key, table)
	if err != nil {
		c.tracker.RestoreChangedAt(key, changedAt)
		return err
	}
	if written && !changedAt.IsZero() {
		c.reporter.Applied(c.now().Sub(changedAt))
	}
	c.rollout.PolicySynced(key, table, written)
	return nil
}

// syncWith syncs with this table, and reports whether it has written the NetworkPolicy.
func (c *Controller) syncWith(
	ctx context.Context, key cache.ObjectName, table *awsranges.Table,
) (written bool, err error) {
	current, isSpecKnown, err := c.caches.networkPolicy(key)
	if err != nil {
		return false, err
	}
	source, younger, err := c.caches.configMapOf(key, current)
	if err != nil {
		return false, err
	}
	if netpol.IsReserved(key.Name) {
		if source != nil {
			c.warnReserved(key, append(younger, source.ConfigMap()))
		}
		return c.syncPlatforms(ctx, key, table, current, isSpecKnown)
	}
	if source == nil {
		return false, c.removeOrphan(ctx, key, current)
	}
	configMap := source.ConfigMap()
	for _, conflicting := range younger {
		c.warn(key, conflicting, conflicting.Name, plan.ReasonNameConflict, fmt.Sprintf(
			"NetworkPolicy %s belongs to the older ConfigMap %s, so this policy is not applied; rename this ConfigMap",
			key.Name, configMap.Name))
	}
	inputs := c.inputs(table, source)
	if netpol.IsExempt(key.Namespace, c.options.Namespace) {
		c.reportDecision(key, configMap, plan.Decide(netpol.Assess(configMap, nil, inputs), nil, false, c.options.Plan))
		return false, c.deleteIfMade(ctx, key, current)
	}
	inputs.Guardrails = c.governance.Guardrails(key.Namespace, table)
	c.warnOfInheritance(key, configMap)
	return c.apply(ctx, key, source, configMap, current, isSpecKnown, inputs)
}

func (c *Controller) inputs(table *awsranges.Table, source *cached.ConfigMap) netpol.Inputs {
	now := c.now()
	apiServer, _ := c.apiServer.At(now)
	return netpol.Inputs{
		Table: table, Options: c.options.Plan.Compile, Now: now, APIServer: apiServer, AgentNamespace: c.options.Namespace,
		PolicyDigest: source.PolicyDigest(),
	}
}

// apply decides about a policy, writes and reports. Events are about the object about. written reports whether apply
// has written the NetworkPolicy.
func (c *Controller) apply(
	ctx context.Context, key cache.ObjectName, source *cached.ConfigMap, about reporter.Object,
	current *netpol.Current, isSpecKnown bool, inputs netpol.Inputs,
) (written bool, err error) {
	configMap := source.ConfigMap()
	if current != nil && !isSpecKnown {
		if current, err = c.loadSpec(ctx, configMap, inputs.Origin, current); err != nil {
			return false, err
		}
	}
	assessment, d, err := c.decide(ctx, key, source, current, inputs)
	if err != nil {
		return false, err
	}
	c.enqueueNextChange(key, assessment)
	if delay := c.tracker.StepDelay(key, d.Step, c.now()); delay > 0 {
		c.queue.AddAfter(key, delay)
		return false, nil
	}
	isTenants := inputs.Origin.Kind == ""
	if inputs.Origin.Kind == netpol.Inherited && d.Warning == plan.ReasonInvalid {
		d.Warning = "" // the policy itself has this Warning
	}
	if d.Desired != nil {
		if isTenants && assessment.Cause == netpol.CauseMissing && c.wasInPlace(key, configMap) {
			if exists, err := c.api.stillExists(ctx, key, configMap); err != nil || !exists {
				return false, err
			}
		}
		if written, err = c.write(ctx, key, current, assessment.Cause, d); err != nil || !written {
			return false, err
		}
	}
	if assessment.State != netpol.NameConflict {
		c.tracker.SetOwnerUID(key, configMap.UID)
	}
	if isTenants {
		c.reporter.StateChanged(c.tracker.SetState(key, assessment.State), assessment.State)
		if c.options.Reports {
			c.results.set(key, status.ResultsOf(configMap.Name, assessment, inputs.Now))
		}
	}
	c.reportDecision(key, about, d)
	if isTenants {
		c.reportExpiries(key, about, assessment)
	}
	return written, nil
}

// enqueueNextChange enqueues a policy for the time at which its rules change by themselves, or at which a Warning about
// that is due. The queue has one timer for each key, and keeps the earliest time.
func (c *Controller) enqueueNextChange(key cache.ObjectName, assessment *netpol.Assessment) {
	c.tracker.SetNextExpiry(key, assessment.NextExpiry)
	now := c.now()
	next := assessment.NextChange
	if _, changes := c.apiServer.At(now); plan.OpensAPIServer(assessment.Policy, assessment.LastPolicy) && !changes.IsZero() && (next.IsZero() || changes.Before(next)) {
		next = changes
	}
	if !next.IsZero() {
		c.queue.AddAfter(key, next.Sub(now))
	}
}

// reportExpiries records the Warnings about destinations that have expired or expire soon.
func (c *Controller) reportExpiries(key cache.ObjectName, about reporter.Object, assessment *netpol.Assessment) {
	for _, warning := range []struct{ topic, reason, text string }{ // no ConfigMap can have the name of a topic
		{" expired", plan.ReasonExpired, assessment.ExpiredText()},
		{" expires", plan.ReasonExpiring, assessment.ExpiringText()},
	} {
		if warning.text == "" {
			c.tracker.RecordWarning(key, warning.topic, "")
		} else {
			c.warn(key, about, warning.topic, warning.reason, warning.text)
		}
	}
}

// write writes the desired NetworkPolicy of a decision. written is false if the namespace is being deleted or is gone.
func (c *Controller) write(
	ctx context.Context, key cache.ObjectName, current *netpol.Current, cause netpol.Cause, d plan.Decision,
) (written bool, err error) {
	entry, err := c.auditEntry(ctx, current, d.Desired)
	if err != nil {
		return false, err
	}
	networkPolicy, verb, err := c.api.write(ctx, current, d.Desired)
	if err != nil || networkPolicy == nil {
		return false, err
	}
	c.auditWrite(entry, cause, d)
	c.ledger.SetUsage(key.Namespace, key.Name, netpol.UsageOf(d.Desired.Spec))
	if d.Step != netpol.Widen { // after Widen another sync must follow
		c.tracker.SetWrittenVersion(key, networkPolicy.ResourceVersion)
	}
	c.reporter.Written(key, verb, cause, d.Step)
	if netpol.SpecDigestOf(networkPolicy.Spec) != d.Desired.Annotations[netpol.SpecDigestAnnotation] {
		// Later syncs compare only the generation, so only this check finds the difference.
		return false, fmt.Errorf(
			"the API server stored another spec for NetworkPolicy %s than %s wrote: look for a mutating admission webhook",
			key.Name, plan.AgentName)
	}
	return true, nil
}

// wasInPlace reports whether this process has seen a NetworkPolicy that was made from the ConfigMap.
func (c *Controller) wasInPlace(key cache.ObjectName, configMap *corev1.ConfigMap) bool {
	return c.tracker.OwnerUID(key) == configMap.UID
}

// reportDecision records the Events of a decision. It does not repeat a Warning that equals the last Warning.
func (c *Controller) reportDecision(key cache.ObjectName, about reporter.Object, d plan.Decision) {
	if d.Warning == "" {
		c.tracker.RecordWarning(key, about.GetName(), "")
	} else {
		problem := d.Problem
		if about.GetNamespace() != key.Namespace {
			problem = "In namespace " + key.Namespace + ": " + problem
		}
		c.warn(key, about, about.GetName(), d.Warning, problem)
	}
	// A document may govern thousands of namespaces. It has one Event, and not one for each namespace.
	isTold := !netpol.IsReserved(key.Name) || d.Reason == plan.ReasonRestored
	if d.Reason != "" && isTold {
		c.reporter.Normal(about, d.Reason, d.Message)
	}
}

// warn records a Warning, unless it equals the last Warning on the topic. For a problem of a policy, the topic is the
// name of its ConfigMap.
func (c *Controller) warn(key cache.ObjectName, object reporter.Object, topic, reason, message string) {
	if c.tracker.RecordWarning(key, topic, reason+message) {
		c.reporter.Warning(object, reason, message)
	}
}
