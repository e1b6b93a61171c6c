package admission

import (
	"crypto/tls"
	"log/slog"
	"net/http"
	"time"
)

// NewServer returns a server for Handler, to be run with ServeTLS. It speaks TLS 1.2 and later, and
// waits for nobody: an API server gives a webhook of ours five seconds for the whole review.
func NewServer(handler http.Handler, certificate tls.Certificate, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}},
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       90 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}
