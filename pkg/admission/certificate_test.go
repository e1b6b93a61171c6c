package admission

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

// newKeyPair returns a certificate that expires at notAfter, and its key, in PEM.
func newKeyPair(t *testing.T, notAfter time.Time) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: notAfter, DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	require.NoError(t, err)
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
}

func TestCertificateReload(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	write := func(file string, data []byte) { require.NoError(t, os.WriteFile(file, data, 0o600)) }
	now := time.Now().Truncate(time.Second).UTC()
	first, second := now.Add(time.Hour), now.Add(2*time.Hour)
	firstCert, firstKey := newKeyPair(t, first)
	secondCert, secondKey := newKeyPair(t, second)

	_, err := NewCertificate(certFile, keyFile, slog.New(slog.DiscardHandler))
	require.EqualError(t, err, "read the certificate "+certFile+" and its key "+keyFile+": open "+certFile+": no such file or directory")
	write(certFile, firstCert)
	write(keyFile, firstKey)
	certificate, err := NewCertificate(certFile, keyFile, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.Equal(t, first, certificate.NotAfter())

	for _, test := range []struct {
		name      string
		cert, key []byte
	}{
		{"only a new certificate", secondCert, firstKey},
		{"only a new key", firstCert, secondKey},
		{"a truncated certificate", secondCert[:len(secondCert)/2], secondKey},
		{"a truncated key", secondCert, secondKey[:len(secondKey)/2]},
		{"an empty key", secondCert, nil},
		{"no PEM", []byte("x"), secondKey},
	} {
		write(certFile, test.cert)
		write(keyFile, test.key)
		require.Error(t, certificate.reload(), test.name)
		served, err := certificate.Get(nil)
		require.NoError(t, err)
		require.Equal(t, first, served.Leaf.NotAfter, test.name)
	}
	require.NoError(t, os.Remove(keyFile))
	require.Error(t, certificate.reload())
	require.Equal(t, first, certificate.NotAfter())

	write(certFile, secondCert)
	write(keyFile, secondKey)
	require.NoError(t, certificate.reload())
	served, err := certificate.Get(nil)
	require.NoError(t, err)
	require.Equal(t, second, served.Leaf.NotAfter)

	registry := prometheus.NewRegistry()
	NewMetrics(registry, certificate, &Ranges{}, nil)
	require.InDelta(t, time.Until(second).Seconds(), gauge(t, registry, "egress_webhook_certificate_expiry_seconds"), 60)
	require.Equal(t, -1.0, gauge(t, registry, "egress_webhook_ranges_age_seconds"), "no AWS ranges")
}

// gauge returns the value of a gauge.
func gauge(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	require.NoError(t, err)
	for _, family := range families {
		if family.GetName() == name {
			return family.GetMetric()[0].GetGauge().GetValue()
		}
	}
	require.FailNow(t, "metric not found: "+name)
	return 0
}
