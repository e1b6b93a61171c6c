package ranges

import (
	"context"
	"time"
)

// saveRangesAfter saves the ranges when synced is closed, or after within. It does nothing if there are neither ranges
// nor saved custom ranges.
func (u *Updater) saveRangesAfter(ctx context.Context, synced <-chan struct{}, within time.Duration) {
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
	case <-time.After(within):
		u.saveRanges(ctx)
	}
}

// saveRanges saves the accepted ranges. It logs a failure; the agent goes on with the ranges in memory.
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
		// After a restart the agent will not hold the rows that a custom file loses.
		u.log.Warn("custom ranges too large to save", "configmap", ConfigMapName,
			"bytes", len(u.store.custom.data), "bytesOfAWS", len(u.store.aws.data), "limit", maxConfigMapBytes)
	}
	if size > maxConfigMapBytes*8/10 {
		u.log.Warn("ConfigMap of ranges over 80 % full", "configmap", ConfigMapName, "bytes", size, "limit", maxConfigMapBytes)
	}
}
