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

// Ranges is the table that reviews judge by, read from files and reread when they change.
type Ranges struct {
	file   string
	custom awsranges.Custom
	files  *filewatch.Files
	log    *slog.Logger
	table  atomic.Pointer[awsranges.Table]
}

// NewRanges reads AWS's document from file, which may be empty for none, and an organisation's own from the
// custom files. AWS's may be missing or broken for now, as where the agent has not written it yet: then
// names are judged by the catalogue. The custom ones have no such substitute, and must be right.
func NewRanges(file string, custom awsranges.Custom, log *slog.Logger) (*Ranges, error) {
	r := &Ranges{file: file, custom: custom, files: filewatch.Watch(append([]string{file}, custom.Files...)...), log: log}
	table, err := awsranges.ReadFiles("", custom)
	if err != nil {
		return nil, fmt.Errorf("read the custom ranges: %w", err)
	}
	r.custom.Note = func(message string) { log.Warn("custom ranges taken as they are", "reason", message) }
	r.table.Store(table)
	r.reread()
	return r, nil
}

// Table returns the last table that was read whole; nil for none.
func (r *Ranges) Table() *awsranges.Table { return r.table.Load() }

// Published is when AWS published the ranges in use; zero where there are none.
func (r *Ranges) Published() time.Time {
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

// Run rereads the files when they change, until the context ends.
func (r *Ranges) Run(ctx context.Context) { r.files.Follow(ctx, r.reread) }

func (r *Ranges) reread() {
	table, err := awsranges.ReadFiles(r.file, r.custom)
	if err != nil {
		r.log.Warn("ranges not read: reviews go by what was read last, and by the catalogue of AWS's names", "error", err)
		return
	}
	before := r.table.Swap(table)
	if table.HasAWS() && (before == nil || before.SyncToken() != table.SyncToken()) {
		r.log.Info("AWS ranges in use", "syncToken", table.SyncToken(), "createDate", table.CreateDate(), "rows", len(table.Rows()))
	}
}
