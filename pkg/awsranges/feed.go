package awsranges

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"time"
)

// Feed keeps a table of AWS's document fresh. Its fields are set before the first Look; Looks are made
// one after the other.
type Feed struct {
	// File is read where set, and else URL fetched by Client, whose timeout bounds a whole Look.
	File   string
	URL    string
	Client *http.Client
	// RemovalHold is how long a prefix that AWS removes stays in use.
	RemovalHold time.Duration
	// AcceptToken is the sync token of a document to be accepted although it is older than the last one,
	// lacks much of it, or opens much more; empty for none. Nothing makes acceptable what AWS cannot have
	// meant: an unknown field, a row that is too wide or in reserved space, a day that has not come.
	AcceptToken string
	// Now is the clock that removed prefixes are held by, and that no document is ahead of.
	Now func() time.Time

	table      *Table          // accepted, with what is held
	validators cacheValidators // of the document that table was last confirmed by

	openOf *Table         // what open was counted for
	open   []netip.Prefix // what table covers, as the next document is judged by
}

// cacheValidators is what HTTP tells whether a document is new by.
type cacheValidators struct{ etag, lastModified string }

// Resume goes on from a table that was accepted before: by another Feed, or before a restart.
func (f *Feed) Resume(table *Table) error {
	if err := validateDocument(nil, &table.document); err != nil {
		return &RefusedError{err}
	}
	f.table = table
	return nil
}

// Table is what the last Look that had no error returned; nil before.
func (f *Feed) Table() *Table { return f.table }

// Fetch asks for the document, if it has changed since the last Fetch that accepted one, and returns the
// table to use from now on: the very same one where nothing is new. It has AWS's rows alone, with those
// that are held. An error, a *Refusal where there was a document, changes nothing; then nothing held is
// dropped either.
func (f *Feed) Fetch(ctx context.Context) (*Table, error) {
	if f.openOf != f.table { // now, rather than when a document waits to be used
		f.openOf, f.open = f.table, covered(f.table)
	}
	d, seen, err := f.readSource(ctx)
	if err != nil {
		return nil, err
	}
	if d == nil {
		d = &f.table.document // confirmed
	} else if err := f.checkDocument(d); err != nil {
		return nil, &RefusedError{err}
	}
	f.table = applyHolds(f.table, d, f.Now(), f.RemovalHold)
	f.validators = seen
	return f.table, nil
}

func (f *Feed) checkDocument(d *document) error {
	if err := validateDocument(f.table, d); err != nil {
		return err
	}
	now := f.Now()
	if err := checkClock(d, now); err != nil {
		return err
	}
	if err := validateSuccessor(f.table, f.open, d, now); err != nil && d.syncToken != f.AcceptToken {
		return fmt.Errorf("%w; to accept it all the same, start with --accept-ranges %s", err, d.syncToken)
	}
	return nil
}

// readSource returns nil where the source has nothing newer than what was accepted.
func (f *Feed) readSource(ctx context.Context) (*document, cacheValidators, error) {
	if f.File != "" {
		return f.readFile()
	}
	return f.fetchURL(ctx)
}

func (f *Feed) readFile() (*document, cacheValidators, error) {
	file, err := os.Open(f.File)
	if err != nil {
		return nil, cacheValidators{}, err
	}
	defer file.Close()
	d, err := read(file, sourceFormat)
	return d, cacheValidators{}, err
}

func (f *Feed) fetchURL(ctx context.Context) (*document, cacheValidators, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, f.URL, nil)
	if err != nil {
		return nil, cacheValidators{}, err
	}
	if f.validators.etag != "" {
		request.Header.Set("If-None-Match", f.validators.etag)
	}
	if f.validators.lastModified != "" {
		request.Header.Set("If-Modified-Since", f.validators.lastModified)
	}
	response, err := f.Client.Do(request)
	if err != nil {
		return nil, cacheValidators{}, err
	}
	defer response.Body.Close()
	switch {
	case response.StatusCode == http.StatusNotModified && f.validators != (cacheValidators{}):
		return nil, f.validators, nil
	case response.StatusCode != http.StatusOK:
		return nil, cacheValidators{}, fmt.Errorf("GET %s: %s", f.URL, response.Status)
	}
	d, err := read(response.Body, sourceFormat)
	return d, cacheValidators{etag: response.Header.Get("ETag"), lastModified: response.Header.Get("Last-Modified")}, err
}

var errInsecureRedirect = errors.New("redirected to a URL that is not https")

// NewClient returns an HTTP client for a Feed: over TLS alone, also where it is redirected.
func NewClient(timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout: timeout,
		CheckRedirect: func(request *http.Request, via []*http.Request) error {
			if request.URL.Scheme != "https" {
				return errInsecureRedirect
			}
			if len(via) > 3 {
				return errors.New("redirected more than three times")
			}
			return nil
		},
	}
}
