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

// readTimeout is for a whole request. The configuration gives a whole review five seconds.
const readTimeout = 5 * time.Second

// NewServer returns a server for Handler, to be run with ServeTLS on a listener of Limit. It speaks TLS 1.2 and later,
// HTTP/2 and HTTP/1.1, and waits for nobody. A connection of HTTP/2 takes no more memory than one of HTTP/1.1: its frames
// and windows are as small as the protocol allows, since an API server's reviews are.
func NewServer(handler http.Handler, certificate *Certificate, metrics *Metrics, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate.Get},
		ReadHeaderTimeout: readTimeout, // of the TLS handshake, too
		ReadTimeout:       readTimeout,
		WriteTimeout:      2 * readTimeout, // counted from the header on
		IdleTimeout:       90 * time.Second,
		MaxHeaderBytes:    16 << 10,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          100,
			MaxReadFrameSize:              16 << 10,
			MaxReceiveBufferPerConnection: 256 << 10,
			MaxReceiveBufferPerStream:     128 << 10,
		},
		ErrorLog: stdlog.New(&serverLog{metrics, &quietLog{Logger: log}}, "", 0),
	}
}

// serverLog takes what an http.Server has to say. Its log is the only place where it tells of handshakes that failed.
type serverLog struct {
	metrics *Metrics
	log     *quietLog
}

func (l *serverLog) Write(line []byte) (int, error) {
	message := string(bytes.TrimSpace(line))
	if strings.HasPrefix(message, "http: TLS handshake error") {
		l.metrics.refused.WithLabelValues(reasonTLS).Inc()
	}
	l.log.Warn(message)
	return len(line), nil
}
