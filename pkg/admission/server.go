package admission

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"net/http"
	"strings"
	"time"

	stdlog "log"
)

// readTimeout bounds the read of a whole request. The webhook's configuration allows five seconds for a review.
const readTimeout = 5 * time.Second

// NewServer returns a server for Handler. Run it with ServeTLS on a listener of LimitConnections. It speaks TLS
// 1.2 and later, HTTP/2 and HTTP/1.1, and has timeouts for slow clients. Its HTTP/2 frames and windows have the
// smallest sizes of the protocol, so an HTTP/2 connection takes no more memory than an HTTP/1.1 connection.
// Reviews are small enough for that.
func NewServer(handler http.Handler, certificate *Certificate, metrics *Metrics, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate.Get},
		ReadHeaderTimeout: readTimeout, // also bounds the TLS handshake
		ReadTimeout:       readTimeout,
		WriteTimeout:      2 * readTimeout, // counts from the arrival of the header
		IdleTimeout:       90 * time.Second,
		MaxHeaderBytes:    16 << 10,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          100,
			MaxReadFrameSize:              16 << 10,
			MaxReceiveBufferPerConnection: 256 << 10,
			MaxReceiveBufferPerStream:     128 << 10,
		},
		ErrorLog: stdlog.New(&serverLog{metrics, &rateLimitedLog{Logger: log}}, "", 0),
	}
}

// serverLog receives the log of an http.Server. The server reports failed handshakes only in its log.
type serverLog struct {
	metrics *Metrics
	log     *rateLimitedLog
}

// Write counts failed TLS handshakes and logs the line.
func (l *serverLog) Write(line []byte) (int, error) {
	message := string(bytes.TrimSpace(line))
	if strings.HasPrefix(message, "http: TLS handshake error") {
		l.metrics.refused.WithLabelValues(reasonTLS).Inc()
	}
	l.log.Warn("HTTP server error", "error", message)
	return len(line), nil
}
