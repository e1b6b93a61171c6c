package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// source is an HTTPS server, as AWS's is: with ETag, Last-Modified and conditional requests. What it
// answers, with which certificate, and whether at all, changes while it runs.
type source struct {
	address string
	trusted *x509.CertPool
	caFile  string

	mu          sync.Mutex
	server      *http.Server
	answer      http.HandlerFunc
	certificate tls.Certificate
}

func newSource(t testing.TB) *source {
	t.Helper()
	s := &source{address: freeAddress(t), trusted: x509.NewCertPool(), caFile: filepath.Join(t.TempDir(), "ca.pem")}
	s.certificate = newCertificate(t)
	s.trusted.AddCert(s.certificate.Leaf)
	encoded := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.certificate.Certificate[0]})
	require.NoError(t, os.WriteFile(s.caFile, encoded, 0o600))
	s.up(t)
	t.Cleanup(s.down)
	return s
}

func (s *source) url() string { return "https://" + s.address + "/ip-ranges.json" }

// up listens, at the same address every time.
func (s *source) up(t testing.TB) {
	t.Helper()
	listener, err := net.Listen("tcp", s.address)
	require.NoError(t, err)
	s.server = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.mu.Lock()
			answer := s.answer
			s.mu.Unlock()
			w.Header().Set("Connection", "close") // each request sees the certificate of its day
			answer(w, r)
		}),
		ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return &s.certificate, nil
		}},
	}
	go s.server.ServeTLS(listener, "", "")
}

// down refuses connections.
func (s *source) down() { s.server.Close() }

// answers changes what it answers.
func (s *source) answers(answer http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *source) presents(certificate tls.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.certificate = certificate
}

// document answers as for a file last changed at a time.
func document(data []byte, modified time.Time) http.HandlerFunc {
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

// newCertificate is one for 127.0.0.1 that vouches for itself.
func newCertificate(t testing.TB) tls.Certificate { return newCertificateFor(t, time.Hour) }

func newCertificateFor(t testing.TB, lasts time.Duration) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(lasts),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}
