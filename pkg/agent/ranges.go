package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/internal/filewatch"
)

// Source says where the ranges come from.
type Source struct {
	Feed     *awsranges.Feed  // AWS's own; the agent's from New on
	Custom   awsranges.Custom // an organisation's own services; the agent notes in its log
	Interval time.Duration    // between two looks at the feed
}

// minRetryDelay is how soon after a failure the feed is looked at again. Each further one waits twice as
// long, up to the interval.
const minRetryDelay = time.Second

// ReasonRangesRefused is that of the Event on the agent's Lease about a document that is not believed.
const ReasonRangesRefused = "RangesRefused"

// loadInitial reads what can be had before the first policy is judged: what was kept in the cluster or, where
// there is nothing, what a first look finds. It returns when to look next. A file that
// cannot be read is a mistake in the deployment, and an error; a URL that does not answer now may answer
// later.
func (a *Agent) loadInitial(ctx context.Context) (next time.Duration, err error) {
	source := a.options.Source
	a.watchedFiles.ranges, a.watchedFiles.custom = filewatch.Watch(source.Feed.File), filewatch.Watch(source.Custom.Files...)
	custom, err := a.loadCustom()
	if err != nil {
		return 0, err
	}
	a.loadSaved(ctx)
	a.holdCustom(custom)
	next = backgroundDelay
	if source.Feed.Table() == nil {
		next = source.Interval
		if err := a.fetchRanges(ctx); err != nil {
			if source.Feed.File != "" && ctx.Err() == nil {
				return 0, fmt.Errorf("read the AWS ranges from %s: %w", source.Feed.File, err)
			}
			next = minRetryDelay
		}
	}
	return next, nil
}

// loadSaved goes on from the ranges that are kept in the cluster, if there are any. While the API server does
// not say, it waits: without them, what is held would be closed, and any document would do.
func (a *Agent) loadSaved(ctx context.Context) {
	for ; ctx.Err() == nil; time.Sleep(minRetryDelay / 4) {
		kept, err := a.store.load(ctx)
		var refusal *awsranges.RefusedError
		if err != nil && !errors.As(err, &refusal) {
			a.log.Warn("the ranges kept in the cluster cannot be read: will retry", "configmap", RangesName, "error", err)
			continue
		}
		a.custom = kept.custom
		if kept.table != nil {
			if notResumed := a.options.Source.Feed.Resume(kept.table); notResumed != nil {
				err = errors.Join(err, fmt.Errorf("%s: %w", RangesKey, notResumed))
			} else {
				a.kept = kept
				a.metrics.confirmed.Store(kept.confirmedAt.Unix())
			}
		}
		if err != nil {
			a.log.Warn("the ranges kept in the cluster are not used", "configmap", RangesName, "error", err)
		}
		return
	}
}

// loadCustom returns what the custom files have; nil for no files.
func (a *Agent) loadCustom() (*awsranges.Table, error) {
	files := a.options.Source.Custom
	files.Note = func(message string) { a.log.Warn("custom ranges taken as they are", "reason", message) }
	custom, err := awsranges.ReadFiles("", files)
	if err != nil {
		return nil, fmt.Errorf("read the custom ranges: %w", err)
	}
	return custom, nil
}

// holdCustom makes the custom ranges those of the files, with what files had before for as long as AWS's rows
// are held: a name that goes at once would leave each policy that has it invalid, and what it opens open.
func (a *Agent) holdCustom(files *awsranges.Table) {
	feed := a.options.Source.Feed
	a.custom = awsranges.HoldCustom(a.custom, files, feed.Now(), feed.RemovalHold)
}

// runRefresh looks at the feed after next and then at each interval, after a failure sooner, and when
// a file has changed. The waiting times vary by a tenth, so that many agents do not ask at once.
func (a *Agent) runRefresh(ctx context.Context, next time.Duration) {
	source := a.options.Source
	poll := time.NewTicker(filewatch.Interval)
	defer poll.Stop()
	due := time.NewTimer(jitter(next))
	defer due.Stop()
	a.saveRangesAfter(ctx, a.fanout.done, backgroundDelay)
	for retry := minRetryDelay; ; {
		select {
		case <-ctx.Done():
			return
		case <-due.C:
		case <-poll.C:
			if a.watchedFiles.custom.Changed() {
				a.reloadCustom(ctx, backgroundDelay)
			}
			if !a.watchedFiles.ranges.Changed() {
				continue
			}
		}
		if err := a.refreshOnce(ctx, backgroundDelay); err != nil {
			next, retry = min(retry, source.Interval), min(2*retry, source.Interval)
		} else {
			next, retry = source.Interval, minRetryDelay
		}
		due.Reset(jitter(next))
	}
}

func jitter(d time.Duration) time.Duration { return d - d/10 + rand.N(d/5+1) }

// reloadCustom keeps the organisation's own services as they were when they cannot be read any more.
func (a *Agent) reloadCustom(ctx context.Context, within time.Duration) {
	custom, err := a.loadCustom()
	if err != nil {
		a.log.Warn("custom ranges not reread: they stay as they were", "error", err)
		return
	}
	before := a.custom
	a.holdCustom(custom)
	if a.custom == before {
		return
	}
	a.log.Info("custom ranges changed", "rows", len(a.custom.Rows()), "held", len(a.custom.Held()))
	a.saveRangesAfter(ctx, a.publish(a.options.Source.Feed.Table()), within)
}

// backgroundDelay is how long the policies go before what would only delay them: a look at the feed where there
// are ranges to go on with, the ConfigMap of ranges, which is a hundred times larger than a NetworkPolicy, and
// each Event.
const backgroundDelay = time.Second

// refreshOnce looks at the feed, ends what was held of custom ranges, puts in use what is new and, once the policies
// have been written or the time is over, keeps it in the cluster; a crash in between costs another look. An error
// means that there is nothing new that can be trusted.
func (a *Agent) refreshOnce(ctx context.Context, within time.Duration) error {
	err := a.fetchRanges(ctx)
	a.holdCustom(a.custom) // whatever became of the look
	a.saveRangesAfter(ctx, a.publish(a.options.Source.Feed.Table()), within)
	return err
}

// saveRangesAfter keeps the ranges, if there are any or were, when the policies are synced or the time is over.
func (a *Agent) saveRangesAfter(ctx context.Context, synced <-chan struct{}, within time.Duration) {
	a.kept.custom = nil
	if a.custom != nil && len(a.custom.Rows()) > 0 {
		a.kept.custom = a.custom
	}
	if a.kept.table == nil && a.kept.custom == a.store.custom.of {
		return
	}
	select {
	case <-ctx.Done():
	case <-synced:
		a.saveRanges(ctx)
	case <-time.After(within):
		a.saveRanges(ctx)
	}
}

// fetchRanges asks the feed for what is new, and tells what came of it.
func (a *Agent) fetchRanges(ctx context.Context) error {
	feed := a.options.Source.Feed
	before, accepted := feed.Table(), a.kept.acceptedAt
	table, err := feed.Fetch(ctx)
	now := feed.Now()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var refusal *awsranges.RefusedError
	result := resultUnchanged
	switch {
	case errors.As(err, &refusal):
		result = resultRefused
		a.reportRefused(ctx, truncate(refusal.Error()))
	case err != nil:
		result = resultFailed
		a.log.Warn("AWS ranges not refreshed", "error", err)
	case table != before:
		result = resultAccepted
		a.kept = acceptedRanges{table: table, acceptedAt: now, confirmedAt: now}
		if before != nil && before.SyncToken() == table.SyncToken() {
			a.kept.acceptedAt = accepted // only what is held is other than before
		}
	default:
		a.kept.confirmedAt, a.kept.refusedReason = now, ""
	}
	a.metrics.refreshes.WithLabelValues(result).Inc()
	if a.kept.table != nil {
		a.metrics.confirmed.Store(a.kept.confirmedAt.Unix())
	}
	return err
}

// reportRefused tells of a document that is not believed, once, where the operators of the agent look.
func (a *Agent) reportRefused(ctx context.Context, reason string) {
	a.log.Warn("AWS ranges refused: the last accepted ones stay in use", "reason", reason)
	if a.kept.refusedReason != reason {
		a.kept.refusedReason = reason
		a.events.Event(a.lease(ctx), corev1.EventTypeWarning, ReasonRangesRefused, truncate("The last accepted AWS ranges stay in use: "+reason))
	}
}

// saveRanges makes the ConfigMap of ranges hold what is in use. That it cannot is told, and is no reason to do
// without them.
func (a *Agent) saveRanges(ctx context.Context) {
	if a.checkLease() != nil {
		return
	}
	size, err := a.store.save(ctx, a.kept)
	if err != nil && ctx.Err() == nil {
		a.metrics.storeErrors.Inc()
		a.log.Warn("AWS ranges not kept in the cluster: a restart would not find them", "namespace", a.options.Namespace, "configmap", RangesName, "error", err)
	}
	a.metrics.storedBytes.Set(float64(size))
	if !a.store.customFits() {
		a.log.Warn("custom ranges not kept in the cluster: they do not fit beside AWS's, and a restart would not hold what they lose", "configmap", RangesName)
	}
	if size > largestConfigMap*8/10 {
		a.log.Warn("the ConfigMap of ranges is over 80 % of what the API server stores", "configmap", RangesName, "bytes", size, "limit", largestConfigMap)
	}
}
