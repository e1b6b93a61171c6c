package admission

import (
	"bytes"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	utiljson "sigs.k8s.io/json"
)

// What a review must say of itself.
const (
	apiVersion = "admission.k8s.io/v1"
	kind       = "AdmissionReview"
)

// Request is what is read of an AdmissionRequest of admission.k8s.io/v1. The rest, such as the
// managedFields of both objects, would take longer to decode than a verdict to reach.
type Request struct {
	UID       types.UID               `json:"uid"`
	Kind      metav1.GroupVersionKind `json:"kind"`
	Operation string                  `json:"operation"` // CREATE or UPDATE
	Namespace string                  `json:"namespace"`
	Name      string                  `json:"name"` // empty where the API server is to generate one
	UserInfo  struct {
		Username string `json:"username"`
	} `json:"userInfo"`
	DryRun    bool       `json:"dryRun"`
	Object    *ConfigMap `json:"object"`
	OldObject *ConfigMap `json:"oldObject"` // of an UPDATE
}

// ConfigMap is what is read of one. All else is passed over: an object may have a hundred thousand labels.
type ConfigMap struct {
	Metadata struct {
		Labels            Labels       `json:"labels"`
		DeletionTimestamp *metav1.Time `json:"deletionTimestamp"`
	} `json:"metadata"`
	Data Data `json:"data"`
}

// Labels are those of a ConfigMap.
type Labels struct {
	Policy string `json:"egress-controller"` // policy.Label
}

// Data is that of a ConfigMap.
type Data struct {
	Policy *string `json:"policy.json"` // policy.Key; nil if it is left out
}

// Response is an AdmissionResponse of admission.k8s.io/v1.
type Response struct {
	UID      types.UID      `json:"uid"`
	Allowed  bool           `json:"allowed"`
	Result   *metav1.Status `json:"status,omitempty"` // of a denial
	Warnings []string       `json:"warnings,omitempty"`
}

// readReview reads the request out of an AdmissionReview, which may lack it.
func readReview(body []byte) (*Request, error) {
	var review struct {
		metav1.TypeMeta
		Request *Request `json:"request"`
	}
	if err := utiljson.UnmarshalCaseSensitivePreserveInts(body, &review); err != nil {
		return nil, fmt.Errorf("the body is no %s: %w", kind, err)
	}
	if review.APIVersion != apiVersion || review.Kind != kind {
		return nil, fmt.Errorf("the body is %q %q, not %s %s", review.APIVersion, review.Kind, apiVersion, kind)
	}
	return review.Request, nil
}

// writeReview appends the AdmissionReview that answers.
func writeReview(to *bytes.Buffer, response *Response) {
	review := struct {
		APIVersion string    `json:"apiVersion"`
		Kind       string    `json:"kind"`
		Response   *Response `json:"response"`
	}{apiVersion, kind, response}
	_ = json.NewEncoder(to).Encode(review) // strings and numbers into memory: nothing of that can fail
}
