// Package admission judges policy ConfigMaps for the API server: Review is the pure decision,
// Handler the HTTP around it. It needs no access to the API.
package admission

import (
	"fmt"
	"net/http"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "sigs.k8s.io/json"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// Review judges one request by the same line that the agent walks. The table may be nil. An error
// means that the request is not one that the webhook's configuration sends: it is malformed, and
// gets no verdict.
func Review(request *admissionv1.AdmissionRequest, table *awsranges.Table, options netpol.Options) (*admissionv1.AdmissionResponse, error) {
	if request == nil {
		return nil, fmt.Errorf("the review has no request")
	}
	if request.UID == "" {
		return nil, fmt.Errorf("the request has no uid")
	}
	if kind := request.Kind; kind.Group != "" || kind.Version != "v1" || kind.Kind != "ConfigMap" {
		return nil, fmt.Errorf("the request is for %s, not v1, Kind=ConfigMap", kind.String())
	}
	var old *corev1.ConfigMap
	switch request.Operation {
	case admissionv1.Create:
	case admissionv1.Update:
		var err error
		if old, err = configMap(request.OldObject, "oldObject"); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("the request is for operation %q, not CREATE or UPDATE", request.Operation)
	}
	object, err := configMap(request.Object, "object")
	if err != nil {
		return nil, err
	}
	if !isPolicy(object) || object.DeletionTimestamp != nil || sameForAgent(old, object) {
		return allowed(request, nil), nil
	}
	result, problems := netpol.Evaluate(object, table, options)
	if problems != nil {
		return denied(request, problems), nil
	}
	return allowed(request, result.Warnings), nil
}

func configMap(raw runtime.RawExtension, field string) (*corev1.ConfigMap, error) {
	if len(raw.Raw) == 0 || string(raw.Raw) == "null" {
		return nil, fmt.Errorf("the request has no %s", field)
	}
	object := &corev1.ConfigMap{}
	if err := utiljson.UnmarshalCaseSensitivePreserveInts(raw.Raw, object); err != nil {
		return nil, fmt.Errorf("the request's %s is no ConfigMap: %w", field, err)
	}
	return object, nil
}

func isPolicy(object *corev1.ConfigMap) bool { return object.Labels[policy.Label] == policy.LabelValue }

// sameForAgent says that an update leaves alone what the agent reads. Such an update passes even on
// a bad policy, which must not lock its object against annotations or the loss of a finalizer.
func sameForAgent(old, object *corev1.ConfigMap) bool {
	if old == nil || !isPolicy(old) {
		return false
	}
	before, hadOne := old.Data[policy.Key]
	after, hasOne := object.Data[policy.Key]
	return hadOne == hasOne && before == after
}

func allowed(request *admissionv1.AdmissionRequest, warnings policy.Problems) *admissionv1.AdmissionResponse {
	response := &admissionv1.AdmissionResponse{UID: request.UID, Allowed: true}
	response.Warnings = texts(warnings)
	return response
}

func denied(request *admissionv1.AdmissionRequest, problems policy.Problems) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{
		UID: request.UID,
		Result: &metav1.Status{
			Status:  metav1.StatusFailure,
			Code:    http.StatusForbidden,
			Reason:  metav1.StatusReasonForbidden, // kubectl shows the whole message of this one
			Message: problems.Error(),
			Details: &metav1.StatusDetails{Kind: "ConfigMap", Name: request.Name, Causes: causes(problems)},
		},
	}
}

// maxCauses bounds a refusal as policy.Problems.Error bounds its message.
const maxCauses = 100

func causes(problems policy.Problems) []metav1.StatusCause {
	list := make([]metav1.StatusCause, 0, min(len(problems), maxCauses))
	for _, p := range problems[:min(len(problems), maxCauses)] {
		list = append(list, metav1.StatusCause{Type: metav1.CauseTypeFieldValueInvalid, Message: p.Message, Field: p.Path})
	}
	return list
}

// texts gives warnings as an API server takes them: it cuts each at 256 characters, and from 4,096
// in all on it drops them silently (k8s.io/apiserver, pkg/endpoints/filters/warning.go).
func texts(warnings policy.Problems) []string {
	const longest, room = 256, 4096 - 64
	var list []string
	total := 0
	for i, w := range warnings {
		runes := []rune(w.String())
		if len(runes) > longest {
			runes = append(runes[:longest-1], '…')
		}
		if total += len(runes); total > room {
			return append(list, fmt.Sprintf("and %d more warnings", len(warnings)-i))
		}
		list = append(list, strings.TrimSpace(string(runes)))
	}
	return list
}
