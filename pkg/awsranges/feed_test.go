package awsranges

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// plainJSON returns the result of Encode, uncompressed.
func plainJSON(t *testing.T, table *Table) []byte {
	t.Helper()
	zipped, err := Encode(table)
	require.NoError(t, err)
	reader, err := gzip.NewReader(bytes.NewReader(zipped))
	require.NoError(t, err)
	data, err := io.ReadAll(reader)
	require.NoError(t, err)
	return data
}

// documentWith returns a document with a row 198.18.N.0/24 of S3 in us-east-1 for each number N.
func documentWith(token int, numbers ...int) string {
	rows := make([]string, 0, len(numbers))
	for _, n := range numbers {
		rows = append(rows, fmt.Sprintf(`{"ip_prefix": "198.18.%d.0/24", "region": "us-east-1", "service": "S3"}`, n))
	}
	return fmt.Sprintf(`{"syncToken": "%d", "createDate": "d%d", "prefixes": [%s]}`, token, token, strings.Join(rows, ", "))
}

// evenNumbers returns the first n even numbers. Rows of even numbers do not aggregate.
func evenNumbers(n int) []int {
	numbers := make([]int, n)
	for i := range numbers {
		numbers[i] = 2 * i
	}
	return numbers
}

// mustParse parses a document that must be valid.
func mustParse(t *testing.T, document string) *Table {
	t.Helper()
	table, err := Parse([]byte(document))
	require.NoError(t, err)
	return table
}

func TestEncodeLeavesOutCustomRows(t *testing.T) {
	aws, err := ReadFile(sample)
	require.NoError(t, err)
	own, err := ReadFile(custom)
	require.NoError(t, err)
	require.Equal(t, plainJSON(t, aws), plainJSON(t, Merge(aws, own)))
	odd := mustParse(t, `{"syncToken": "\"1\"", "prefixes": [{"ip_prefix": "3.0.0.0/24", "service": "Ü<\\>", "region": "a\nb"}]}`)
	require.Equal(t, odd, mustParse(t, string(plainJSON(t, odd))))
}

// server serves handle over TLS and records the requests.
type server struct {
	*httptest.Server
	handle   http.HandlerFunc
	requests []*http.Request
}

func newServer(t *testing.T) *server {
	s := &server{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests = append(s.requests, r)
		s.handle(w, r)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func (s *server) feed() *Feed {
	client := NewClient(5 * time.Second)
	client.Transport = s.Client().Transport
	return &Feed{URL: s.URL, Client: client, RemovalHold: 24 * time.Hour}
}

// fetchAt calls Fetch with now as the current time.
func fetchAt(t *testing.T, f *Feed, now time.Time) (*Table, error) {
	f.Now = func() time.Time { return now }
	return f.Fetch(t.Context())
}

// serving returns a handler that serves body and answers conditional requests.
func serving(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		etag := fmt.Sprintf(`"%x"`, len(body))
		w.Header().Set("ETag", etag)
		w.Header().Set("Last-Modified", "Tue, 14 Nov 2023 22:13:20 GMT")
		if r.Header.Get("If-None-Match") == etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		io.WriteString(w, body)
	}
}

func TestFetchIsConditional(t *testing.T) {
	s := newServer(t)
	f := s.feed()
	s.handle = serving(documentWith(1, evenNumbers(20)...))
	first, err := fetchAt(t, f, time.Unix(1, 0))
	require.NoError(t, err)
	require.Len(t, first.Rows(), 20)
	again, err := fetchAt(t, f, time.Unix(2, 0))
	require.NoError(t, err)
	require.Same(t, first, again)
	require.Empty(t, s.requests[0].Header.Get("If-None-Match"))
	require.NotEmpty(t, s.requests[1].Header.Get("If-None-Match"))
	require.Equal(t, "Tue, 14 Nov 2023 22:13:20 GMT", s.requests[1].Header.Get("If-Modified-Since"))

	s.handle = serving(documentWith(2, evenNumbers(5)...))
	for range 2 {
		_, err = fetchAt(t, f, time.Unix(3, 0))
		var refused *RefusedError
		require.ErrorAs(t, err, &refused, "Fetch does not store the validators of a refused document")
		require.EqualError(t, err, "the document has only 5 of the accepted 20 IPv4 rows; the minimum is 85 %; to accept the document anyway, start with --accept-ranges 2")
		require.Same(t, first, f.Table())
	}
	f.AcceptToken = "3"
	_, err = fetchAt(t, f, time.Unix(3, 0))
	require.Error(t, err, "AcceptToken is for another document")
	f.AcceptToken = "2"
	accepted, err := fetchAt(t, f, time.Unix(4, 0))
	require.NoError(t, err)
	require.Len(t, accepted.Held(), 15)
	expired, err := fetchAt(t, f, time.Unix(4, 0).Add(25*time.Hour))
	require.NoError(t, err, "304")
	require.Nil(t, expired.Held(), "a Fetch without a change ends holds")

	s.handle = serving(`{"syncToken": "2", "prefixes": [{"ip_prefix": "0.0.0.0/0", "region": "us-east-1", "service": "S3"}]}`)
	_, err = fetchAt(t, f, time.Unix(5, 0))
	require.EqualError(t, err, "0.0.0.0/0 (S3, us-east-1) is wider than /10", "AcceptToken does not override this check")
}

func TestFetchKeepsTableOnError(t *testing.T) {
	good := documentWith(5, evenNumbers(20)...)
	var bomb bytes.Buffer
	zipped := gzip.NewWriter(&bomb)
	for range 20 {
		_, err := zipped.Write(bytes.Repeat([]byte{' '}, 1<<20))
		require.NoError(t, err)
	}
	require.NoError(t, zipped.Close())
	for _, test := range []struct {
		name    string
		refused bool
		want    string
		handle  http.HandlerFunc
	}{
		{"404", false, "GET URL: 404 Not Found", http.NotFound},
		{"500", false, "GET URL: 500 Internal Server Error", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }},
		{"304 to an unconditional GET", false, "GET URL: 304 Not Modified", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(304) }},
		{"HTML", true, "not an ip-ranges document: invalid character '<' looking for beginning of value", serving("<html>")},
		{"empty object", true, `not an ip-ranges document: no rows in "prefixes" or "ipv6_prefixes"`, serving("{}")},
		{"removed rows", true, `prefixes[1]: unknown field "removed"; a row has ip_prefix or ipv6_prefix, region, service and network_border_group`,
			serving(strings.Replace(documentWith(6, evenNumbers(20)...), `"198.18.2.0/24"`, `"198.18.2.0/24", "removed": 1`, 1))},
		{"removed row without a time", true, `prefixes[1]: unknown field "removed"; a row has ip_prefix or ipv6_prefix, region, service and network_border_group`,
			serving(strings.Replace(documentWith(6, evenNumbers(20)...), `"198.18.2.0/24"`, `"198.18.2.0/24", "removed": null`, 1))},
		{"another field", true, `not an ip-ranges document: unknown field "deny"; the fields are syncToken, createDate, prefixes and ipv6_prefixes`,
			serving(strings.Replace(documentWith(6, evenNumbers(20)...), `{`, `{"deny": [], `, 1))},
		{"another spelling", true, `not an ip-ranges document: unknown field "Prefixes"; the fields are syncToken, createDate, prefixes and ipv6_prefixes`,
			serving(strings.Replace(documentWith(6, evenNumbers(20)...), `"prefixes"`, `"Prefixes"`, 1))},
		{"truncated, complete for HTTP", true, "not an ip-ranges document: unexpected EOF", serving(good[:len(good)/2])},
		{"truncated", false, "unexpected EOF", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(good)))
			io.WriteString(w, good[:len(good)/2])
		}},
		{"gzip bomb", true, "not an ip-ranges document: the document is larger than 16 MiB", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(bomb.Bytes())
		}},
		{"gzip bomb in the body", true, "not an ip-ranges document: the document is larger than 16 MiB", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/gzip")
			w.Write(bomb.Bytes())
		}},
		{"redirected to http", false, `Get "http://localhost/x": redirected to a URL that is not https`, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://localhost/x", http.StatusFound)
		}},
		{"redirected for ever", false, `Get "/x": redirected more than three times`, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/x", http.StatusFound)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newServer(t)
			s.handle = test.handle
			f := s.feed()
			require.NoError(t, f.Resume(mustParse(t, good)))
			before := f.Table()
			_, err := fetchAt(t, f, time.Unix(9, 0))
			require.EqualError(t, err, strings.ReplaceAll(test.want, "GET URL", "GET "+s.URL))
			var refused *RefusedError
			require.Equal(t, test.refused, errors.As(err, &refused))
			require.Same(t, before, f.Table())
		})
	}
	t.Run("slow", func(t *testing.T) {
		s := newServer(t)
		s.handle = func(w http.ResponseWriter, r *http.Request) {
			for {
				if _, err := io.WriteString(w, " "); err != nil || http.NewResponseController(w).Flush() != nil {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
		f := s.feed()
		f.Client.Timeout = 100 * time.Millisecond
		_, err := fetchAt(t, f, time.Unix(9, 0))
		require.ErrorContains(t, err, "Client.Timeout")
	})
	t.Run("not trusted", func(t *testing.T) {
		s := newServer(t)
		f := s.feed()
		f.Client = NewClient(5 * time.Second)
		_, err := fetchAt(t, f, time.Unix(9, 0))
		require.ErrorContains(t, err, "certificate signed by unknown authority")
		require.Empty(t, s.requests)
	})
	t.Run("invalid table for Resume", func(t *testing.T) {
		f := &Feed{}
		table := mustParse(t, `{"syncToken": "1", "prefixes": [{"ip_prefix": "0.0.0.0/0", "region": "us-east-1", "service": "S3"}]}`)
		require.EqualError(t, f.Resume(table), "0.0.0.0/0 (S3, us-east-1) is wider than /10")
		require.Nil(t, f.Table())
	})
}

func TestFetchReadsChangedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ranges.json")
	write := func(document string) {
		require.NoError(t, os.WriteFile(path+"~", []byte(document), 0o600))
		require.NoError(t, os.Rename(path+"~", path))
	}
	f := &Feed{File: path, RemovalHold: time.Hour}
	_, err := fetchAt(t, f, time.Unix(1, 0))
	require.ErrorIs(t, err, os.ErrNotExist)
	write(documentWith(1, evenNumbers(20)...))
	first, err := fetchAt(t, f, time.Unix(1, 0))
	require.NoError(t, err)
	again, err := fetchAt(t, f, time.Unix(2, 0))
	require.NoError(t, err)
	require.Same(t, first, again)
	write(documentWith(2, evenNumbers(20)...))
	next, err := fetchAt(t, f, time.Unix(3, 0))
	require.NoError(t, err)
	require.Equal(t, "2", next.SyncToken())
	write("{")
	_, err = fetchAt(t, f, time.Unix(4, 0))
	require.Error(t, err)
	require.Same(t, next, f.Table())
}
