package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"

	"egress-agent/pkg/admission"
)

// serveFloor is the least that a webhook can do: decode the review, and allow it.
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

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

func (b *bench) startWebhook() (*process, error) {
	health, err := freeAddress()
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

// start runs a program, whose flag addressFlag takes where it serves, until it answers a review.
func (b *bench) start(program, addressFlag string, args ...string) (*process, error) {
	address, err := freeAddress()
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
			_, err := c.ask(reviewOf(seed))
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

// cpu is the time the process has had, of one core.
func (p *process) cpu() (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.command.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(data))
	user, userErr := strconv.Atoi(fields[13])
	system, systemErr := strconv.Atoi(fields[14])
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(userErr, systemErr)
}

// resident is the process's memory, in bytes.
func (p *process) resident() (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.command.Process.Pid))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.ParseFloat(strings.Fields(string(data))[1], 64)
	return pages * float64(os.Getpagesize()), err
}
