package admission

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"egress-agent/pkg/internal/filewatch"
)

// Certificate is the serving certificate. It reads the certificate and key files and reloads them when they
// change.
type Certificate struct {
	certFile, keyFile string
	files             *filewatch.Files
	log               *slog.Logger
	pair              atomic.Pointer[tls.Certificate]
}

// NewCertificate loads a certificate and its key from PEM files. After the certificate, certFile may contain its chain.
func NewCertificate(certFile, keyFile string, log *slog.Logger) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile, files: filewatch.New(certFile, keyFile), log: log}
	if err := c.reload(); err != nil {
		return nil, err
	}
	return c, nil
}

// Get returns the last valid pair of certificate and key. It is a function for tls.Config.GetCertificate.
func (c *Certificate) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.pair.Load(), nil }

// NotAfter returns when the current certificate expires.
func (c *Certificate) NotAfter() time.Time { return c.pair.Load().Leaf.NotAfter }

// Run reloads the files when they change, until ctx ends. If the certificate and the key do not match, Run logs the
// error, and Get still returns the previous pair. They do not match for a moment while another program replaces the two
// files.
func (c *Certificate) Run(ctx context.Context) {
	c.files.Follow(ctx, func() {
		if err := c.reload(); err != nil {
			c.log.Warn("reload certificate failed", "error", err, "notAfter", c.NotAfter())
		}
	})
}

func (c *Certificate) reload() error {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("read the certificate %s and its key %s: %w", c.certFile, c.keyFile, err)
	}
	c.pair.Store(&pair)
	c.log.Info("certificate loaded", "names", pair.Leaf.DNSNames, "notAfter", pair.Leaf.NotAfter)
	return nil
}
