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
	file   string
	custom awsranges.Custom
	files  *filewatch.Files
	log    *slog.Logger
	table  atomic.Pointer[awsranges.Table]
}

// NewRanges loads AWS's document from file and an organisation's own documents from the custom files. An empty
// file means no AWS ranges.
//
// AWS's document may be missing or invalid, for example until the agent has written it. Reviews then check
// names against the catalogue. Nothing can replace the custom files, so NewRanges returns an error if one is
// invalid.
func NewRanges(file string, custom awsranges.Custom, log *slog.Logger) (*Ranges, error) {
	r := &Ranges{file: file, custom: custom, files: filewatch.Watch(append([]string{file}, custom.Files...)...), log: log}
	table, err := awsranges.ReadFiles("", custom)
	if err != nil {
		return nil, fmt.Errorf("read the custom ranges: %w", err)
	}
	r.custom.Note = func(message string) { log.Warn("suspicious custom ranges accepted", "reason", message) }
	r.table.Store(table)
	r.reload()
	return r, nil
}

// Table returns the last valid table, or nil before the first.
func (r *Ranges) Table() *awsranges.Table { return r.table.Load() }

// PublishedAt returns when AWS published the current ranges. It returns the zero time without AWS ranges.
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

// reload replaces the table if all files are valid. Otherwise reviews use the previous table, and the catalogue
// of AWS's names.
func (r *Ranges) reload() {
	table, err := awsranges.ReadFiles(r.file, r.custom)
	if err != nil {
		r.log.Warn("reload ranges failed", "error", err)
		return
	}
	before := r.table.Swap(table)
	if table.HasAWS() && (before == nil || before.SyncToken() != table.SyncToken()) {
		r.log.Info("AWS ranges loaded", "syncToken", table.SyncToken(), "createDate", table.CreateDate(), "rows", len(table.Rows()))
	}
}
