// Package admission judges policy ConfigMaps for the API server: Review is the pure decision, Handler the
// HTTP around it, NewServer the TLS around that. It needs no access to the API.
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

// The operations that the webhook's configuration sends.
const (
	create = "CREATE"
	update = "UPDATE"
)

// Review judges one request, which may be nil, by the same line that the agent walks. The table may be nil.
// An error means that the request is not one that the webhook's configuration sends: it is malformed, and
// gets no verdict. A dry run is judged as any other: a verdict changes nothing.
func Review(request *Request, table *awsranges.Table, options netpol.Options) (*Response, error) {
	if err := wellFormed(request); err != nil {
		return nil, err
	}
	object := request.Object
	if !isPolicy(object) || object.Metadata.DeletionTimestamp != nil || isUnchanged(request.OldObject, object) {
		return allowed(request, nil), nil
	}
	compiled := netpol.CompileConfigMap(object.configMap(request), netpol.Inputs{Table: table, Options: options})
	if compiled.Problems != nil {
		return denied(request, compiled.Problems), nil
	}
	return allowed(request, compiled.Warnings), nil
}

func wellFormed(request *Request) error {
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

func isPolicy(object *ConfigMap) bool {
	return object.Metadata.Labels.Policy == policy.LabelValue
}

// isUnchanged says that an update leaves alone what the agent reads. Such an update passes even on
// a bad policy, which must not lock its object against annotations or the loss of a finalizer.
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
			Reason:  metav1.StatusReasonForbidden, // kubectl shows the whole message of this one
			Message: problems.Error(),
			Details: &metav1.StatusDetails{Kind: "ConfigMap", Name: request.Name, Causes: causes(problems)},
		},
	}
}

func causes(problems policy.Problems) []metav1.StatusCause {
	list := make([]metav1.StatusCause, 0, len(problems))
	for _, p := range problems {
		if p.Path != "" { // it is no count of others
			list = append(list, metav1.StatusCause{Type: metav1.CauseTypeFieldValueInvalid, Message: p.Message, Field: p.Path})
		}
	}
	return list
}

// formatWarnings gives warnings, of which the most severe come first, as an API server takes them: it cuts each at 256 characters, and from 4,096
// in all on it drops them silently (k8s.io/apiserver, pkg/endpoints/filters/warning.go).
func formatWarnings(warnings policy.Problems) []string {
	const longest, room = 256, 4096 - 64
	var list []string
	total := 0
	for i, w := range warnings {
		text := w.String()
		length := utf8.RuneCountInString(text)
		if length > longest {
			text, length = string([]rune(text)[:longest-1])+"…", longest
		}
		if total += length; total > room {
			return append(list, fmt.Sprintf("and %d more warnings", len(warnings)-i))
		}
		list = append(list, strings.TrimSpace(text))
	}
	return list
}
