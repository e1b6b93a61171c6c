package webhook

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"egress-agent/scripts/e2e/harness"
)

// TestWebhookSurvivesBadRequests sends requests that no API server would send. Each gets the right status. None causes
// a panic or leaves a goroutine or memory behind.
func TestWebhookSurvivesBadRequests(t *testing.T) {
	t.Parallel()
	w := harness.StartWebhook(t)
	body := review(t, "u-1", harness.TenantA)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: w.ClientTLS(t), ForceAttemptHTTP2: true}}
	// settled sends valid reviews, so that the garbage collector runs. It returns the goroutines and the live bytes.
	settled := func() (goroutines, alive float64) {
		t.Helper()
		for range 5000 {
			require.Equal(t, http.StatusOK, w.Post(t, client, body))
		}
		client.CloseIdleConnections()
		return w.Metric(t, "go_goroutines"), w.Metric(t, "go_gc_heap_live_bytes")
	}
	goroutines, alive := settled()
	t.Run("requests", func(t *testing.T) {
		t.Run("malformed", func(t *testing.T) { sendMalformed(t, w, client) })
		t.Run("cut", func(t *testing.T) { sendCutBody(t, w, body) })
		t.Run("slow header", func(t *testing.T) { sendSlowHeader(t, w) })
		t.Run("slow body, HTTP/1.1", func(t *testing.T) { sendSlowBody(t, w, false, len(body)) })
		t.Run("slow body, HTTP/2", func(t *testing.T) { sendSlowBody(t, w, true, len(body)) })
		t.Run("no TLS", func(t *testing.T) { connectWithoutTLS(t, w) })
		t.Run("idle connections", func(t *testing.T) { holdIdleConnections(t, w, client, body) })
	})
	harness.Eventually(t, "no goroutine is left", func() bool { return w.Metric(t, "go_goroutines") <= goroutines+2 }) // a scrape has some of its own
	_, after := settled()
	t.Logf("%.0f goroutines; %.1f MB alive before, %.1f MB after", goroutines, alive/1e6, after/1e6)
	require.Less(t, after, alive+5e6, "the webhook frees the memory of its connections; a thousand take 30 MB")
	require.Zero(t, w.Metric(t, "egress_webhook_reviews_in_flight"))
	require.NotContains(t, w.Log(t), "panic")
}

func sendMalformed(t *testing.T, w *harness.Webhook, client *http.Client) {
	reviewed := func(change func(*admissionv1.AdmissionReview)) []byte {
		return review(t, "u-1", harness.TenantA, change)
	}
	good := reviewed(func(*admissionv1.AdmissionReview) {})
	for _, test := range []struct {
		name, method, path, contentType string
		body                            []byte
		want                            int
		reason                          string
	}{
		{"method", "PUT", "/validate", "application/json", good, 405, "method"},
		{"path", "POST", "/mutate", "application/json", good, 404, "path"},
		{"content type", "POST", "/validate", "application/yaml", good, 415, "content_type"},
		{"empty", "POST", "/validate", "application/json", nil, 400, "malformed"},
		{"truncated", "POST", "/validate", "application/json", good[:len(good)-10], 400, "malformed"},
		{"3 MiB and 1", "POST", "/validate", "application/json", append(good, bytes.Repeat([]byte(" "), 3<<20+1-len(good))...), 413, "too_large"},
		{"v1beta1", "POST", "/validate", "application/json", reviewed(func(r *admissionv1.AdmissionReview) { r.APIVersion = "admission.k8s.io/v1beta1" }), 400, "malformed"},
		{"another kind", "POST", "/validate", "application/json", reviewed(func(r *admissionv1.AdmissionReview) { r.Kind = "ConversionReview" }), 400, "malformed"},
		{"no request", "POST", "/validate", "application/json", reviewed(func(r *admissionv1.AdmissionReview) { r.Request = nil }), 400, "malformed"},
		{"no object", "POST", "/validate", "application/json", reviewed(func(r *admissionv1.AdmissionReview) { r.Request.Object = runtime.RawExtension{} }), 400, "malformed"},
		{"a Secret", "POST", "/validate", "application/json", reviewed(func(r *admissionv1.AdmissionReview) {
			r.Request.Kind = metav1.GroupVersionKind{Version: "v1", Kind: "Secret"}
		}), 400, "malformed"},
	} {
		for _, chunked := range []bool{false, true} {
			var reader io.Reader = bytes.NewReader(test.body)
			if chunked {
				reader = struct{ io.Reader }{reader} // of unknown length
			}
			before := w.RefusedCount(t, test.reason)
			request, err := http.NewRequest(test.method, "https://"+w.Address+test.path, reader)
			require.NoError(t, err)
			request.Header.Set("Content-Type", test.contentType)
			response, err := client.Do(request)
			require.NoError(t, err, test.name)
			response.Body.Close()
			require.Equal(t, 2, response.ProtoMajor)
			require.Equal(t, test.want, response.StatusCode, test.name)
			require.Equal(t, before+1, w.RefusedCount(t, test.reason), test.name)
		}
	}
}

const requestHead = "POST /validate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"

// sendCutBody ends a request in the middle of its body.
func sendCutBody(t *testing.T, w *harness.Webhook, body []byte) {
	before := w.RefusedCount(t, "body")
	connection := w.Dial(t)
	fmt.Fprintf(connection, requestHead+"%s", len(body), body[:len(body)/2])
	require.NoError(t, connection.CloseWrite())
	response, err := http.ReadResponse(bufio.NewReader(connection), nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusBadRequest, response.StatusCode)
	require.Equal(t, before+1, w.RefusedCount(t, "body"))
}

// sendSlowHeader never ends its header: the webhook closes the connection.
func sendSlowHeader(t *testing.T, w *harness.Webhook) {
	t.Parallel()
	connection := w.Dial(t)
	fmt.Fprint(connection, "POST /validate HTTP/1.1\r\nHost: localhost\r\n")
	_, err := connection.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}

// sendSlowBody never ends its body: the webhook answers 408.
func sendSlowBody(t *testing.T, w *harness.Webhook, http2 bool, length int) {
	t.Parallel()
	reader, writer := io.Pipe()
	defer writer.Close()
	go fmt.Fprint(writer, "{")
	request, err := http.NewRequest(http.MethodPost, "https://"+w.Address+"/validate", reader)
	require.NoError(t, err)
	request.ContentLength = int64(length)
	request.Header.Set("Content-Type", "application/json")
	transport := &http.Transport{TLSClientConfig: w.ClientTLS(t), ForceAttemptHTTP2: http2}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Timeout)
	defer cancel()
	response, err := transport.RoundTrip(request.WithContext(ctx))
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusRequestTimeout, response.StatusCode)
}

func connectWithoutTLS(t *testing.T, w *harness.Webhook) {
	before := w.RefusedCount(t, "tls_handshake")
	response, err := http.Post("http://"+w.Address+"/validate", "application/json", strings.NewReader("{}"))
	require.NoError(t, err)
	response.Body.Close()
	require.Equal(t, http.StatusBadRequest, response.StatusCode)
	for _, version := range []uint16{tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
		config := w.ClientTLS(t)
		config.MinVersion, config.MaxVersion = tls.VersionTLS10, version
		connection, err := tls.Dial("tcp", w.Address, config)
		if version == tls.VersionTLS11 {
			require.ErrorContains(t, err, "protocol version not supported")
			continue
		}
		require.NoError(t, err)
		require.Equal(t, version, connection.ConnectionState().Version)
		connection.Close()
	}
	require.Equal(t, before+2, w.RefusedCount(t, "tls_handshake"))
}

// holdIdleConnections opens nearly as many connections as one client may have. Each sends one review and stays open.
// Another review must still get its answer.
func holdIdleConnections(t *testing.T, w *harness.Webhook, client *http.Client, body []byte) {
	const many = 240
	var connections []net.Conn
	for range many {
		connection := w.Dial(t)
		fmt.Fprintf(connection, requestHead+"%s", len(body), body)
		response, err := http.ReadResponse(bufio.NewReader(connection), nil)
		require.NoError(t, err)
		var answer admissionv1.AdmissionReview
		require.NoError(t, json.NewDecoder(response.Body).Decode(&answer))
		require.True(t, answer.Response.Allowed)
		connections = append(connections, connection)
	}
	require.GreaterOrEqual(t, w.Metric(t, "go_goroutines"), float64(many))
	require.Equal(t, http.StatusOK, w.Post(t, client, body))
	for _, connection := range connections {
		require.NoError(t, connection.Close())
	}
}

// TestWebhookStopAnswersReviewInFlight stops the webhook during a review. First it is not ready but still takes
// reviews, then it answers the review in flight, and then it ends.
func TestWebhookStopAnswersReviewInFlight(t *testing.T) {
	w := harness.StartWebhook(t)
	body := review(t, "u-1", harness.TenantA)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: w.ClientTLS(t)}}
	require.Equal(t, http.StatusOK, w.Post(t, client, body))
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		w.Stop(t)
	}()
	harness.Eventually(t, "the webhook is not ready", func() bool {
		response, err := harness.Scraper.Get("http://" + w.HealthAddress + "/readyz")
		if err != nil {
			return false
		}
		defer response.Body.Close()
		return response.StatusCode == http.StatusServiceUnavailable
	})
	require.Equal(t, http.StatusOK, w.Post(t, client, body), "the webhook serves the connection from before")
	require.Equal(t, http.StatusOK, w.Post(t, client, body), "the webhook serves new connections until nodes know that it stops")
	client.CloseIdleConnections()
	time.Sleep(7 * time.Second) // it drains for ten, and gives up a body after five
	connection := w.Dial(t)
	fmt.Fprintf(connection, requestHead+"%s", len(body), body[:1])
	harness.Eventually(t, "a review is in flight", func() bool { return w.Metric(t, "egress_webhook_reviews_in_flight") == 1 })
	harness.Eventually(t, "the webhook accepts no new connection", func() bool {
		c, err := net.Dial("tcp", w.Address)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	_, err := connection.Write(body[1:])
	require.NoError(t, err)
	response, err := http.ReadResponse(bufio.NewReader(connection), nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, response.StatusCode)
	<-stopped
}
