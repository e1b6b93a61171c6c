// Package bare has the programs that the benchmarks use as floors. Each does the least that could be done.
package bare

import (
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"

	"egress-agent/pkg/admission"
)

// ServeWebhook serves a webhook that decodes a review and allows it, with the HTTP server and TLS of egress-webhook.
// certs is the folder with tls.crt and tls.key.
func ServeWebhook(address, certs string) error {
	log := slog.New(slog.DiscardHandler)
	certificate, err := admission.NewCertificate(filepath.Join(certs, "tls.crt"), filepath.Join(certs, "tls.key"), log)
	if err != nil {
		return err
	}
	metrics := admission.NewMetrics(prometheus.NewRegistry(), certificate, &admission.Ranges{}, nil)
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
