package admission

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"

	admissionv1 "k8s.io/api/admission/v1"
	utiljson "sigs.k8s.io/json"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
)

// maxBody bounds a review. An API server takes objects of up to 3 MiB, and ConfigMaps of 1 MiB; an
// update carries two.
const maxBody = 3 << 20

// Handler serves POST /validate. table gives the ranges in use, and may give nil. A review gets 200
// and its verdict; what is no review gets a 4xx, which an API server takes as a failed call.
func Handler(table func() *awsranges.Table, options netpol.Options, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /validate", func(w http.ResponseWriter, r *http.Request) {
		review, status, err := decode(w, r)
		if err == nil {
			review.Response, err = Review(review.Request, table(), options)
			status = http.StatusBadRequest
		}
		if err != nil {
			log.Warn("malformed review", "status", status, "error", err, "client", r.RemoteAddr)
			http.Error(w, err.Error(), status)
			return
		}
		report(log, review)
		review.Request = nil
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(review); err != nil {
			log.Warn("review not answered", "error", err)
		}
	})
	return mux
}

// decode reads a review; the status is for its error.
func decode(w http.ResponseWriter, r *http.Request) (review *admissionv1.AdmissionReview, status int, err error) {
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" {
		return nil, http.StatusUnsupportedMediaType, fmt.Errorf("the content type is %q, not application/json", r.Header.Get("Content-Type"))
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, http.StatusRequestEntityTooLarge, fmt.Errorf("the body is larger than %d bytes", maxBody)
	}
	if err != nil {
		return nil, http.StatusBadRequest, fmt.Errorf("read the body: %w", err)
	}
	review = &admissionv1.AdmissionReview{}
	if err := utiljson.UnmarshalCaseSensitivePreserveInts(body, review); err != nil {
		return nil, http.StatusBadRequest, fmt.Errorf("the body is no AdmissionReview: %w", err)
	}
	if review.APIVersion != admissionv1.SchemeGroupVersion.String() || review.Kind != "AdmissionReview" {
		return nil, http.StatusBadRequest, fmt.Errorf("the body is %q %q, not %s AdmissionReview", review.APIVersion, review.Kind, admissionv1.SchemeGroupVersion)
	}
	return review, http.StatusOK, nil
}

func report(log *slog.Logger, review *admissionv1.AdmissionReview) {
	request, response := review.Request, review.Response
	attributes := []any{
		"namespace", request.Namespace, "name", request.Name, "operation", request.Operation,
		"user", request.UserInfo.Username, "warnings", len(response.Warnings),
	}
	if response.Allowed {
		log.Info("allowed", attributes...)
		return
	}
	log.Info("denied", append(attributes, "reason", response.Result.Message)...)
}
