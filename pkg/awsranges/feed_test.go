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

// encoded is a table in AWS's format again, plain.
func encoded(t *testing.T, table *Table) []byte {
	t.Helper()
	zipped, err := Encode(table)
	require.NoError(t, err)
	reader, err := gzip.NewReader(bytes.NewReader(zipped))
	require.NoError(t, err)
	data, err := io.ReadAll(reader)
	require.NoError(t, err)
	return data
}

// made is a document with a row of 198.18.N.0/24 in S3, us-east-1 for each number.
func made(token int, numbers ...int) string {
	rows := make([]string, 0, len(numbers))
	for _, n := range numbers {
		rows = append(rows, fmt.Sprintf(`{"ip_prefix": "198.18.%d.0/24", "region": "us-east-1", "service": "S3"}`, n))
	}
	return fmt.Sprintf(`{"syncToken": "%d", "createDate": "d%d", "prefixes": [%s]}`, token, token, strings.Join(rows, ", "))
}

func upTo(n int) []int {
	numbers := make([]int, n)
	for i := range numbers {
		numbers[i] = 2 * i // no two of which aggregate
	}
	return numbers
}

func parsed(t *testing.T, document string) *Table {
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
	require.Equal(t, encoded(t, aws), encoded(t, Merge(aws, own)))
	odd := parsed(t, `{"syncToken": "\"1\"", "prefixes": [{"ip_prefix": "3.0.0.0/24", "service": "Ü<\\>", "region": "a\nb"}]}`)
	require.Equal(t, odd, parsed(t, string(encoded(t, odd))))
}

// server serves whatever handle is, over TLS.
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

func lookAt(t *testing.T, f *Feed, now time.Time) (*Table, error) {
	f.Now = func() time.Time { return now }
	return f.Fetch(t.Context())
}

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

func TestFeedAsksForWhatIsNew(t *testing.T) {
	s := newServer(t)
	f := s.feed()
	s.handle = serving(made(1, upTo(20)...))
	first, err := lookAt(t, f, time.Unix(1, 0))
	require.NoError(t, err)
	require.Len(t, first.Rows(), 20)
	again, err := lookAt(t, f, time.Unix(2, 0))
	require.NoError(t, err)
	require.Same(t, first, again)
	require.Empty(t, s.requests[0].Header.Get("If-None-Match"))
	require.NotEmpty(t, s.requests[1].Header.Get("If-None-Match"))
	require.Equal(t, "Tue, 14 Nov 2023 22:13:20 GMT", s.requests[1].Header.Get("If-Modified-Since"))

	s.handle = serving(made(2, upTo(5)...))
	for range 2 {
		_, err = lookAt(t, f, time.Unix(3, 0))
		var refusal *RefusedError
		require.ErrorAs(t, err, &refusal, "a refused document is not remembered as seen")
		require.EqualError(t, err, "it keeps 5 of 20 IPv4 rows, less than 85 %; to accept it all the same, start with --accept-ranges 2")
		require.Same(t, first, f.Table())
	}
	f.AcceptToken = "3"
	_, err = lookAt(t, f, time.Unix(3, 0))
	require.Error(t, err, "another document is to be accepted")
	f.AcceptToken = "2"
	accepted, err := lookAt(t, f, time.Unix(4, 0))
	require.NoError(t, err)
	require.Len(t, accepted.Held(), 15)
	expired, err := lookAt(t, f, time.Unix(4, 0).Add(25*time.Hour))
	require.NoError(t, err, "304")
	require.Nil(t, expired.Held(), "a look that finds nothing new drops what was held long enough")

	s.handle = serving(`{"syncToken": "2", "prefixes": [{"ip_prefix": "0.0.0.0/0", "region": "us-east-1", "service": "S3"}]}`)
	_, err = lookAt(t, f, time.Unix(5, 0))
	require.EqualError(t, err, "0.0.0.0/0 (S3, us-east-1) is wider than /10", "no token makes that acceptable")
}

func TestFeedFails(t *testing.T) {
	good := made(5, upTo(20)...)
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
		{"304 unasked", false, "GET URL: 304 Not Modified", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(304) }},
		{"HTML", true, "no ip-ranges document: invalid character '<' looking for beginning of value", serving("<html>")},
		{"nothing in it", true, `no ip-ranges document: it has no rows in "prefixes" or "ipv6_prefixes"`, serving("{}")},
		{"removed rows", true, `prefixes[1]: unknown field "removed"; a row has ip_prefix or ipv6_prefix, region, service and network_border_group`,
			serving(strings.Replace(made(6, upTo(20)...), `"198.18.2.0/24"`, `"198.18.2.0/24", "removed": 1`, 1))},
		{"a removed row, without a time", true, `prefixes[1]: unknown field "removed"; a row has ip_prefix or ipv6_prefix, region, service and network_border_group`,
			serving(strings.Replace(made(6, upTo(20)...), `"198.18.2.0/24"`, `"198.18.2.0/24", "removed": null`, 1))},
		{"another field", true, `no ip-ranges document: unknown field "deny"; it has syncToken, createDate, prefixes and ipv6_prefixes`,
			serving(strings.Replace(made(6, upTo(20)...), `{`, `{"deny": [], `, 1))},
		{"another spelling", true, `no ip-ranges document: unknown field "Prefixes"; it has syncToken, createDate, prefixes and ipv6_prefixes`,
			serving(strings.Replace(made(6, upTo(20)...), `"prefixes"`, `"Prefixes"`, 1))},
		{"cut, and complete to HTTP", true, "no ip-ranges document: unexpected EOF", serving(good[:len(good)/2])},
		{"cut", false, "unexpected EOF", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(good)))
			io.WriteString(w, good[:len(good)/2])
		}},
		{"gzip bomb", true, "no ip-ranges document: it has more than 16 MiB", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(bomb.Bytes())
		}},
		{"gzip bomb in the body", true, "no ip-ranges document: it has more than 16 MiB", func(w http.ResponseWriter, _ *http.Request) {
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
			require.NoError(t, f.Resume(parsed(t, good)))
			before := f.Table()
			_, err := lookAt(t, f, time.Unix(9, 0))
			require.EqualError(t, err, strings.ReplaceAll(test.want, "GET URL", "GET "+s.URL))
			var refusal *RefusedError
			require.Equal(t, test.refused, errors.As(err, &refusal))
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
		_, err := lookAt(t, f, time.Unix(9, 0))
		require.ErrorContains(t, err, "Client.Timeout")
	})
	t.Run("not trusted", func(t *testing.T) {
		s := newServer(t)
		f := s.feed()
		f.Client = NewClient(5 * time.Second)
		_, err := lookAt(t, f, time.Unix(9, 0))
		require.ErrorContains(t, err, "certificate signed by unknown authority")
		require.Empty(t, s.requests)
	})
	t.Run("resumed from what cannot be", func(t *testing.T) {
		f := &Feed{}
		table := parsed(t, `{"syncToken": "1", "prefixes": [{"ip_prefix": "0.0.0.0/0", "region": "us-east-1", "service": "S3"}]}`)
		require.EqualError(t, f.Resume(table), "0.0.0.0/0 (S3, us-east-1) is wider than /10")
		require.Nil(t, f.Table())
	})
}

func TestFeedRereadsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ranges.json")
	write := func(document string) {
		require.NoError(t, os.WriteFile(path+"~", []byte(document), 0o600))
		require.NoError(t, os.Rename(path+"~", path))
	}
	f := &Feed{File: path, RemovalHold: time.Hour}
	_, err := lookAt(t, f, time.Unix(1, 0))
	require.ErrorIs(t, err, os.ErrNotExist)
	write(made(1, upTo(20)...))
	first, err := lookAt(t, f, time.Unix(1, 0))
	require.NoError(t, err)
	again, err := lookAt(t, f, time.Unix(2, 0))
	require.NoError(t, err)
	require.Same(t, first, again)
	write(made(2, upTo(20)...))
	next, err := lookAt(t, f, time.Unix(3, 0))
	require.NoError(t, err)
	require.Equal(t, "2", next.SyncToken())
	write("{")
	_, err = lookAt(t, f, time.Unix(4, 0))
	require.Error(t, err)
	require.Same(t, next, f.Table())
}
