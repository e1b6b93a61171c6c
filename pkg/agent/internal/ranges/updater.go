// Package ranges keeps the table of AWS's and custom ranges up to date, and saves it in the cluster.
//
// An Updater fetches documents, publishes tables and saves them. It calls other parts of the agent only through the
// functions in Hooks.
package ranges

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/kubernetes"

	"egress-agent/pkg/agent/internal/reporter"
	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/internal/filewatch"
)

// Source is the source of the ranges.
type Source struct {
	Feed     *awsranges.Feed       // of AWS's ranges; only the updater may use it
	Custom   awsranges.CustomFiles // an organisation's services; the updater sets OnSuspicious, which logs
	Interval time.Duration         // between two refreshes
}

// minRetryDelay is the wait after a failed refresh. It doubles with each further failure, up to the interval.
const minRetryDelay = time.Second

// backgroundDelay is how long the updater postpones work that would delay the syncs of policies. Such work is the first
// refresh, if there are saved ranges. Another such work is the write of the ConfigMap of ranges, which is a hundred
// times larger than a NetworkPolicy.
const backgroundDelay = time.Second

// ReasonRangesRefused is the reason of the Event on the agent's Lease about a document that the feed refused.
const ReasonRangesRefused = "RangesRefused"

// Hooks are the functions that an updater calls. All must be set.
type Hooks struct {
	// Publish makes a table current. It returns a channel that is closed when all policies that the table affects have
	// been synced.
	Publish func(table *awsranges.Table) (synced <-chan struct{})
	// Report records an Event about the agent.
	Report func(ctx context.Context, reason, message string)
	// CheckLease returns an error if another agent may hold the Lease.
	CheckLease func() error
}

// Updater keeps the ranges up to date. Only one goroutine may call its methods.
type Updater struct {
	source  Source
	hooks   Hooks
	log     *slog.Logger
	metrics *metrics
	store   Store

	watched   watchedFiles
	custom    *awsranges.Table                       // current and held rows of the custom files; nil if there are no rows
	published struct{ aws, custom *awsranges.Table } // the parts of the last published table
	accepted  acceptedRanges                         // the ranges to save
}

// watchedFiles are the files that a refresh reads.
type watchedFiles struct{ ranges, custom *filewatch.Files }

// Options control how an updater saves ranges.
type Options struct {
	Namespace    string // of the ConfigMap of ranges
	FieldManager string // of the writes
	AgentOptions string // the value of OptionsAnnotation
}

// New returns an updater of the ranges from source, whose metrics are registered.
func New(
	client kubernetes.Interface, source Source, options Options, hooks Hooks, registry prometheus.Registerer, log *slog.Logger,
) *Updater {
	u := &Updater{
		source: source, hooks: hooks, log: log,
		metrics: newMetrics(registry, source.Feed.Now),
		store:   Store{client: client, options: options},
	}
	u.source.Custom.OnSuspicious = func(message string) { log.Warn("suspicious custom ranges accepted", "reason", message) }
	return u
}

// Run saves the initial ranges once synced is closed, and then refreshes the ranges until ctx ends. The first refresh
// is after firstDelay. Further refreshes follow after the interval, earlier after a failure, and when a file changes.
// The waits vary by a tenth, so that many agents do not send their requests at the same time.
func (u *Updater) Run(ctx context.Context, firstDelay time.Duration, synced <-chan struct{}) {
	poll := time.NewTicker(filewatch.Interval)
	defer poll.Stop()
	timer := time.NewTimer(jitter(firstDelay))
	defer timer.Stop()
	u.saveRangesAfter(ctx, synced, backgroundDelay)
	for retryDelay := minRetryDelay; ; {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-poll.C:
			if u.watched.custom.Changed() {
				u.reloadCustom(ctx, backgroundDelay)
			}
			if !u.watched.ranges.Changed() {
				continue
			}
		}
		delay := u.source.Interval
		if err := u.refreshOnce(ctx, backgroundDelay); err != nil {
			delay, retryDelay = min(retryDelay, u.source.Interval), min(2*retryDelay, u.source.Interval)
		} else {
			retryDelay = minRetryDelay
		}
		timer.Reset(jitter(delay))
	}
}

// jitter returns a random duration that differs from d by at most a tenth.
func jitter(d time.Duration) time.Duration { return d - d/10 + rand.N(d/5+1) }

// refreshOnce fetches the ranges, drops custom rows whose hold has ended, publishes the table if it changed, and saves
// the ranges. It saves them once the policies are synced, but at the latest after maxSaveDelay. A crash before that
// costs only another refresh. refreshOnce returns the error of the fetch.
func (u *Updater) refreshOnce(ctx context.Context, maxSaveDelay time.Duration) error {
	err := u.fetchRanges(ctx)
	u.holdCustom(u.custom) // also after a failed fetch
	u.saveRangesAfter(ctx, u.Publish(), maxSaveDelay)
	return err
}

// Publish publishes the table of AWS's and the custom rows. It returns a channel that is closed when all policies that
// the table affects have been synced. If the rows are unchanged since the last call, it publishes no table and returns
// a closed channel.
func (u *Updater) Publish() (synced <-chan struct{}) {
	aws := u.source.Feed.Table()
	if aws == u.published.aws && u.custom == u.published.custom {
		closed := make(chan struct{})
		close(closed)
		return closed
	}
	u.published.aws, u.published.custom = aws, u.custom
	return u.hooks.Publish(awsranges.Merge(aws, u.custom))
}

// fetchRanges fetches the ranges once, and reports the result.
func (u *Updater) fetchRanges(ctx context.Context) error {
	feed := u.source.Feed
	previous, previousAcceptedAt := feed.Table(), u.accepted.acceptedAt
	table, err := feed.Fetch(ctx)
	now := feed.Now()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var refused *awsranges.RefusedError
	result := resultUnchanged
	switch {
	case errors.As(err, &refused):
		result = resultRefused
		u.reportRefused(ctx, reporter.Truncate(refused.Error()))
	case err != nil:
		result = resultFailed
		u.log.Warn("refresh AWS ranges failed", "error", err)
	case table != previous:
		result = resultAccepted
		u.accepted = acceptedRanges{table: table, acceptedAt: now, confirmedAt: now}
		if previous != nil && previous.SyncToken() == table.SyncToken() {
			u.accepted.acceptedAt = previousAcceptedAt // the document is unchanged, and only the held rows differ
		}
	default:
		u.accepted.confirmedAt, u.accepted.refusedReason = now, ""
	}
	u.metrics.refreshes.WithLabelValues(result).Inc()
	if u.accepted.table != nil {
		u.metrics.confirmed.Store(u.accepted.confirmedAt.Unix())
	}
	return err
}

// reportRefused logs a document that the feed refused. It also records an Event, unless the last refusal since a
// successful fetch had the same reason.
func (u *Updater) reportRefused(ctx context.Context, reason string) {
	u.log.Warn("AWS ranges refused", "reason", reason)
	if u.accepted.refusedReason != reason {
		u.accepted.refusedReason = reason
		u.hooks.Report(ctx, ReasonRangesRefused, "The last accepted AWS ranges stay in use: "+reason)
	}
}
