package ranges

import (
	"context"
	"errors"
	"fmt"
	"time"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/internal/filewatch"
)

// LoadInitial loads the saved ranges before the first sync. If there are no saved ranges, it fetches the ranges. It
// returns the wait until the first refresh. It returns an error for a file that it cannot read, because that is a
// mistake in the deployment. It returns no error for a URL, because a URL that fails now may succeed later.
func (u *Updater) LoadInitial(ctx context.Context) (firstDelay time.Duration, err error) {
	feed := u.source.Feed
	u.watched = watchedFiles{ranges: filewatch.New(feed.File), custom: filewatch.New(u.source.Custom.Files...)}
	custom, err := u.loadCustom()
	if err != nil {
		return 0, err
	}
	u.loadSaved(ctx)
	u.holdCustom(custom)
	if feed.Table() != nil {
		return backgroundDelay, nil
	}
	if err := u.fetchRanges(ctx); err != nil {
		if feed.File != "" && ctx.Err() == nil {
			return 0, fmt.Errorf("read the AWS ranges from %s: %w", feed.File, err)
		}
		return minRetryDelay, nil
	}
	return u.source.Interval, nil
}

// loadSaved makes the saved ranges the current ranges, if there are any. It retries while the API server fails. Without
// the saved ranges the agent would close the held rows, and could not compare a new document with the last accepted
// one.
func (u *Updater) loadSaved(ctx context.Context) {
	for ; ctx.Err() == nil; time.Sleep(minRetryDelay / 4) {
		saved, err := u.store.load(ctx)
		var refused *awsranges.RefusedError
		if err != nil && !errors.As(err, &refused) {
			u.log.Warn("load AWS ranges failed, retrying", "configmap", ConfigMapName, "error", err)
			continue
		}
		u.custom = saved.custom
		if saved.table != nil {
			if resumeErr := u.source.Feed.Resume(saved.table); resumeErr != nil {
				err = errors.Join(err, fmt.Errorf("%s: %w", RangesKey, resumeErr))
			} else {
				u.accepted = saved
				u.metrics.confirmed.Store(saved.confirmedAt.Unix())
			}
		}
		if err != nil {
			u.log.Warn("saved AWS ranges ignored", "configmap", ConfigMapName, "error", err)
		}
		return
	}
}

// loadCustom returns the table of the custom files; nil without files.
func (u *Updater) loadCustom() (*awsranges.Table, error) {
	custom, err := awsranges.ReadFiles("", u.source.Custom)
	if err != nil {
		return nil, fmt.Errorf("read the custom ranges: %w", err)
	}
	return custom, nil
}

// holdCustom makes the rows of loaded the current custom rows. It holds the rows that the files have removed as long as
// the feed holds AWS's rows. Without the hold, each policy that names a removed service would become invalid
// immediately, and its last valid version would stay in force.
func (u *Updater) holdCustom(loaded *awsranges.Table) {
	feed := u.source.Feed
	u.custom = awsranges.HoldCustom(u.custom, loaded, feed.Now(), feed.RemovalHold)
}

// reloadCustom loads the custom files after a change, publishes the new table, and saves the ranges as refreshOnce
// does. If a file is unreadable or defective, the custom ranges stay unchanged.
func (u *Updater) reloadCustom(ctx context.Context, maxSaveDelay time.Duration) {
	custom, err := u.loadCustom()
	if err != nil {
		u.log.Warn("reload custom ranges failed", "error", err)
		return
	}
	previous := u.custom
	u.holdCustom(custom)
	if u.custom == previous {
		return
	}
	u.log.Info("custom ranges changed", "rows", len(u.custom.Rows()), "held", len(u.custom.Held()))
	u.saveRangesAfter(ctx, u.Publish(), maxSaveDelay)
}
