package hostile

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"egress-agent/scripts/e2e/harness"
	"egress-agent/scripts/e2e/pod"
)

const (
	apiServer = "127.0.0.1" // the address from which the API server sends reviews
	stranger  = "127.0.66." // the start of the addresses of other Pods
)

// webhook is an egress-webhook with methods for tests.
type webhook struct {
	*Webhook
	stays *http.Client // keeps its connection from the API server's address
	floor *webhook     // another one, which nobody attacks
}

// certificates creates the serving certificate of all webhooks once.
var certificates = sync.OnceValues(func() (string, error) {
	certs := filepath.Join(dir, "certs")
	output, err := exec.Command(harness.Root+"/scripts/generate-certs.sh", certs).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("generate-certs.sh: %w: %s", err, output)
	}
	return certs, err
})

// startWebhook runs egress-webhook and its floor until the test ends.
func startWebhook(t testing.TB) *webhook {
	t.Helper()
	w := startAlone(t)
	w.floor = startAlone(t)
	return w
}

func startAlone(t testing.TB) *webhook {
	t.Helper()
	certs, err := certificates()
	require.NoError(t, err)
	log := filepath.Join(t.TempDir(), "egress-webhook.log")
	process, err := StartWebhook(webhookPod, harness.Binary(t, "egress-webhook"), certs, rangesFile, log)
	require.NoError(t, err, end(log))
	stopAfter(t, process.Process, log)
	w := &webhook{Webhook: process}
	w.stays = w.client(t, apiServer)
	return w
}

// stopAfter kills a program when the test ends, and shows the end of its log if the test has failed.
func stopAfter(t testing.TB, p *pod.Process, log string) {
	t.Cleanup(func() {
		require.NoError(t, p.Kill())
		if t.Failed() {
			t.Logf("%s ends with:\n%s", filepath.Base(log), end(log))
		}
	})
}

// end returns the last lines of a file.
func end(file string) string {
	const most = 800
	data, _ := os.ReadFile(file)
	return string(data[max(0, len(data)-most):])
}

// client returns an HTTP/2 client at an address of this machine. Its connections close when the test ends.
func (w *webhook) client(t testing.TB, address string) *http.Client {
	client := w.Client(address)
	t.Cleanup(client.CloseIdleConnections)
	return client
}

// dial connects from an address with one of the protocols. The connection ends at the context's deadline.
func (w *webhook) dial(ctx context.Context, address string, protocols ...string) (*tls.Conn, error) {
	dialer := &tls.Dialer{
		NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}},
		Config:    &tls.Config{RootCAs: w.Trusted, NextProtos: protocols},
	}
	connection, err := dialer.DialContext(ctx, "tcp", w.Address)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := connection.SetDeadline(deadline); err != nil {
			connection.Close()
			return nil, err
		}
	}
	return connection.(*tls.Conn), nil
}

// metric returns the sum of a metric's series.
func (w *webhook) metric(t testing.TB, name string) float64 {
	t.Helper()
	response, err := Scraper.Get("http://" + w.Health + "/metrics")
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	sum := 0.0
	for line := range strings.Lines(string(body)) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if series == name || strings.HasPrefix(series, name+"{") {
			number, err := strconv.ParseFloat(value, 64)
			require.NoError(t, err)
			sum += number
		}
	}
	return sum
}
