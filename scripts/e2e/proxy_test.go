package e2e

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
	"os"
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

// proxy stands between an agent and the API server, and is as bad a network as a test wants.
type proxy struct {
	kubeconfig string
	// watchFor ends every watch after that time; 0 for never.
	watchFor atomic.Int64
	// blind keeps ConfigMaps from being listed and watched: all of them, not those read by name.
	blind atomic.Bool
	// failing is how many requests of a hundred, but for watches, are answered with an error.
	failing atomic.Int64
	// delay is how long a tenth of the requests take longer.
	delay atomic.Int64
	// hold is how long a write of a NetworkPolicy waits here that is of the namespace holdIn, set before there are any.
	hold   atomic.Int64
	holdIn string
	// encoding is the content type of what was held last.
	encoding atomic.Value

	cut, refused, delayed, held atomic.Int64 // how often it was
}

// newProxy starts a proxy for the agent's service account.
func newProxy(t *testing.T) *proxy {
	t.Helper()
	direct, err := control.ServiceAccountKubeconfig(t.Context(), "egress-system", "egress-agent")
	require.NoError(t, err)
	config, err := clientcmd.BuildConfigFromFlags("", direct)
	require.NoError(t, err)
	target, err := url.Parse(config.Host)
	require.NoError(t, err)
	transport, err := rest.TransportFor(&rest.Config{Host: config.Host, TLSClientConfig: config.TLSClientConfig})
	require.NoError(t, err)

	p := &proxy{kubeconfig: filepath.Join(t.TempDir(), "proxy.kubeconfig")}
	forward := httputil.NewSingleHostReverseProxy(target)
	forward.Transport, forward.FlushInterval, forward.ErrorLog = transport, -1, log.New(io.Discard, "", 0)
	certificate := newCertificate(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{
		ErrorLog:  log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if p.blind.Load() && r.URL.Path == "/api/v1/configmaps" {
				refuse(w)
				return
			}
			if r.URL.Query().Has("watch") {
				if limit := time.Duration(p.watchFor.Load()); limit > 0 {
					ctx, cancel := context.WithTimeout(r.Context(), limit)
					defer cancel()
					r = r.WithContext(ctx)
					defer func() {
						if ctx.Err() == context.DeadlineExceeded {
							p.cut.Add(1)
						}
					}()
				}
			} else if rand.Int64N(100) < p.failing.Load() {
				p.refused.Add(1)
				refuse(w)
				return
			} else if p.delay.Load() > 0 && rand.IntN(10) == 0 {
				p.delayed.Add(1)
				time.Sleep(time.Duration(p.delay.Load()))
			} else if hold := time.Duration(p.hold.Load()); hold > 0 && r.Method != http.MethodGet && strings.Contains(r.URL.Path, "/namespaces/"+p.holdIn+"/networkpolicies") {
				p.encoding.Store(r.Header.Get("Content-Type"))
				p.held.Add(1)
				select {
				case <-time.After(hold):
				case <-r.Context().Done():
				}
			}
			forward.ServeHTTP(w, r)
		}),
	}
	go server.ServeTLS(listener, "", "")
	t.Cleanup(func() { server.Close() })

	through := clientcmdapi.NewConfig()
	through.Clusters["proxy"] = &clientcmdapi.Cluster{Server: "https://" + listener.Addr().String(), InsecureSkipTLSVerify: true}
	through.AuthInfos["agent"] = &clientcmdapi.AuthInfo{Token: config.BearerToken}
	through.Contexts["proxy"] = &clientcmdapi.Context{Cluster: "proxy", AuthInfo: "agent"}
	through.CurrentContext = "proxy"
	require.NoError(t, clientcmd.WriteToFile(*through, p.kubeconfig))
	return p
}

// refuse answers as an API server in trouble does.
func refuse(w http.ResponseWriter) {
	status := metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Message: "refused by the test"}
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

// children returns the processes that this one has started of a program, by its name.
func children(t *testing.T, program string) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/task")
	require.NoError(t, err)
	var found []int
	for _, entry := range entries {
		data, err := os.ReadFile("/proc/self/task/" + entry.Name() + "/children")
		if err != nil {
			continue // the thread has ended
		}
		for _, pid := range fieldsAsInts(t, string(data)) {
			if name, err := os.Readlink(procPath(pid, "exe")); err == nil && filepath.Base(name) == program {
				found = append(found, pid)
			}
		}
	}
	return found
}
