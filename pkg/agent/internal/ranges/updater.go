// Package ranges keeps the table of AWS's and custom ranges up to date, and saves it in the cluster.
//
// One goroutine owns an Updater. It fetches documents, publishes tables and saves them, and calls upward only by the
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
	Feed     *awsranges.Feed       // of AWS's ranges; the updater owns it
	Custom   awsranges.CustomFiles // an organisation's services; the updater sets OnSuspicious, which logs
	Interval time.Duration         // between two refreshes
}

// minRetryDelay is the wait after a failed refresh. It doubles with each further failure, up to the interval.
const minRetryDelay = time.Second

// backgroundDelay is how long policies go before work that would delay them. Such work is the first refresh if there
// are saved ranges. It is also the write of the ConfigMap of ranges, a hundred times larger than a NetworkPolicy.
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

// Updater keeps the ranges up to date. Its methods are for one goroutine.
type Updater struct {
	source  Source
	hooks   Hooks
	log     *slog.Logger
	metrics *metrics
	store   Store

	watched   watchedFiles
	custom    *awsranges.Table                       // current and held rows of the custom files; nil without any
	published struct{ aws, custom *awsranges.Table } // the parts of the last published table
	accepted  acceptedRanges                         // to save
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
func New(client kubernetes.Interface, source Source, options Options, hooks Hooks, registry prometheus.Registerer, log *slog.Logger) *Updater {
	u := &Updater{
		source: source, hooks: hooks, log: log,
		metrics: newMetrics(registry, source.Feed.Now),
		store:   Store{client: client, options: options},
	}
	u.source.Custom.OnSuspicious = func(message string) { log.Warn("suspicious custom ranges accepted", "reason", message) }
	return u
}

// Run saves the initial ranges once they are synced, and then refreshes the ranges until ctx ends. It does so first
// after next, then at each interval, earlier after a failure, and when a file changes. The waits vary by a tenth, so
// that many agents do not send their requests at the same time.
func (u *Updater) Run(ctx context.Context, next time.Duration, synced <-chan struct{}) {
	poll := time.NewTicker(filewatch.Interval)
	defer poll.Stop()
	timer := time.NewTimer(jitter(next))
	defer timer.Stop()
	u.saveRangesAfter(ctx, synced, backgroundDelay)
	for retry := minRetryDelay; ; {
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
		if err := u.refreshOnce(ctx, backgroundDelay); err != nil {
			next, retry = min(retry, u.source.Interval), min(2*retry, u.source.Interval)
		} else {
			next, retry = u.source.Interval, minRetryDelay
		}
		timer.Reset(jitter(next))
	}
}

func jitter(d time.Duration) time.Duration { return d - d/10 + rand.N(d/5+1) }

// refreshOnce fetches the ranges, drops custom rows whose hold has ended, publishes the table if it changed, and saves
// the ranges. It saves once the policies are synced, or after saveWithin; a crash before that costs only another
// refresh. It returns the error of the fetch.
func (u *Updater) refreshOnce(ctx context.Context, saveWithin time.Duration) error {
	err := u.fetchRanges(ctx)
	u.holdCustom(u.custom) // also after a failed fetch
	u.saveRangesAfter(ctx, u.Publish(), saveWithin)
	return err
}

// Publish publishes the table of AWS's and the custom rows. It returns a channel that is closed when all policies that
// the table affects have been synced; a closed one if the table is the last published one.
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
	before, acceptedAt := feed.Table(), u.accepted.acceptedAt
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
	case table != before:
		result = resultAccepted
		u.accepted = acceptedRanges{table: table, acceptedAt: now, confirmedAt: now}
		if before != nil && before.SyncToken() == table.SyncToken() {
			u.accepted.acceptedAt = acceptedAt // the document is the same, only the held rows differ
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

// reportRefused logs a document that the feed refused, and records an Event unless the reason is still the last one.
func (u *Updater) reportRefused(ctx context.Context, reason string) {
	u.log.Warn("AWS ranges refused", "reason", reason)
	if u.accepted.refusedReason != reason {
		u.accepted.refusedReason = reason
		u.hooks.Report(ctx, ReasonRangesRefused, "The last accepted AWS ranges stay in use: "+reason)
	}
}
