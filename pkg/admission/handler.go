package admission

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
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
	// maxRoom bounds what the reviews in flight may take in all, by the sizes of their bodies: 128 of the usual
	// size, or five of the largest. More would not be faster, and could take more memory than there is.
	maxRoom = 128 * leastRoom
	// leastRoom is what a review takes at least: its body is the smaller part of it.
	leastRoom = 128 << 10
)

type handler struct {
	table   func() *awsranges.Table
	options netpol.Options
	metrics *Metrics
	log     *slog.Logger

	room    atomic.Int64 // taken
	buffers sync.Pool    // of *bytes.Buffer, for bodies and answers
}

// Handler serves POST /validate. table gives the ranges in use, and may give nil. A review gets 200
// and its verdict; what is no review gets a 4xx, which an API server takes as a failed call. One that comes
// when as many are in flight as fit gets 429 and is to come again, which an API server does.
func Handler(table func() *awsranges.Table, options netpol.Options, metrics *Metrics, log *slog.Logger) http.Handler {
	return &handler{
		table: table, options: options, metrics: metrics, log: log,
		buffers: sync.Pool{New: func() any { return &bytes.Buffer{} }},
	}
}

// refusal is why a request gets no verdict.
type refusal struct {
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
func (h *handler) serve(w http.ResponseWriter, r *http.Request) *refusal {
	if refused := refuseHead(w, r); refused != nil {
		return refused
	}
	size := r.ContentLength
	if size < 0 {
		size = maxBody // chunked: it may be that long
	}
	size = max(size, leastRoom)
	defer h.room.Add(-size)
	if h.room.Add(size) > maxRoom {
		w.Header().Set("Retry-After", "1")
		return &refusal{http.StatusTooManyRequests, reasonBusy, errors.New("too many reviews are in flight; come again in a second")}
	}
	h.metrics.inFlight.Inc()
	defer h.metrics.inFlight.Dec()

	buffer := h.buffers.Get().(*bytes.Buffer)
	defer func() {
		if buffer.Cap() <= leastRoom { // one large review must not hold its memory for ever
			h.buffers.Put(buffer)
		}
	}()
	buffer.Reset()
	if refused := readBody(buffer, w, r); refused != nil {
		return refused
	}
	request, err := readReview(buffer.Bytes())
	if err != nil {
		return &refusal{http.StatusBadRequest, reasonMalformed, err}
	}
	response, err := Review(request, h.table(), h.options)
	if err != nil {
		return &refusal{http.StatusBadRequest, reasonMalformed, err}
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

// refuseHead judges all but the body.
func refuseHead(w http.ResponseWriter, r *http.Request) *refusal {
	if r.URL.Path != path {
		return &refusal{http.StatusNotFound, reasonPath, fmt.Errorf("nothing is at %q; reviews go to %s", r.URL.Path, path)}
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return &refusal{http.StatusMethodNotAllowed, reasonMethod, fmt.Errorf("the method is %q, not POST", r.Method)}
	}
	if contentType := r.Header.Get("Content-Type"); contentType != mediaType { // which it may be with parameters
		if media, _, _ := mime.ParseMediaType(contentType); media != mediaType {
			return &refusal{http.StatusUnsupportedMediaType, reasonContentType, fmt.Errorf("the content type is %q, not %s", contentType, mediaType)}
		}
	}
	if r.ContentLength > maxBody {
		return tooLarge()
	}
	return nil
}

func tooLarge() *refusal {
	return &refusal{http.StatusRequestEntityTooLarge, reasonTooLarge, fmt.Errorf("the body is larger than %d bytes", maxBody)}
}

func readBody(into *bytes.Buffer, w http.ResponseWriter, r *http.Request) *refusal {
	if r.ContentLength > 0 {
		into.Grow(int(r.ContentLength) + bytes.MinRead) // which ReadFrom wants free at the end
	}
	_, err := into.ReadFrom(http.MaxBytesReader(w, r.Body, maxBody))
	switch large := (*http.MaxBytesError)(nil); {
	case err == nil:
		return nil
	case errors.As(err, &large):
		return tooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &refusal{http.StatusRequestTimeout, reasonBody, fmt.Errorf("the body did not come within %s", readTimeout)}
	}
	return &refusal{http.StatusBadRequest, reasonBody, fmt.Errorf("read the body: %w", err)}
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
