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

	"egress-agent/pkg/netpol"
	"egress-agent/pkg/platform"
	"egress-agent/pkg/policy"
)

// The apiVersion and kind that a review must have.
const (
	apiVersion = "admission.k8s.io/v1"
	kind       = "AdmissionReview"
)

// Request has the fields of an AdmissionRequest of admission.k8s.io/v1 that Review reads. To decode the other fields,
// such as the managedFields of both objects, would take longer than the review.
type Request struct {
	UID       types.UID               `json:"uid"`
	Kind      metav1.GroupVersionKind `json:"kind"`
	Operation string                  `json:"operation"` // CREATE or UPDATE
	Namespace string                  `json:"namespace"`
	Name      string                  `json:"name"` // empty if the API server will generate the name
	UserInfo  struct {
		Username string    `json:"username"`
		Groups   []skipped `json:"groups"` // only their number
	} `json:"userInfo"`
	DryRun    bool       `json:"dryRun"`
	Object    *ConfigMap `json:"object"`
	OldObject *ConfigMap `json:"oldObject"` // only for UPDATE
}

// ConfigMap has the fields of a ConfigMap that Review reads. It omits all other fields, because an object may have a
// hundred thousand labels.
type ConfigMap struct {
	Metadata struct {
		Labels            Labels       `json:"labels"`
		Annotations       Annotations  `json:"annotations"`
		DeletionTimestamp *metav1.Time `json:"deletionTimestamp"`
	} `json:"metadata"`
	Data       Data `json:"data"`
	BinaryData Data `json:"binaryData"` // in base64

	// The keys of data and binaryData, at most maxKeys of each, for the message that names the key of a typing mistake.
	// nil if the ConfigMap has policy.json, or is not a policy.
	dataKeys, binaryKeys keys
}

// Labels are the labels that Review reads.
type Labels struct {
	Policy    string `json:"egress-controller"` // policy.Label
	FluxForce string `json:"kustomize.toolkit.fluxcd.io/force"`
}

// Annotations are the annotations that policy.ObjectWarnings reads.
type Annotations struct {
	ArgoOptions  *string `json:"argocd.argoproj.io/sync-options"`
	ArgoHook     *string `json:"argocd.argoproj.io/hook"`
	ArgoDeletion *string `json:"argocd.argoproj.io/hook-delete-policy"`
	FluxForce    *string `json:"kustomize.toolkit.fluxcd.io/force"`
	HelmHook     *string `json:"helm.sh/hook"`
	HelmDeletion *string `json:"helm.sh/hook-delete-policy"`
}

// Data is the data or binaryData of a ConfigMap.
type Data struct {
	Policy   *string `json:"policy.json"`   // policy.Key; nil if the key is missing
	Platform *string `json:"platform.json"` // platform.Key; nil if the key is missing
}

// toConfigMap converts c to the API's type, with the namespace and name of the request.
func (c *ConfigMap) toConfigMap(request *Request) *corev1.ConfigMap {
	configMap := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: request.Namespace, Name: request.Name}}
	if c.Metadata.Labels.FluxForce != "" {
		configMap.Labels = map[string]string{"kustomize.toolkit.fluxcd.io/force": c.Metadata.Labels.FluxForce}
	}
	if annotations := c.Metadata.Annotations; annotations != (Annotations{}) {
		configMap.Annotations = make(map[string]string)
		for key, value := range map[string]*string{
			"argocd.argoproj.io/sync-options": annotations.ArgoOptions, "argocd.argoproj.io/hook": annotations.ArgoHook,
			"argocd.argoproj.io/hook-delete-policy": annotations.ArgoDeletion, "kustomize.toolkit.fluxcd.io/force": annotations.FluxForce,
			"helm.sh/hook": annotations.HelmHook, "helm.sh/hook-delete-policy": annotations.HelmDeletion,
		} {
			if value != nil {
				configMap.Annotations[key] = *value
			}
		}
	}
	configMap.Data, configMap.BinaryData = make(map[string]string), make(map[string][]byte)
	for _, key := range c.dataKeys {
		configMap.Data[key] = ""
	}
	for _, key := range c.binaryKeys {
		configMap.BinaryData[key] = nil
	}
	if c.Data.Policy != nil {
		configMap.Data[policy.Key] = *c.Data.Policy
	}
	if c.Data.Platform != nil {
		configMap.Data[platform.Key] = *c.Data.Platform
	}
	if c.BinaryData.Policy != nil {
		binary, _ := base64.StdEncoding.DecodeString(*c.BinaryData.Policy) // no error: the API server has decoded it before
		configMap.BinaryData[policy.Key] = binary
	}
	return configMap
}

// Response is an AdmissionResponse of admission.k8s.io/v1.
type Response struct {
	UID      types.UID      `json:"uid"`
	Allowed  bool           `json:"allowed"`
	Result   *metav1.Status `json:"status,omitempty"` // only for a denial
	Warnings []string       `json:"warnings,omitempty"`
}

// readReview decodes an AdmissionReview and returns its request. The result is nil if the review has no request.
func readReview(body []byte) (*Request, error) {
	var review struct {
		metav1.TypeMeta
		Request *Request `json:"request"`
	}
	if err := utiljson.UnmarshalCaseSensitivePreserveInts(body, &review); err != nil {
		return nil, fmt.Errorf("the body is not an %s: %w", kind, err)
	}
	if review.APIVersion != apiVersion || review.Kind != kind {
		return nil, fmt.Errorf("the body has apiVersion %q and kind %q; expected %s and %s", review.APIVersion, review.Kind, apiVersion, kind)
	}
	if request := review.Request; request != nil && request.Object != nil && isPolicy(request.Object) && request.Object.Data.Policy == nil {
		readKeys(body, request.Object)
	}
	return review.Request, nil
}

// maxKeys is one more than the number of keys that a message considers.
const maxKeys = netpol.MaxSimilarKeys + 1

// keys are the first maxKeys keys of a JSON object. The values are not kept, because they may be large.
type keys []string

func (k *keys) UnmarshalJSON(raw []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return err
	}
	for decoder.More() && len(*k) < maxKeys {
		key, err := decoder.Token()
		if err != nil {
			return err
		}
		if err := decoder.Decode(new(skipped)); err != nil {
			return err
		}
		*k = append(*k, key.(string))
	}
	return nil
}

// skipped is a JSON value that is not kept.
type skipped struct{}

func (skipped) UnmarshalJSON([]byte) error { return nil }

// readKeys sets the keys of object, which is the object of the review in body.
func readKeys(body []byte, object *ConfigMap) {
	var review struct {
		Request struct {
			Object struct {
				Data       keys `json:"data"`
				BinaryData keys `json:"binaryData"`
			} `json:"object"`
		} `json:"request"`
	}
	_ = utiljson.UnmarshalCaseSensitivePreserveInts(body, &review) // no error: readReview has decoded the body before
	object.dataKeys, object.binaryKeys = review.Request.Object.Data, review.Request.Object.BinaryData
}

// writeReview appends an AdmissionReview with the response to a buffer.
func writeReview(buffer *bytes.Buffer, response *Response) {
	review := struct {
		APIVersion string    `json:"apiVersion"`
		Kind       string    `json:"kind"`
		Response   *Response `json:"response"`
	}{apiVersion, kind, response}
	_ = json.NewEncoder(buffer).Encode(review) // writes strings and numbers to memory, so it never fails
}
