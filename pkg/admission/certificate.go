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

// Certificate is the serving certificate, read from files and reread when they change.
type Certificate struct {
	certFile, keyFile string
	files             *filewatch.Files
	log               *slog.Logger
	pair              atomic.Pointer[tls.Certificate]
}

// NewCertificate reads a PEM certificate, which its chain may follow, and its key.
func NewCertificate(certFile, keyFile string, log *slog.Logger) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile, files: filewatch.Watch(certFile, keyFile), log: log}
	if err := c.reread(); err != nil {
		return nil, err
	}
	return c, nil
}

// Get returns the last pair that was read whole, for tls.Config.GetCertificate.
func (c *Certificate) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.pair.Load(), nil }

// NotAfter is when the certificate in use expires.
func (c *Certificate) NotAfter() time.Time { return c.pair.Load().Leaf.NotAfter }

// Run rereads the files when they change, until the context ends. A certificate and a key that do not
// belong together, as when one of them has been written yet, change nothing.
func (c *Certificate) Run(ctx context.Context) {
	c.files.Follow(ctx, func() {
		if err := c.reread(); err != nil {
			c.log.Warn("certificate not read: the last one stays in use", "error", err, "notAfter", c.NotAfter())
		}
	})
}

func (c *Certificate) reread() error {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("read the certificate %s and its key %s: %w", c.certFile, c.keyFile, err)
	}
	c.pair.Store(&pair)
	c.log.Info("certificate in use", "names", pair.Leaf.DNSNames, "notAfter", pair.Leaf.NotAfter)
	return nil
}
