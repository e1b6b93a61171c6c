package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"

	"egress-agent/pkg/admission"
	"egress-agent/scripts/e2e/measure"
)

// serveFloor serves the smallest possible webhook: it decodes the review and allows it.
func serveFloor(address, certs string) error {
	log := slog.New(slog.DiscardHandler)
	certificate, err := admission.NewCertificate(filepath.Join(certs, "tls.crt"), filepath.Join(certs, "tls.key"), log)
	if err != nil {
		return err
	}
	metrics := admission.NewMetrics(prometheus.NewRegistry(), certificate, &admission.Ranges{})
	server := admission.NewServer(http.HandlerFunc(allow), certificate, metrics, log)
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	return server.ServeTLS(listener, "", "")
}

func allow(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var review admissionv1.AdmissionReview
	if err == nil {
		err = json.Unmarshal(body, &review)
	}
	if err != nil || review.Request == nil {
		http.Error(w, "no review", http.StatusBadRequest)
		return
	}
	review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
	review.Request = nil
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(review)
}

// process is a running server.
type process struct {
	command *exec.Cmd
	address string
}

func (b *bench) startWebhook() (*process, error) {
	health, err := measure.FreeAddress()
	if err != nil {
		return nil, err
	}
	return b.start(b.webhook, "--addr", "--ranges-file", b.ranges, "--ip-family", "ipv4", "--http-addr", health,
		"--tls-cert-file", filepath.Join(b.dir, "tls.crt"), "--tls-key-file", filepath.Join(b.dir, "tls.key"))
}

func (b *bench) startFloor() (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return b.start(self, "--floor", "--certs", b.dir)
}

// start starts a program, and waits until it answers a review. addressFlag is the program's flag for its address.
func (b *bench) start(program, addressFlag string, args ...string) (*process, error) {
	address, err := measure.FreeAddress()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(b.dir, filepath.Base(program)+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &process{address: address, command: exec.Command(program, append([]string{addressFlag, address}, args...)...)}
	p.command.Stderr = log
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.command.Start(); err != nil {
		return nil, err
	}
	for range 500 {
		if c, err := b.dial(p); err == nil {
			defer c.Close()
			_, err := c.ask(reviewRequest(seed))
			return p, err
		}
		time.Sleep(20 * time.Millisecond)
	}
	data, _ := os.ReadFile(log.Name())
	return nil, fmt.Errorf("%s does not answer: %s", program, data)
}

func (p *process) kill() {
	_ = p.command.Process.Kill()
	_ = p.command.Wait()
}
