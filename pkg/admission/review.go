// Package admission reviews policy ConfigMaps for the API server. Review is the pure decision, Handler is the
// HTTP handler around it, and NewServer adds TLS. The package does not access the Kubernetes API.
package admission

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/platform"
	"egress-agent/pkg/policy"
)

// The operations in the webhook's configuration.
const (
	create = "CREATE"
	update = "UPDATE"
)

// Rules are what a review judges by.
type Rules struct {
	Table   *awsranges.Table // may be nil
	Options netpol.Options
	Now     time.Time // decides which destinations have expired
	// Guardrails returns the guardrails of a namespace. It may be nil, and may return nil.
	Guardrails func(namespace string) *netpol.Guardrails
}

func (r Rules) inputs(namespace string) netpol.Inputs {
	in := netpol.Inputs{Table: r.Table, Options: r.Options, Now: r.Now}
	if r.Guardrails != nil {
		in.Guardrails = r.Guardrails(namespace)
	}
	return in
}

// Review returns the verdict on one request. It checks the policy, or the platform document, with the same code as the
// agent. request may be nil. Review returns an error and no verdict if the webhook's configuration excludes such a request, or if the
// request is malformed. A dry run gets the same verdict, because a review changes nothing.
func Review(request *Request, rules Rules) (*Response, error) {
	if err := checkRequest(request); err != nil {
		return nil, err
	}
	object := request.Object
	if object.Metadata.DeletionTimestamp != nil || isUnchanged(request.OldObject, object) {
		return allowedResponse(request, nil), nil
	}
	switch object.Metadata.Labels.Policy {
	case policy.LabelValue:
		compiled := netpol.CompileConfigMap(object.toConfigMap(request), rules.inputs(request.Namespace))
		problems := compiled.Problems
		if problems == nil {
			problems = compiled.Refusals(oldPolicy(request))
		}
		if problems != nil {
			return deniedResponse(request, problems, problems.Error()), nil
		}
		return allowedResponse(request, compiled.Warnings), nil
	case platform.LabelValue:
		_, warnings, problems := netpol.CompilePlatform(object.toConfigMap(request), netpol.Inputs{Table: rules.Table, Options: rules.Options, Now: rules.Now})
		if problems != nil {
			return deniedResponse(request, problems, platform.Error(problems)), nil
		}
		return allowedResponse(request, warnings), nil
	}
	return allowedResponse(request, nil), nil
}

// oldPolicy returns the policy that an update replaces. It returns nil if the request is no update, or if that policy is
// invalid.
func oldPolicy(request *Request) *policy.Policy {
	if request.Operation != update || !isPolicy(request.OldObject) || request.OldObject.Data.Policy == nil {
		return nil
	}
	document, problems := policy.Parse([]byte(*request.OldObject.Data.Policy))
	if problems != nil {
		return nil
	}
	old, _ := policy.Validate(document, policy.Names{})
	return old
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

// isUnchanged reports whether an update changes neither the document nor the label. Review allows such an update
// even if the document is invalid. Otherwise nobody could annotate the object or remove its finalizer.
func isUnchanged(oldObject, newObject *ConfigMap) bool {
	if oldObject == nil || oldObject.Metadata.Labels.Policy != newObject.Metadata.Labels.Policy {
		return false
	}
	isEqual := func(oldJSON, newJSON *string) bool {
		return oldJSON == newJSON || oldJSON != nil && newJSON != nil && *oldJSON == *newJSON
	}
	if newObject.Metadata.Labels.Policy == platform.LabelValue {
		return isEqual(oldObject.Data.Platform, newObject.Data.Platform)
	}
	return isEqual(oldObject.Data.Policy, newObject.Data.Policy)
}

func allowedResponse(request *Request, warnings policy.Problems) *Response {
	return &Response{UID: request.UID, Allowed: true, Warnings: formatWarnings(warnings)}
}

func deniedResponse(request *Request, problems policy.Problems, message string) *Response {
	return &Response{
		UID: request.UID,
		Result: &metav1.Status{
			Status:  metav1.StatusFailure,
			Code:    http.StatusForbidden,
			Reason:  metav1.StatusReasonForbidden, // with this reason kubectl prints the whole message
			Message: message,
			Details: &metav1.StatusDetails{Kind: "ConfigMap", Name: request.Name, Causes: causesOf(problems)},
		},
	}
}

// causesOf returns a cause for each problem with a path. A problem without a path only counts further problems.
func causesOf(problems policy.Problems) []metav1.StatusCause {
	list := make([]metav1.StatusCause, 0, len(problems))
	for _, p := range problems {
		if p.Path != "" {
			list = append(list, metav1.StatusCause{Type: metav1.CauseTypeFieldValueInvalid, Message: p.Message, Field: p.Path})
		}
	}
	return list
}

// formatWarnings returns the warnings in their order, the most severe first. An API server cuts each warning at 256
// characters, and silently drops warnings after 4,096 characters in total (k8s.io/apiserver,
// pkg/endpoints/filters/warning.go). formatWarnings stays within both limits.
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
