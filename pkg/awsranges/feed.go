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

// Feed fetches AWS's document and maintains a table from it. Set the fields before the first Fetch. Calls of
// Fetch must not overlap.
type Feed struct {
	// Fetch reads File if it is set. Otherwise Client fetches URL, and the timeout of Client bounds the whole Fetch.
	File   string
	URL    string
	Client *http.Client
	// RemovalHold is how long a removed prefix stays in the table.
	RemovalHold time.Duration
	// AcceptToken is the sync token of a document that Fetch accepts although it is older than the accepted document,
	// lacks too many rows or opens too many addresses. If AcceptToken is empty, Fetch accepts no such document.
	//
	// AcceptToken does not override the checks for content that AWS cannot have intended: unknown fields, rows that are
	// too wide or in reserved space, and publication times in the future.
	AcceptToken string
	// Now returns the current time. It decides when a hold ends and whether a document is from the future.
	Now func() time.Time

	table      *Table          // the accepted table with its held rows; nil before the first Fetch
	validators cacheValidators // of the last accepted document

	covered      []netip.Prefix // the result of coveredPrefixes(coveredTable), for the check of the next document
	coveredTable *Table
}

// cacheValidators are HTTP's validators for a conditional GET.
type cacheValidators struct{ etag, lastModified string }

// Resume sets the accepted table. It may be from another Feed, or saved before a restart. Call Resume before the first
// Fetch. It returns a *RefusedError if table is not valid.
func (f *Feed) Resume(table *Table) error {
	if err := validateDocument(nil, &table.document); err != nil {
		return &RefusedError{err}
	}
	f.table = table
	return nil
}

// Table returns the result of the last successful Fetch. Before the first one it returns the table that Resume set, or
// nil.
func (f *Feed) Table() *Table { return f.table }

// Fetch reads the document if it has changed since Fetch last accepted a document, and returns the table to use from
// now on. Fetch returns the current table if nothing changed. The table contains AWS's rows and the held rows, and no
// custom rows.
//
// On an error the current table stays, and no hold ends. A *RefusedError means that Fetch read a document and
// refused it.
func (f *Feed) Fetch(ctx context.Context) (*Table, error) {
	if f.coveredTable != f.table { // compute this before the download, to save time after it
		f.coveredTable, f.covered = f.table, coveredPrefixes(f.table)
	}
	d, validators, err := f.readSource(ctx)
	if err != nil {
		return nil, err
	}
	if d == nil {
		d = &f.table.document // unchanged
	} else if err := f.checkDocument(d); err != nil {
		return nil, &RefusedError{err}
	}
	f.table = applyHolds(f.table, d, f.Now(), f.RemovalHold)
	f.validators = validators
	return f.table, nil
}

// checkDocument returns an error if Fetch must refuse d.
func (f *Feed) checkDocument(d *document) error {
	if err := validateDocument(f.table, d); err != nil {
		return err
	}
	now := f.Now()
	if err := checkClock(d, now); err != nil {
		return err
	}
	if err := validateSuccessor(f.table, f.covered, d, now); err != nil && d.syncToken != f.AcceptToken {
		return fmt.Errorf("%w; to accept the document anyway, start with --accept-ranges %s", err, d.syncToken)
	}
	return nil
}

// readSource returns a nil document if the source has nothing newer than the accepted document.
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

// NewClient returns an HTTP client for a Feed. It follows at most three redirects, and only to https URLs.
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
