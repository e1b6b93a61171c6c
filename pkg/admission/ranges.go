package admission

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/internal/filewatch"
)

// Ranges loads the table for reviews from files, and reloads it when the files change.
type Ranges struct {
	path   string // of AWS's document
	custom awsranges.CustomFiles
	files  *filewatch.Files
	log    *slog.Logger
	table  atomic.Pointer[awsranges.Table]
}

// NewRanges loads AWS's document from path and an organisation's own documents from the custom files. If path is empty,
// there are no AWS ranges.
//
// AWS's document may be missing or invalid, for example until the agent has written it. Reviews then check names
// against the catalogue. The catalogue has no custom services, so NewRanges returns an error if a custom file is
// invalid.
func NewRanges(path string, custom awsranges.CustomFiles, log *slog.Logger) (*Ranges, error) {
	r := &Ranges{path: path, custom: custom, files: filewatch.New(append([]string{path}, custom.Files...)...), log: log}
	table, err := awsranges.ReadFiles("", custom)
	if err != nil {
		return nil, fmt.Errorf("read the custom ranges: %w", err)
	}
	r.custom.OnSuspicious = func(message string) { log.Warn("suspicious custom ranges accepted", "reason", message) }
	r.table.Store(table)
	r.reload()
	return r, nil
}

// Table returns the last valid table. It returns nil if there was no valid table yet, or if there are no files.
func (r *Ranges) Table() *awsranges.Table { return r.table.Load() }

// PublishedAt returns the time when AWS published the current ranges, or the zero time if there are no AWS ranges.
func (r *Ranges) PublishedAt() time.Time {
	table := r.Table()
	if !table.HasAWS() {
		return time.Time{}
	}
	token, err := strconv.ParseInt(table.SyncToken(), 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(token, 0)
}

// Run reloads the files when they change, until ctx ends.
func (r *Ranges) Run(ctx context.Context) { r.files.Follow(ctx, r.reload) }

// reload replaces the table if all files are valid. Otherwise reviews use the previous table. If it has no AWS ranges,
// they check names against the catalogue.
func (r *Ranges) reload() {
	table, err := awsranges.ReadFiles(r.path, r.custom)
	if err != nil {
		r.log.Warn("reload ranges failed", "error", err)
		return
	}
	previous := r.table.Swap(table)
	if table.HasAWS() && (previous == nil || previous.SyncToken() != table.SyncToken()) {
		r.log.Info("AWS ranges loaded", "syncToken", table.SyncToken(), "createDate", table.CreateDate(), "rows", len(table.Rows()))
	}
}
