package agent

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"egress-agent/pkg/awsranges"
)

// Source says where the AWS ranges come from.
type Source struct {
	File     string        // read instead of URL, where set
	URL      string        // AWS's document
	Custom   []string      // files with an organisation's own services
	Interval time.Duration // between two looks at either
}

// fetchTimeout is for the whole of a request, its body included.
const fetchTimeout = 30 * time.Second

func (s Source) load(ctx context.Context) (*awsranges.Table, error) {
	if s.File != "" {
		return awsranges.ReadFiles(s.File, s.Custom...)
	}
	aws, err := awsranges.Fetch(ctx, &http.Client{Timeout: fetchTimeout}, s.URL)
	if err != nil {
		return nil, err
	}
	custom, err := awsranges.ReadFiles("", s.Custom...)
	return awsranges.Merge(aws, custom), err
}

// loadRanges makes the first attempt, before any policy is judged. A file that cannot be read is a
// mistake in the deployment, and an error; a URL that does not answer now may answer later.
func (a *Agent) loadRanges(ctx context.Context) error {
	custom, err := awsranges.ReadFiles("", a.options.Source.Custom...)
	if err != nil {
		return fmt.Errorf("read the custom ranges: %w", err)
	}
	table, err := a.options.Source.load(ctx)
	switch {
	case err == nil:
		a.accept(table)
	case a.options.Source.File != "":
		return fmt.Errorf("read the AWS ranges: %w", err)
	default:
		a.log.Warn("AWS ranges not available", "error", err)
		if custom != nil {
			a.accept(custom)
		}
	}
	return nil
}

// refreshRanges looks again at each interval, and after a failure sooner: first after a second, then
// twice as long each time. The last good table stays in use.
func (a *Agent) refreshRanges(ctx context.Context) {
	const firstRetry = time.Second
	wait, retry := a.options.Source.Interval, firstRetry
	if !a.table.Load().HasAWS() {
		wait = firstRetry
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(wait, a.options.Source.Interval)):
		}
		table, err := a.options.Source.load(ctx)
		if err != nil {
			retry *= 2
			wait = retry
			a.log.Warn("AWS ranges not refreshed", "error", err, "retry", min(wait, a.options.Source.Interval))
			continue
		}
		wait, retry = a.options.Source.Interval, firstRetry
		if a.accept(table) {
			a.enqueueAll()
		}
	}
}

// accept puts a table in use, and says whether it differs from the one before.
func (a *Agent) accept(table *awsranges.Table) bool {
	if old := a.table.Load(); old != nil && old.SyncToken() == table.SyncToken() && slices.Equal(old.Rows(), table.Rows()) {
		return false
	}
	a.table.Store(table)
	a.log.Info("AWS ranges in use", "syncToken", table.SyncToken(), "createDate", table.CreateDate(), "rows", len(table.Rows()))
	return true
}

func (a *Agent) enqueueAll() {
	for _, object := range a.configMaps.GetStore().List() {
		if accessor, err := meta.Accessor(object); err == nil {
			a.queue.Add(policyKey(accessor))
		}
	}
}
