package mirror

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"egress-agent/scripts/e2e/harness"
)

// proxy forwards requests to the hub. A test may replace its answers.
type proxy struct {
	url string

	mu      sync.Mutex
	answer  http.HandlerFunc // nil forwards
	forward http.Handler
	cuts    map[*http.Request]context.CancelFunc
}

func startProxy(t *testing.T) *proxy {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", hub.cluster.Kubeconfig)
	require.NoError(t, err)
	target, err := url.Parse(config.Host)
	require.NoError(t, err)
	transport, err := rest.TransportFor(&rest.Config{Host: config.Host, TLSClientConfig: rest.TLSClientConfig{CAData: config.CAData}})
	require.NoError(t, err)
	forward := httputil.NewSingleHostReverseProxy(target)
	quiet := log.New(io.Discard, "", 0)
	forward.Transport, forward.FlushInterval, forward.ErrorLog = transport, -1, quiet
	p := &proxy{forward: forward, cuts: make(map[*http.Request]context.CancelFunc)}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{
		ErrorLog: quiet, TLSConfig: &tls.Config{Certificates: []tls.Certificate{harness.NewCertificate(t)}},
		Handler: http.HandlerFunc(p.serve),
	}
	go server.ServeTLS(listener, "", "")
	t.Cleanup(func() { server.Close() })
	p.url = "https://" + listener.Addr().String()
	return p
}

func (p *proxy) serve(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	p.mu.Lock()
	answer := p.answer
	p.cuts[r] = cancel
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.cuts, r)
		p.mu.Unlock()
	}()
	if answer == nil {
		answer = p.forward.ServeHTTP
	}
	answer(w, r.WithContext(ctx))
}

// set replaces the answers, and ends all requests in flight, so also watches. nil forwards again.
func (p *proxy) set(answer http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = answer
	for _, cut := range p.cuts {
		cut()
	}
}

// down imitates a partition.
func down(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func isList(r *http.Request) bool {
	return r.URL.Path == "/api/v1/configmaps" && !r.URL.Query().Has("watch")
}

// changeLists forwards everything, and passes the bodies of lists through change.
func (p *proxy) changeLists(change func(body []byte) []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !isList(r) {
			p.forward.ServeHTTP(w, r)
			return
		}
		r.Header.Del("Accept-Encoding")
		recorder := httptest.NewRecorder()
		p.forward.ServeHTTP(recorder, r)
		if recorder.Code != http.StatusOK || recorder.Body.Len() == 0 {
			panic(http.ErrAbortHandler) // set has ended the request
		}
		w.Header().Set("Content-Type", recorder.Header().Get("Content-Type"))
		w.WriteHeader(recorder.Code)
		w.Write(change(recorder.Body.Bytes()))
	}
}
