package admission

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	utiljson "sigs.k8s.io/json"

	"egress-agent/pkg/policy"
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
		Annotations       Annotations  `json:"annotations"`
		DeletionTimestamp *metav1.Time `json:"deletionTimestamp"`
	} `json:"metadata"`
	Data       Data `json:"data"`
	BinaryData Data `json:"binaryData"` // in base64
}

// Labels are those of a ConfigMap.
type Labels struct {
	Policy    string `json:"egress-controller"` // policy.Label
	FluxForce string `json:"kustomize.toolkit.fluxcd.io/force"`
}

// Annotations are those that policy.ObjectWarnings reads.
type Annotations struct {
	ArgoOptions  *string `json:"argocd.argoproj.io/sync-options"`
	ArgoHook     *string `json:"argocd.argoproj.io/hook"`
	ArgoDeletion *string `json:"argocd.argoproj.io/hook-delete-policy"`
	FluxForce    *string `json:"kustomize.toolkit.fluxcd.io/force"`
	HelmHook     *string `json:"helm.sh/hook"`
	HelmDeletion *string `json:"helm.sh/hook-delete-policy"`
}

// Data is that of a ConfigMap.
type Data struct {
	Policy *string `json:"policy.json"` // policy.Key; nil if it is left out
}

// configMap returns what is judged of an object.
func (c *ConfigMap) configMap(request *Request) *corev1.ConfigMap {
	judged := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: request.Namespace, Name: request.Name}}
	if c.Metadata.Labels.FluxForce != "" {
		judged.Labels = map[string]string{"kustomize.toolkit.fluxcd.io/force": c.Metadata.Labels.FluxForce}
	}
	if given := c.Metadata.Annotations; given != (Annotations{}) {
		judged.Annotations = make(map[string]string)
		for key, value := range map[string]*string{
			"argocd.argoproj.io/sync-options": given.ArgoOptions, "argocd.argoproj.io/hook": given.ArgoHook,
			"argocd.argoproj.io/hook-delete-policy": given.ArgoDeletion, "kustomize.toolkit.fluxcd.io/force": given.FluxForce,
			"helm.sh/hook": given.HelmHook, "helm.sh/hook-delete-policy": given.HelmDeletion,
		} {
			if value != nil {
				judged.Annotations[key] = *value
			}
		}
	}
	if c.Data.Policy != nil {
		judged.Data = map[string]string{policy.Key: *c.Data.Policy}
	}
	if c.BinaryData.Policy != nil {
		binary, _ := base64.StdEncoding.DecodeString(*c.BinaryData.Policy) // an API server has decoded it
		judged.BinaryData = map[string][]byte{policy.Key: binary}
	}
	return judged
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
