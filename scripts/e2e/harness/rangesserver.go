package harness

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// RangesServer is an HTTPS server that replaces AWS's server. A test may change its answer and its certificate, or
// close it, while an agent fetches from it.
type RangesServer struct {
	Address     string
	Certificate tls.Certificate // the first certificate; SetCertificate does not change this field
	Trusted     *x509.CertPool  // holds Certificate
	CAFile      string          // holds Certificate, as PEM

	mu        sync.Mutex
	server    *http.Server
	answer    http.HandlerFunc
	presented tls.Certificate
}

// StartRangesServer runs a server until the test ends. SetAnswer must be called before the first request.
func StartRangesServer(t testing.TB) *RangesServer {
	t.Helper()
	s := &RangesServer{Address: FreeAddress(t), Trusted: x509.NewCertPool(), CAFile: filepath.Join(t.TempDir(), "ca.pem")}
	s.Certificate = NewCertificate(t)
	s.presented = s.Certificate
	s.Trusted.AddCert(s.Certificate.Leaf)
	encoded := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate.Certificate[0]})
	require.NoError(t, os.WriteFile(s.CAFile, encoded, 0o600))
	s.Listen(t)
	t.Cleanup(s.Close)
	return s
}

// URL returns the address of the ranges document.
func (s *RangesServer) URL() string { return "https://" + s.Address + "/ip-ranges.json" }

// Listen starts the server at s.Address. A test may call it again after Close.
func (s *RangesServer) Listen(t testing.TB) {
	t.Helper()
	listener, err := net.Listen("tcp", s.Address)
	require.NoError(t, err)
	s.server = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.mu.Lock()
			answer := s.answer
			s.mu.Unlock()
			w.Header().Set("Connection", "close") // so that each request gets the current certificate
			answer(w, r)
		}),
		ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return &s.presented, nil
		}},
	}
	go s.server.ServeTLS(listener, "", "")
}

// Close stops the server. The kernel then refuses connections to its address.
func (s *RangesServer) Close() { s.server.Close() }

// SetAnswer sets the handler for all later requests.
func (s *RangesServer) SetAnswer(answer http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// SetCertificate sets the certificate for all later connections.
func (s *RangesServer) SetCertificate(certificate tls.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.presented = certificate
}

// ServeDocument returns a handler that serves data as AWS does: it sends ETag and Last-Modified, and answers
// conditional requests. modified is the time of Last-Modified.
func ServeDocument(data []byte, modified time.Time) http.HandlerFunc {
	etag := `"` + modified.UTC().Format("20060102150405") + `"`
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", etag)
		w.Header().Set("Last-Modified", modified.UTC().Format(http.TimeFormat))
		w.Header().Set("Content-Type", "application/json")
		if r.Header.Get("If-None-Match") == etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Write(data)
	}
}
