package admission

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"os"
	"runtime"
	"sync"
	"time"

	"egress-agent/pkg/audit"
)

const (
	path      = "/validate"
	mediaType = "application/json"
	// maxBody bounds the body of a review, in bytes. An API server accepts objects of up to 3 MiB, but only ConfigMaps
	// of up to 1 MiB. A review of an update contains two ConfigMaps.
	maxBody = 3 << 20
	// maxSmallBody is the largest size of a small body, in bytes. Most reviews are small. Small and large
	// bodies have separate limits, because few large bodies fit and they must not block small ones.
	maxSmallBody          = 128 << 10
	maxSmallBytesInFlight = 128 * maxSmallBody
	maxLargeBytesInFlight = 8 * maxBody
	// minReservation is the smallest reservation for a body, in bytes.
	minReservation = 16 << 10
)

type handler struct {
	rules   func() Rules
	trail   *audit.Log // may be nil
	metrics *Metrics
	log     *rateLimitedLog

	smallBytes, largeBytes *clientShares // bytes reserved for bodies in flight
	evaluations            *fairSemaphore
	buffers                sync.Pool // of *bytes.Buffer, for bodies and responses
}

// Handler serves POST /validate. rules returns what reviews judge by now. A review gets 200 and its verdict. Any other
// request gets a 4xx or 5xx status, which an API server treats as a failed call.
//
// trail gets an entry for each changed policy that Handler allows. It may be nil.
//
// Each client has a share of the memory for bodies. If a client exceeds its share, Handler returns 429; API
// servers retry.
func Handler(rules func() Rules, trail *audit.Log, metrics *Metrics, log *slog.Logger) http.Handler {
	return &handler{
		rules: rules, trail: trail, metrics: metrics, log: &rateLimitedLog{Logger: log},
		smallBytes: newClientShares(maxSmallBytesInFlight), largeBytes: newClientShares(maxLargeBytesInFlight),
		evaluations: newFairSemaphore(runtime.GOMAXPROCS(0)),
		buffers:     sync.Pool{New: func() any { return &bytes.Buffer{} }},
	}
}

// httpError is the error for a request that gets no verdict.
type httpError struct {
	status int
	reason string // a value of the label reason
	err    error
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	started := time.Now()
	if httpErr := h.serve(w, r); httpErr != nil {
		h.metrics.refused.WithLabelValues(httpErr.reason).Inc()
		h.log.Warn("request refused", "status", httpErr.status, "error", httpErr.err, "client", r.RemoteAddr)
		http.Error(w, httpErr.err.Error(), httpErr.status)
		return
	}
	h.metrics.duration.Observe(time.Since(started).Seconds())
}

// serve answers a review. It returns an error if the request gets no verdict.
func (h *handler) serve(w http.ResponseWriter, r *http.Request) *httpError {
	if httpErr := checkHeader(w, r); httpErr != nil {
		return httpErr
	}
	h.metrics.inFlight.Inc()
	defer h.metrics.inFlight.Dec()
	buffer := h.buffers.Get().(*bytes.Buffer)
	defer func() {
		if buffer.Cap() <= maxSmallBody { // otherwise the pool would retain the memory of one large review
			h.buffers.Put(buffer)
		}
	}()
	buffer.Reset()
	client := clientAddress(r.RemoteAddr)
	b := &bodyReader{handler: h, client: client, buffer: buffer}
	defer b.release()
	if httpErr := b.read(w, r); httpErr != nil {
		return httpErr
	}
	request, response, httpErr := h.decide(r.Context(), client, buffer.Bytes())
	if httpErr != nil {
		return httpErr
	}
	h.recordVerdict(request, response)
	buffer.Reset()
	writeReview(buffer, response)
	w.Header().Set("Content-Type", mediaType)
	if _, err := w.Write(buffer.Bytes()); err != nil {
		h.log.Warn("write response failed", "error", err, "client", r.RemoteAddr)
	}
	return nil
}

// decide returns the request in a body and its verdict. It waits for the semaphore twice: before it parses the body,
// and, when it knows the namespace, before it reviews the request. It does not evaluate a request whose caller has
// disconnected.
func (h *handler) decide(ctx context.Context, client string, body []byte) (*Request, *Response, *httpError) {
	var request *Request
	var response *Response
	var err error
	if httpErr := h.runLimited(ctx, client, "", func() { request, err = readReview(body) }); httpErr != nil {
		return nil, nil, httpErr
	}
	if err != nil {
		return nil, nil, &httpError{http.StatusBadRequest, reasonMalformed, err}
	}
	namespace := ""
	if request != nil {
		namespace = request.Namespace
	}
	if httpErr := h.runLimited(ctx, client, namespace, func() { response, err = h.review(request) }); httpErr != nil {
		return nil, nil, httpErr
	}
	if err != nil {
		return nil, nil, &httpError{http.StatusBadRequest, reasonMalformed, err}
	}
	return request, response, nil
}

// review reviews a request, and writes its audit entry.
func (h *handler) review(request *Request) (*Response, error) {
	rules := h.rules()
	response, err := Review(request, rules)
	if err != nil || h.trail == nil {
		return response, err
	}
	if entry, ok := auditEntry(request, response, rules); ok {
		h.trail.Write(entry)
	}
	return response, nil
}

// runLimited calls evaluate when the semaphore admits the caller. It returns an error if ctx ends first.
func (h *handler) runLimited(ctx context.Context, client, namespace string, evaluate func()) *httpError {
	if err := h.evaluations.acquire(ctx, client, namespace); err != nil {
		return &httpError{http.StatusServiceUnavailable, reasonCallerLeft, fmt.Errorf("the caller disconnected before its review got a verdict: %w", err)}
	}
	defer h.evaluations.release()
	evaluate()
	return nil
}

// checkHeader returns an error unless the path, method, content type and announced length fit a review.
func checkHeader(w http.ResponseWriter, r *http.Request) *httpError {
	if r.URL.Path != path {
		return &httpError{http.StatusNotFound, reasonPath, fmt.Errorf("path %q not found; send reviews to %s", r.URL.Path, path)}
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return &httpError{http.StatusMethodNotAllowed, reasonMethod, fmt.Errorf("method %q not allowed; use POST", r.Method)}
	}
	if contentType := r.Header.Get("Content-Type"); contentType != mediaType { // it may still be the media type with parameters
		if media, _, _ := mime.ParseMediaType(contentType); media != mediaType {
			return &httpError{http.StatusUnsupportedMediaType, reasonContentType, fmt.Errorf("content type %q not supported; use %s", contentType, mediaType)}
		}
	}
	if r.ContentLength > maxBody {
		return tooLarge()
	}
	return nil
}

func tooLarge() *httpError {
	return &httpError{http.StatusRequestEntityTooLarge, reasonTooLarge, fmt.Errorf("the body is larger than %d bytes", maxBody)}
}

// bodyReader reads the body of one request. Before it allocates memory, it reserves the same amount from its client's
// share. Before the first bytes arrive, it reserves only minReservation, even if the Content-Length is larger.
type bodyReader struct {
	*handler
	client   string
	buffer   *bytes.Buffer
	shares   *clientShares
	reserved int64
}

// read reads the whole body into the buffer.
func (b *bodyReader) read(w http.ResponseWriter, r *http.Request) *httpError {
	reader := http.MaxBytesReader(w, r.Body, maxBody)
	for {
		if httpErr := b.grow(w, r.ContentLength); httpErr != nil {
			return httpErr
		}
		// Read at most the free capacity: the buffer must not grow beyond the reservation.
		free := b.buffer.AvailableBuffer()[:b.buffer.Available()]
		n, err := reader.Read(free)
		b.buffer.Write(free[:n])
		switch maxBytesErr := (*http.MaxBytesError)(nil); {
		case err == nil:
		case err == io.EOF:
			return nil
		case errors.As(err, &maxBytesErr):
			return tooLarge()
		case errors.Is(err, os.ErrDeadlineExceeded):
			return &httpError{http.StatusRequestTimeout, reasonBody, fmt.Errorf("the body did not arrive within %s", readTimeout)}
		default:
			return &httpError{http.StatusBadRequest, reasonBody, fmt.Errorf("read the body: %w", err)}
		}
	}
}

// grow ensures that the buffer has free capacity. It doubles the buffer. After half of the body has arrived, it grows
// the buffer to contentLength, the announced length.
func (b *bodyReader) grow(w http.ResponseWriter, contentLength int64) *httpError {
	if b.buffer.Available() > 0 && b.reserved > 0 {
		return nil
	}
	size := max(2*int64(b.buffer.Len()), minReservation)
	if contentLength > 0 && size > contentLength {
		size = max(contentLength+1, minReservation) // one more byte, to detect the end
	}
	size = max(size, int64(b.buffer.Cap()))
	if !b.reserve(size) {
		w.Header().Set("Retry-After", "1")
		return &httpError{http.StatusTooManyRequests, reasonBusy, errors.New("too many reviews in flight; retry in one second")}
	}
	b.buffer.Grow(int(size) - b.buffer.Len())
	return nil
}

// reserve raises the reservation to size bytes. It reports whether the client's share allows that. If the body outgrows
// maxSmallBody, reserve moves the reservation from smallBytes to largeBytes.
func (b *bodyReader) reserve(size int64) bool {
	shares, additional := b.smallBytes, size-b.reserved
	if size > maxSmallBody+1 {
		shares = b.largeBytes
	}
	if shares != b.shares {
		additional = size
	}
	if !shares.acquire(b.client, additional) {
		return false
	}
	if shares != b.shares {
		b.release()
	}
	b.shares, b.reserved = shares, size
	return true
}

// release ends the reservation.
func (b *bodyReader) release() {
	if b.shares != nil {
		b.shares.release(b.client, b.reserved)
	}
}

// recordVerdict counts and logs a verdict. It logs only the first problem, because a policy may contain
// confidential text.
func (h *handler) recordVerdict(request *Request, response *Response) {
	verdict, level := verdictAllowed, slog.LevelDebug
	if !response.Allowed {
		verdict, level = verdictDenied, slog.LevelInfo
	}
	h.metrics.reviews.WithLabelValues(request.Operation, verdict).Inc()
	if !h.log.Enabled(context.Background(), level) {
		return
	}
	attributes := []any{"namespace", request.Namespace, "name", request.Name, "operation", request.Operation,
		"dryRun", request.DryRun, "user", request.UserInfo.Username}
	if response.Allowed {
		attributes = append(attributes, "warnings", len(response.Warnings))
	} else {
		causes := response.Result.Details.Causes
		attributes = append(attributes, "problems", len(causes), "first", causes[0].Message, "path", causes[0].Field)
	}
	h.log.Log(context.Background(), level, verdict, attributes...)
}
