// Package admission reviews policy ConfigMaps for the API server. Review is the pure decision, Handler is the
// HTTP handler around it, and NewServer adds TLS. The package does not access the Kubernetes API.
package admission

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// The operations in the webhook's configuration.
const (
	create = "CREATE"
	update = "UPDATE"
)

// Review returns the verdict on one request. It checks the policy with the same code as the agent. request and
// table may be nil. Review returns an error if the webhook's configuration does not send such a request; a
// malformed request gets no verdict. A dry run gets the same verdict, because a review changes nothing.
func Review(request *Request, table *awsranges.Table, options netpol.Options) (*Response, error) {
	if err := checkRequest(request); err != nil {
		return nil, err
	}
	object := request.Object
	if !isPolicy(object) || object.Metadata.DeletionTimestamp != nil || isUnchanged(request.OldObject, object) {
		return allowed(request, nil), nil
	}
	compiled := netpol.CompileConfigMap(object.toConfigMap(request), netpol.Inputs{Table: table, Options: options})
	if compiled.Problems != nil {
		return denied(request, compiled.Problems), nil
	}
	return allowed(request, compiled.Warnings), nil
}

// checkRequest returns an error if the request is malformed.
func checkRequest(request *Request) error {
	switch {
	case request == nil:
		return errors.New("the review has no request")
	case request.UID == "":
		return errors.New("the request has no uid")
	case request.Kind != metav1.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}:
		return fmt.Errorf("the request is for %s, not v1, Kind=ConfigMap", request.Kind.String())
	case request.Operation != create && request.Operation != update:
		return fmt.Errorf("the request is for operation %q, not %s or %s", request.Operation, create, update)
	case request.Operation == update && request.OldObject == nil:
		return errors.New("the request has no oldObject")
	case request.Object == nil:
		return errors.New("the request has no object")
	}
	return nil
}

// isPolicy reports whether the object has the label of a policy ConfigMap.
func isPolicy(object *ConfigMap) bool {
	return object.Metadata.Labels.Policy == policy.LabelValue
}

// isUnchanged reports whether an update changes neither policy.json nor the label. Review allows such an update
// even if the policy is invalid. Otherwise nobody could annotate the object or remove its finalizer.
func isUnchanged(old, object *ConfigMap) bool {
	if old == nil || !isPolicy(old) {
		return false
	}
	before, after := old.Data.Policy, object.Data.Policy
	return before == after || before != nil && after != nil && *before == *after
}

func allowed(request *Request, warnings policy.Problems) *Response {
	return &Response{UID: request.UID, Allowed: true, Warnings: formatWarnings(warnings)}
}

func denied(request *Request, problems policy.Problems) *Response {
	return &Response{
		UID: request.UID,
		Result: &metav1.Status{
			Status:  metav1.StatusFailure,
			Code:    http.StatusForbidden,
			Reason:  metav1.StatusReasonForbidden, // with this reason kubectl prints the whole message
			Message: problems.Error(),
			Details: &metav1.StatusDetails{Kind: "ConfigMap", Name: request.Name, Causes: causes(problems)},
		},
	}
}

func causes(problems policy.Problems) []metav1.StatusCause {
	list := make([]metav1.StatusCause, 0, len(problems))
	for _, p := range problems {
		if p.Path != "" { // problems without a path only count further problems
			list = append(list, metav1.StatusCause{Type: metav1.CauseTypeFieldValueInvalid, Message: p.Message, Field: p.Path})
		}
	}
	return list
}

// formatWarnings returns the warnings in their order, the most severe first. It observes the limits of API
// servers, which cut each warning at 256 characters and silently drop those beyond 4,096 characters in all
// (k8s.io/apiserver, pkg/endpoints/filters/warning.go).
func formatWarnings(warnings policy.Problems) []string {
	const maxLength, maxTotal = 256, 4096 - 64
	var list []string
	total := 0
	for i, w := range warnings {
		text := w.String()
		length := utf8.RuneCountInString(text)
		if length > maxLength {
			text, length = string([]rune(text)[:maxLength-1])+"…", maxLength
		}
		if total += length; total > maxTotal {
			return append(list, fmt.Sprintf("and %d more warnings", len(warnings)-i))
		}
		list = append(list, strings.TrimSpace(text))
	}
	return list
}
