package hostile

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"

	"egress-agent/scripts/e2e/measure"
	"egress-agent/scripts/e2e/pod"
)

// Webhook is a running egress-webhook within the limits of its Pod.
type Webhook struct {
	*pod.Process
	Address, Health string // the addresses of /validate, and of /readyz and /metrics
	Trusted         *x509.CertPool
}

// StartWebhook starts egress-webhook from the file binary, and waits until it is ready or has ended. certs is a folder
// with ca.crt, tls.crt and tls.key. ranges is the file of AWS's document, and log the file for the output.
func StartWebhook(c pod.Container, binary, certs, ranges, log string) (*Webhook, error) {
	bundle, err := os.ReadFile(filepath.Join(certs, "ca.crt"))
	if err != nil {
		return nil, err
	}
	w := &Webhook{Trusted: x509.NewCertPool()}
	if !w.Trusted.AppendCertsFromPEM(bundle) {
		return nil, fmt.Errorf("%s/ca.crt: no certificate", certs)
	}
	if w.Address, err = measure.FreeAddress(); err != nil {
		return nil, err
	}
	if w.Health, err = measure.FreeAddress(); err != nil {
		return nil, err
	}
	w.Process, err = pod.Start(c, binary, []string{
		"--addr", w.Address, "--http-addr", w.Health, "--ip-family", "ipv4", "--ranges-file", ranges,
		"--tls-cert-file", filepath.Join(certs, "tls.crt"), "--tls-key-file", filepath.Join(certs, "tls.key")}, log)
	if err != nil {
		return nil, err
	}
	return w, awaitReady(w.Process, w.Health)
}

// StartAgent starts egress-agent from the file binary, and waits until it is ready or has ended. The agent runs without
// leader election, because after a kill the Lease would stay held for another 15 seconds.
func StartAgent(c pod.Container, binary, kubeconfig, ranges, log string) (*pod.Process, error) {
	health, err := measure.FreeAddress()
	if err != nil {
		return nil, err
	}
	p, err := pod.Start(c, binary, []string{"--kubeconfig", kubeconfig, "--http-addr", health, "--ip-family", "ipv4",
		"--leader-elect=false", "--ranges-file", ranges}, log)
	if err != nil {
		return nil, err
	}
	return p, awaitReady(p, health)
}

// awaitReady waits until a process is ready or has ended, as long as a Pod's startupProbe does. It returns no error if
// the process has ended, because p.Ended reports that.
func awaitReady(p *pod.Process, health string) error {
	for range 600 {
		response, err := Scraper.Get("http://" + health + "/readyz")
		if err == nil {
			response.Body.Close()
		}
		if p.Ended() != "" || err == nil && response.StatusCode == http.StatusOK {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.Join(fmt.Errorf("process %d is not ready within a minute", p.PID), p.Kill())
}

// Scraper opens a new connection for each request, because the programs count open connections.
var Scraper = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Second}

// Client returns an HTTP/2 client of the webhook that connects from an address of this machine.
func (w *Webhook) Client(address string) *http.Client {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	return &http.Client{Transport: &http.Transport{
		DialContext: dialer.DialContext, TLSClientConfig: &tls.Config{RootCAs: w.Trusted}, ForceAttemptHTTP2: true,
	}}
}

// Ask sends a review and returns the answer. It retries after a 429 with Retry-After, as an API server's client does
// (k8s.io/client-go/rest, with_retry.go).
func (w *Webhook) Ask(ctx context.Context, client *http.Client, body string) (*admissionv1.AdmissionResponse, error) {
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+w.Address+"/validate?timeout=5s", strings.NewReader(body))
		if err != nil {
			return nil, err
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := client.Do(request)
		if err != nil {
			return nil, err
		}
		answer, err := io.ReadAll(response.Body)
		response.Body.Close()
		if seconds, retryErr := strconv.Atoi(response.Header.Get("Retry-After")); retryErr == nil && response.StatusCode == http.StatusTooManyRequests {
			select {
			case <-ctx.Done():
				return nil, fmt.Errorf("%s until the deadline", response.Status)
			case <-time.After(time.Duration(seconds) * time.Second):
			}
			continue
		}
		var reviewed admissionv1.AdmissionReview
		if err := errors.Join(err, json.Unmarshal(answer, &reviewed)); err != nil || reviewed.Response == nil {
			return nil, fmt.Errorf("%s: %.200s: %w", response.Status, answer, err)
		}
		return reviewed.Response, nil
	}
}
