package admission

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func noRanges() Rules { return Rules{Options: options} }

// newMetrics returns metrics for a handler without a certificate and ranges.
func newMetrics() *Metrics {
	return NewMetrics(prometheus.NewRegistry(), &Certificate{}, &Ranges{}, nil)
}

func newHandler(metrics *Metrics) http.Handler {
	return Handler(noRanges, nil, metrics, slog.New(slog.DiscardHandler))
}

func post(handler http.Handler, body io.Reader) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/validate", body)
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

func TestHandlerStatus(t *testing.T) {
	goodReview := review(t, request("CREATE", runtime.RawExtension{}, object(t, good)))
	w := post(newHandler(newMetrics()), bytes.NewReader(goodReview))
	require.Equal(t, http.StatusOK, w.Code)
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	require.JSONEq(t, `{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": {"uid": "u-1", "allowed": true}}`, w.Body.String())

	padded := func(size int) []byte {
		return append(bytes.Clone(goodReview), bytes.Repeat([]byte(" "), size-len(goodReview))...)
	}
	for _, test := range []struct {
		name, method, path, contentType string
		body                            []byte
		want                            int
		reason                          string
	}{
		{"parameters of the content type", "POST", "/validate", "application/json; charset=utf-8", goodReview, 200, ""},
		{"query", "POST", "/validate?timeout=5s", "application/json", goodReview, 200, ""},
		{"method", "GET", "/validate", "application/json", goodReview, 405, "method"},
		{"path", "POST", "/", "application/json", goodReview, 404, "path"},
		{"content type", "POST", "/validate", "text/plain", goodReview, 415, "content_type"},
		{"no content type", "POST", "/validate", "", goodReview, 415, "content_type"},
		{"empty", "POST", "/validate", "application/json", nil, 400, "malformed"},
		{"truncated", "POST", "/validate", "application/json", goodReview[:len(goodReview)/2], 400, "malformed"},
		{"two reviews", "POST", "/validate", "application/json", append(bytes.Clone(goodReview), goodReview...), 400, "malformed"},
		{"nested", "POST", "/validate", "application/json", bytes.Repeat([]byte("["), 20000), 400, "malformed"},
		{"no request", "POST", "/validate", "application/json", review(t, nil), 400, "malformed"},
		{"null", "POST", "/validate", "application/json", []byte("null"), 400, "malformed"},
		{"v1beta1", "POST", "/validate", "application/json", bytes.Replace(goodReview, []byte("k8s.io/v1"), []byte("k8s.io/v1beta1"), 1), 400, "malformed"},
		{"another kind", "POST", "/validate", "application/json", bytes.Replace(goodReview, []byte("AdmissionReview"), []byte("Admission"), 1), 400, "malformed"},
		{"letter case", "POST", "/validate", "application/json", bytes.Replace(goodReview, []byte("request"), []byte("Request"), 1), 400, "malformed"},
		{"the largest body", "POST", "/validate", "application/json", padded(maxBody), 200, ""},
		{"one byte too many", "POST", "/validate", "application/json", padded(maxBody + 1), 413, "too_large"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, chunked := range []bool{false, true} {
				r := httptest.NewRequest(test.method, test.path, bytes.NewReader(test.body))
				if chunked {
					r.ContentLength = -1
				}
				if test.contentType != "" {
					r.Header.Set("Content-Type", test.contentType)
				}
				w, metrics := httptest.NewRecorder(), newMetrics()
				newHandler(metrics).ServeHTTP(w, r)
				require.Equal(t, test.want, w.Code, w.Body.String())
				for _, reason := range reasons {
					want := 0.0
					if reason == test.reason {
						want = 1
					}
					require.Equal(t, want, testutil.ToFloat64(metrics.refused.WithLabelValues(reason)), reason)
				}
			}
		})
	}
}

// gate is a body that blocks until opened is closed.
type gate struct {
	opened chan struct{}
	body   io.Reader
}

func (g *gate) Read(p []byte) (int, error) {
	<-g.opened
	return g.body.Read(p)
}

// postAs sends a review as a client. The end of ctx cancels the request.
func postAs(ctx context.Context, handler http.Handler, client string, length int64, body io.Reader) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/validate", body)
	r.RemoteAddr = client + ":12345"
	r.ContentLength = length
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

const apiServer, otherClient = "10.0.0.1", "10.0.0.2"

// TestHeadersReserveLittle checks that an announced length reserves only the minimum. 64 requests that send
// only headers do not block the API server, even from its own address.
func TestHeadersReserveLittle(t *testing.T) {
	body := review(t, request("CREATE", runtime.RawExtension{}, object(t, good)))
	metrics := newMetrics()
	handler := newHandler(metrics)
	opened, codes := make(chan struct{}), make(chan int)
	for range 64 {
		go func() {
			codes <- postAs(t.Context(), handler, apiServer, maxBody, &gate{opened, bytes.NewReader(body)}).Code
		}()
	}
	require.Eventually(t, func() bool { return testutil.ToFloat64(metrics.inFlight) == 64 }, 30*time.Second, time.Millisecond)
	require.Equal(t, http.StatusOK, postAs(t.Context(), handler, apiServer, int64(len(body)), bytes.NewReader(body)).Code)
	close(opened)
	for range 64 {
		require.Equal(t, http.StatusOK, <-codes)
	}
}

// TestBusyClientLeavesShares lets one client fill its share of the memory for small or large bodies. Another
// client still gets a share. Large bodies never use the memory for small ones.
func TestBusyClientLeavesShares(t *testing.T) {
	small := review(t, request("CREATE", runtime.RawExtension{}, object(t, good)))
	large := append(bytes.Clone(small), bytes.Repeat([]byte(" "), 2<<20)...)
	for _, test := range []struct {
		name     string
		body     []byte
		fitCount int
	}{{"small", small, maxSmallBytesInFlight / minReservation / 2}, {"large", large, maxLargeBytesInFlight / (4 << 20) / 2}} {
		t.Run(test.name, func(t *testing.T) {
			metrics := newMetrics()
			handler := newHandler(metrics)
			opened, codes := make(chan struct{}), make(chan int)
			for range test.fitCount {
				go func() {
					endless := io.MultiReader(bytes.NewReader(test.body), &gate{opened, strings.NewReader("")})
					codes <- postAs(t.Context(), handler, otherClient, -1, endless).Code
				}()
			}
			h := asHandler(handler)
			isShareUsedUp := func() bool {
				for _, shares := range []*clientShares{h.smallBytes, h.largeBytes} {
					shares.mu.Lock()
					isUsed := shares.held[otherClient] > 0 && shares.held[otherClient] >= shares.free
					shares.mu.Unlock()
					if isUsed {
						return true
					}
				}
				return false
			}
			require.Eventually(t, isShareUsedUp, 30*time.Second, time.Millisecond)
			w := postAs(t.Context(), handler, otherClient, -1, bytes.NewReader(test.body))
			require.Equal(t, http.StatusTooManyRequests, w.Code)
			require.Equal(t, "1", w.Header().Get("Retry-After"))
			require.Equal(t, 1.0, testutil.ToFloat64(metrics.refused.WithLabelValues(reasonBusy)))
			require.Equal(t, http.StatusOK, postAs(t.Context(), handler, apiServer, -1, bytes.NewReader(test.body)).Code)
			if test.name == "large" {
				require.Equal(t, http.StatusOK, postAs(t.Context(), handler, otherClient, -1, bytes.NewReader(small)).Code)
			}
			close(opened)
			for range test.fitCount {
				require.Equal(t, http.StatusOK, <-codes)
			}
			require.Equal(t, http.StatusOK, postAs(t.Context(), handler, otherClient, -1, bytes.NewReader(test.body)).Code, "the share is free again")
			require.Zero(t, testutil.ToFloat64(metrics.inFlight))
			require.Empty(t, h.smallBytes.held)
			require.Empty(t, h.largeBytes.held)
		})
	}
}

// TestCallerLeftGetsNoVerdict checks that a review gets no verdict if its caller disconnects while it waits.
func TestCallerLeftGetsNoVerdict(t *testing.T) {
	body := review(t, request("CREATE", runtime.RawExtension{}, object(t, good)))
	metrics := newMetrics()
	handler := newHandler(metrics)
	evaluations := asHandler(handler).evaluations
	for range goruntime.GOMAXPROCS(0) {
		require.NoError(t, evaluations.acquire(t.Context(), apiServer, ""))
	}
	ctx, leave := context.WithCancel(t.Context())
	codes := make(chan int)
	for range 10 {
		go func() { codes <- postAs(ctx, handler, apiServer, -1, bytes.NewReader(body)).Code }()
	}
	require.Eventually(t, func() bool {
		evaluations.mu.Lock()
		defer evaluations.mu.Unlock()
		return len(evaluations.waiters) == 10
	}, 30*time.Second, time.Millisecond)
	leave()
	for range 10 {
		require.Equal(t, http.StatusServiceUnavailable, <-codes)
	}
	require.Empty(t, evaluations.waiters)
	require.Equal(t, 10.0, testutil.ToFloat64(metrics.refused.WithLabelValues(reasonCallerLeft)))
	for range goruntime.GOMAXPROCS(0) {
		evaluations.release()
	}
	require.Equal(t, http.StatusServiceUnavailable, postAs(ctx, handler, apiServer, -1, bytes.NewReader(body)).Code, "the caller has already disconnected")
	require.Zero(t, testutil.ToFloat64(metrics.reviews.WithLabelValues("CREATE", "allowed")))
	require.Equal(t, http.StatusOK, postAs(t.Context(), handler, apiServer, -1, bytes.NewReader(body)).Code)
}

// TestRefusedRequestsLogIsLimited checks that clients cannot fill a disk with log lines.
func TestRefusedRequestsLogIsLimited(t *testing.T) {
	var log bytes.Buffer
	handler := Handler(noRanges, nil, newMetrics(), slog.New(slog.NewJSONHandler(&log, nil)))
	started := time.Now()
	for range 1000 {
		post(handler, strings.NewReader("x"))
	}
	seconds := int(time.Since(started)/time.Second) + 2
	require.LessOrEqual(t, strings.Count(log.String(), "\n"), seconds*(maxWarningsPerSecond+1))
}

// failingBody is a body whose Read returns err.
type failingBody struct{ err error }

func (f failingBody) Read([]byte) (int, error) { return 0, f.err }

func TestUnreadableBody(t *testing.T) {
	w := post(newHandler(newMetrics()), failingBody{os.ErrDeadlineExceeded})
	require.Equal(t, http.StatusRequestTimeout, w.Code)
	require.Equal(t, "the body did not arrive within 5s\n", w.Body.String())
	require.Equal(t, http.StatusBadRequest, post(newHandler(newMetrics()), failingBody{io.ErrUnexpectedEOF}).Code)
}

func TestReviewsAreCountedAndLogged(t *testing.T) {
	var log bytes.Buffer
	metrics := newMetrics()
	handler := Handler(noRanges, nil, metrics, slog.New(slog.NewJSONHandler(&log, nil)))
	secret := strings.ReplaceAll(bad, `"allowedDestinations"`, `"note": "hunter2", "allowedDestinations"`)
	for range 3 {
		post(handler, bytes.NewReader(review(t, request("CREATE", runtime.RawExtension{}, object(t, good)))))
	}
	require.Empty(t, log.String(), "an allowed review is logged only at level debug")
	post(handler, bytes.NewReader(review(t, request("UPDATE", object(t, good), object(t, secret)))))
	for labels, want := range map[[2]string]float64{{"CREATE", "allowed"}: 3, {"UPDATE", "denied"}: 1, {"CREATE", "denied"}: 0, {"UPDATE", "allowed"}: 0} {
		require.Equal(t, want, testutil.ToFloat64(metrics.reviews.WithLabelValues(labels[:]...)), labels)
	}
	require.Equal(t, 1, testutil.CollectAndCount(metrics.duration))

	var line map[string]any
	require.NoError(t, json.Unmarshal(log.Bytes(), &line))
	delete(line, "time")
	require.Equal(t, map[string]any{"level": "INFO", "msg": "denied", "namespace": "tenant-a", "name": "egress", "operation": "UPDATE", "dryRun": false,
		"user": "jane", "problems": 3.0, "first": "Unknown field: note", "path": "note"}, line)
}

// TestResponsesDecodeStrictly decodes responses with the API's own types.
func TestResponsesDecodeStrictly(t *testing.T) {
	for document, allowed := range map[string]bool{good: true, bad: false} {
		w := post(newHandler(newMetrics()), bytes.NewReader(review(t, request("CREATE", runtime.RawExtension{}, object(t, document)))))
		var answer admissionv1.AdmissionReview
		decoder := json.NewDecoder(w.Body)
		decoder.DisallowUnknownFields()
		require.NoError(t, decoder.Decode(&answer))
		require.Equal(t, allowed, answer.Response.Allowed)
		require.EqualValues(t, "u-1", answer.Response.UID)
		require.Equal(t, allowed, answer.Response.Result == nil)
	}
}

// BenchmarkHandler measures a whole review without the network.
func BenchmarkHandler(b *testing.B) {
	body := review(b, request("CREATE", runtime.RawExtension{}, object(b, good)))
	handler := newHandler(newMetrics())
	b.ReportAllocs()
	for b.Loop() {
		if w := post(handler, bytes.NewReader(body)); w.Code != http.StatusOK {
			b.Fatal(w.Code)
		}
	}
}

func asHandler(h http.Handler) *handler { return h.(*handler) }
