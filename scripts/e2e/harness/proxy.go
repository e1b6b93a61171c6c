package harness

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Proxy forwards an agent's requests to the API server, and imitates a bad network. A test may change its fields while
// it runs. Durations are in nanoseconds; 0 turns a fault off.
type Proxy struct {
	// Kubeconfig is a file with the proxy as its server, and the agent's token.
	Kubeconfig string
	// WatchLimit is the time after which the proxy ends a watch.
	WatchLimit atomic.Int64
	// HidesConfigMaps makes lists and watches of ConfigMaps in all namespaces fail. A read of a single ConfigMap by
	// name still succeeds.
	HidesConfigMaps atomic.Bool
	// FailPercent is the percentage of requests that the proxy answers with an error. Watches do not count.
	FailPercent atomic.Int64
	// Delay is how long the proxy delays one request in ten.
	Delay atomic.Int64
	// Hold is how long the proxy holds each write of a NetworkPolicy in HoldNamespace. A test sets HoldNamespace before
	// the first request.
	Hold          atomic.Int64
	HoldNamespace string
	// HeldContentType has the content type of the last held write, as a string.
	HeldContentType atomic.Value

	// These fields count the watches that WatchLimit has ended, and the requests that the other faults have affected.
	CutCount, RefusedCount, DelayedCount, HeldCount atomic.Int64
}

// StartProxy runs a proxy with the agent's ServiceAccount until the test ends.
func StartProxy(t *testing.T) *Proxy {
	t.Helper()
	directKubeconfig, err := Control(t).ServiceAccountKubeconfig(t.Context(), AgentNamespace, AgentName)
	require.NoError(t, err)
	config, err := clientcmd.BuildConfigFromFlags("", directKubeconfig)
	require.NoError(t, err)
	target, err := url.Parse(config.Host)
	require.NoError(t, err)
	transport, err := rest.TransportFor(&rest.Config{Host: config.Host, TLSClientConfig: config.TLSClientConfig})
	require.NoError(t, err)

	p := &Proxy{Kubeconfig: filepath.Join(t.TempDir(), "proxy.kubeconfig")}
	forward := httputil.NewSingleHostReverseProxy(target)
	forward.Transport, forward.FlushInterval, forward.ErrorLog = transport, -1, log.New(io.Discard, "", 0)
	certificate := NewCertificate(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{
		ErrorLog:  log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if p.HidesConfigMaps.Load() && r.URL.Path == "/api/v1/configmaps" {
				writeRandomError(w)
				return
			}
			if r.URL.Query().Has("watch") {
				if limit := time.Duration(p.WatchLimit.Load()); limit > 0 {
					ctx, cancel := context.WithTimeout(r.Context(), limit)
					defer cancel()
					r = r.WithContext(ctx)
					defer func() {
						if ctx.Err() == context.DeadlineExceeded {
							p.CutCount.Add(1)
						}
					}()
				}
			} else if rand.Int64N(100) < p.FailPercent.Load() {
				p.RefusedCount.Add(1)
				writeRandomError(w)
				return
			} else if p.Delay.Load() > 0 && rand.IntN(10) == 0 {
				p.DelayedCount.Add(1)
				time.Sleep(time.Duration(p.Delay.Load()))
			} else if holdTime := time.Duration(p.Hold.Load()); holdTime > 0 && r.Method != http.MethodGet &&
				strings.Contains(r.URL.Path, "/namespaces/"+p.HoldNamespace+"/networkpolicies") {
				p.HeldContentType.Store(r.Header.Get("Content-Type"))
				p.HeldCount.Add(1)
				select {
				case <-time.After(holdTime):
				case <-r.Context().Done():
				}
			}
			forward.ServeHTTP(w, r)
		}),
	}
	go server.ServeTLS(listener, "", "")
	t.Cleanup(func() { server.Close() })

	proxyKubeconfig := clientcmdapi.NewConfig()
	proxyKubeconfig.Clusters["proxy"] = &clientcmdapi.Cluster{Server: "https://" + listener.Addr().String(), InsecureSkipTLSVerify: true}
	proxyKubeconfig.AuthInfos["agent"] = &clientcmdapi.AuthInfo{Token: config.BearerToken}
	proxyKubeconfig.Contexts["proxy"] = &clientcmdapi.Context{Cluster: "proxy", AuthInfo: "agent"}
	proxyKubeconfig.CurrentContext = "proxy"
	require.NoError(t, clientcmd.WriteToFile(*proxyKubeconfig, p.Kubeconfig))
	return p
}

// writeRandomError answers with one of the errors that a busy API server sends: 500, 429 or 409.
func writeRandomError(w http.ResponseWriter) {
	status := metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
		Status:   metav1.StatusFailure, Message: "refused by the test",
	}
	switch rand.IntN(3) {
	case 0:
		status.Code, status.Reason = http.StatusInternalServerError, metav1.StatusReasonInternalError
	case 1:
		status.Code, status.Reason = http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests
		w.Header().Set("Retry-After", "1")
	default:
		status.Code, status.Reason = http.StatusConflict, metav1.StatusReasonConflict
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(status.Code))
	json.NewEncoder(w).Encode(status)
}
