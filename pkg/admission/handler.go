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

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
)

const (
	path      = "/validate"
	mediaType = "application/json"
	// maxBody bounds a review. An API server takes objects of up to 3 MiB, and ConfigMaps of 1 MiB; an
	// update carries two.
	maxBody = 3 << 20
	// smallBody bounds a review of the usual size. Small and large bodies have rooms of their own, so that large ones,
	// of which few fit, never keep small ones out.
	smallBody = 128 << 10
	smallRoom = 128 * smallBody
	largeRoom = 8 * maxBody
	// leastBuffer is what a review takes at least.
	leastBuffer = 16 << 10
)

type handler struct {
	table   func() *awsranges.Table
	options netpol.Options
	metrics *Metrics
	log     *quietLog

	small, large *shares // of the bytes that bodies take
	judging      *turns
	buffers      sync.Pool // of *bytes.Buffer, for bodies and answers
}

// Handler serves POST /validate. table gives the ranges in use, and may give nil. A review gets 200
// and its verdict; what is no review gets a 4xx, which an API server takes as a failed call. One of a client that has more
// in flight than its share gets 429 and is to come again, which an API server does.
func Handler(table func() *awsranges.Table, options netpol.Options, metrics *Metrics, log *slog.Logger) http.Handler {
	return &handler{
		table: table, options: options, metrics: metrics, log: &quietLog{Logger: log},
		small: newShares(smallRoom), large: newShares(largeRoom), judging: newTurns(runtime.GOMAXPROCS(0)),
		buffers: sync.Pool{New: func() any { return &bytes.Buffer{} }},
	}
}

// httpError is why a request gets no verdict.
type httpError struct {
	status int
	reason string // one of reasons
	err    error
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	started := time.Now()
	if refused := h.serve(w, r); refused != nil {
		h.metrics.refused.WithLabelValues(refused.reason).Inc()
		h.log.Warn("refused a request that is no review", "status", refused.status, "error", refused.err, "client", r.RemoteAddr)
		http.Error(w, refused.err.Error(), refused.status)
		return
	}
	h.metrics.duration.Observe(time.Since(started).Seconds())
}

// serve answers a review, or says why not.
func (h *handler) serve(w http.ResponseWriter, r *http.Request) *httpError {
	if refused := checkHeader(w, r); refused != nil {
		return refused
	}
	h.metrics.inFlight.Inc()
	defer h.metrics.inFlight.Dec()
	buffer := h.buffers.Get().(*bytes.Buffer)
	defer func() {
		if buffer.Cap() <= smallBody { // one large review must not hold its memory for ever
			h.buffers.Put(buffer)
		}
	}()
	buffer.Reset()
	client := clientOf(r.RemoteAddr)
	b := &body{handler: h, client: client, buffer: buffer}
	defer b.release()
	if refused := b.read(w, r); refused != nil {
		return refused
	}
	request, response, refused := h.judge(r.Context(), client, buffer.Bytes())
	if refused != nil {
		return refused
	}
	h.report(request, response)
	buffer.Reset()
	writeReview(buffer, response)
	w.Header().Set("Content-Type", mediaType)
	if _, err := w.Write(buffer.Bytes()); err != nil {
		h.log.Warn("review not answered", "error", err, "client", r.RemoteAddr)
	}
	return nil
}

// judge waits for its turn, and for another once it knows whose the review is. One whose caller leaves meanwhile is never
// judged.
func (h *handler) judge(ctx context.Context, client string, body []byte) (*Request, *Response, *httpError) {
	var request *Request
	var response *Response
	var err error
	if left := h.inTurn(ctx, client, "", func() { request, err = readReview(body) }); left != nil {
		return nil, nil, left
	}
	if err != nil {
		return nil, nil, &httpError{http.StatusBadRequest, reasonMalformed, err}
	}
	namespace := ""
	if request != nil {
		namespace = request.Namespace
	}
	if left := h.inTurn(ctx, client, namespace, func() { response, err = Review(request, h.table(), h.options) }); left != nil {
		return nil, nil, left
	}
	if err != nil {
		return nil, nil, &httpError{http.StatusBadRequest, reasonMalformed, err}
	}
	return request, response, nil
}

func (h *handler) inTurn(ctx context.Context, client, namespace string, work func()) *httpError {
	if err := h.judging.take(ctx, client, namespace); err != nil {
		return &httpError{http.StatusServiceUnavailable, reasonLeft, fmt.Errorf("the caller left before its review was judged: %w", err)}
	}
	defer h.judging.end()
	work()
	return nil
}

// checkHeader judges all but the body.
func checkHeader(w http.ResponseWriter, r *http.Request) *httpError {
	if r.URL.Path != path {
		return &httpError{http.StatusNotFound, reasonPath, fmt.Errorf("nothing is at %q; reviews go to %s", r.URL.Path, path)}
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return &httpError{http.StatusMethodNotAllowed, reasonMethod, fmt.Errorf("the method is %q, not POST", r.Method)}
	}
	if contentType := r.Header.Get("Content-Type"); contentType != mediaType { // which it may be with parameters
		if media, _, _ := mime.ParseMediaType(contentType); media != mediaType {
			return &httpError{http.StatusUnsupportedMediaType, reasonContentType, fmt.Errorf("the content type is %q, not %s", contentType, mediaType)}
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

// body is a request's, whose memory is charged to its client before it is taken, and never before its bytes arrive.
type body struct {
	*handler
	client  string
	buffer  *bytes.Buffer
	room    *shares
	charged int64
}

func (b *body) read(w http.ResponseWriter, r *http.Request) *httpError {
	from := http.MaxBytesReader(w, r.Body, maxBody)
	for {
		if refused := b.grow(w, r.ContentLength); refused != nil {
			return refused
		}
		// No more than there is room for: the buffer must not grow by itself.
		room := b.buffer.AvailableBuffer()[:b.buffer.Available()]
		n, err := from.Read(room)
		b.buffer.Write(room[:n])
		switch large := (*http.MaxBytesError)(nil); {
		case err == nil:
		case err == io.EOF:
			return nil
		case errors.As(err, &large):
			return tooLarge()
		case errors.Is(err, os.ErrDeadlineExceeded):
			return &httpError{http.StatusRequestTimeout, reasonBody, fmt.Errorf("the body did not come within %s", readTimeout)}
		default:
			return &httpError{http.StatusBadRequest, reasonBody, fmt.Errorf("read the body: %w", err)}
		}
	}
}

// grow makes room in the buffer, twice as much as before, or as much as the body is said to have once half of that is
// there.
func (b *body) grow(w http.ResponseWriter, length int64) *httpError {
	if b.buffer.Available() > 0 && b.charged > 0 {
		return nil
	}
	size := max(2*int64(b.buffer.Len()), leastBuffer)
	if length > 0 && size > length {
		size = max(length+1, leastBuffer) // and one, which finds the end
	}
	size = max(size, int64(b.buffer.Cap()))
	if !b.charge(size) {
		w.Header().Set("Retry-After", "1")
		return &httpError{http.StatusTooManyRequests, reasonBusy, errors.New("too many reviews are in flight; come again in a second")}
	}
	b.buffer.Grow(int(size) - b.buffer.Len())
	return nil
}

// charge reports whether the client has room for so many bytes in all.
func (b *body) charge(size int64) bool {
	room, more := b.small, size-b.charged
	if size > smallBody+1 {
		room = b.large
	}
	if room != b.room {
		more = size
	}
	if !room.take(b.client, more) {
		return false
	}
	if room != b.room {
		b.release()
	}
	b.room, b.charged = room, size
	return true
}

func (b *body) release() {
	if b.room != nil {
		b.room.give(b.client, b.charged)
	}
}

// report counts a verdict and logs it. Of a policy only the first mistake is logged: the rest is its author's.
func (h *handler) report(request *Request, response *Response) {
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
