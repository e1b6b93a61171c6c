package ranges

import (
	"context"
	"time"
)

// saveRangesAfter saves the ranges when synced is closed, but at the latest after maxDelay. It saves nothing if there
// are no ranges of AWS and the custom ranges are unchanged.
func (u *Updater) saveRangesAfter(ctx context.Context, synced <-chan struct{}, maxDelay time.Duration) {
	u.accepted.custom = nil
	if u.custom != nil && len(u.custom.Rows()) > 0 {
		u.accepted.custom = u.custom
	}
	if u.accepted.table == nil && u.accepted.custom == u.store.custom.table {
		return
	}
	select {
	case <-ctx.Done():
	case <-synced:
		u.saveRanges(ctx)
	case <-time.After(maxDelay):
		u.saveRanges(ctx)
	}
}

// saveRanges saves the accepted ranges. If this fails, it only logs the error, and the agent uses the ranges in memory.
func (u *Updater) saveRanges(ctx context.Context) {
	if u.hooks.CheckLease() != nil {
		return
	}
	size, err := u.store.save(ctx, u.accepted)
	if err != nil && ctx.Err() == nil {
		u.metrics.storeErrors.Inc()
		u.log.Warn("save AWS ranges failed", "namespace", u.store.options.Namespace, "configmap", ConfigMapName, "error", err)
	}
	u.metrics.storedBytes.Set(float64(size))
	if !u.store.customFits() {
		// After a restart the agent therefore does not hold the rows that a custom file has removed before.
		u.log.Warn("custom ranges too large to save", "configmap", ConfigMapName,
			"bytes", len(u.store.custom.data), "bytesOfAWS", len(u.store.aws.data), "limit", maxConfigMapBytes)
	}
	if size > maxConfigMapBytes*8/10 {
		u.log.Warn("ConfigMap of ranges over 80 % full", "configmap", ConfigMapName, "bytes", size, "limit", maxConfigMapBytes)
	}
}
