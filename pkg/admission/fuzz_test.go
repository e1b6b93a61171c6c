package admission

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "sigs.k8s.io/json"

	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// decodeResponse decodes body, which must be one AdmissionReview with a response and without a request.
func decodeResponse(t *testing.T, body io.Reader) *admissionv1.AdmissionResponse {
	t.Helper()
	var answer admissionv1.AdmissionReview
	decoder := json.NewDecoder(body)
	require.NoError(t, decoder.Decode(&answer))
	require.ErrorIs(t, decoder.Decode(&struct{}{}), io.EOF, "one document")
	require.Equal(t, "admission.k8s.io/v1", answer.APIVersion)
	require.Nil(t, answer.Request)
	require.Equal(t, answer.Response.Allowed, answer.Response.Result == nil)
	return answer.Response
}

// verdict computes the expected verdict with the API's own types and a direct call of netpol. isKnown is false in two
// cases. A field that the webhook does not read may have a shape that the API's types do not accept. A field may occur
// twice: the API's types then use the last raw object, and the webhook merges the two objects.
func verdict(body []byte) (allowed bool, message string, warnings []string, isKnown bool) {
	var review admissionv1.AdmissionReview
	var object, old corev1.ConfigMap
	duplicates, err := utiljson.UnmarshalStrict(body, &review, utiljson.DisallowDuplicateFields)
	if len(duplicates) > 0 || err != nil ||
		utiljson.UnmarshalCaseSensitivePreserveInts(review.Request.Object.Raw, &object) != nil {
		return false, "", nil, false
	}
	if object.Labels[policy.Label] != policy.LabelValue || object.DeletionTimestamp != nil {
		return true, "", nil, true
	}
	if review.Request.Operation == admissionv1.Update {
		if utiljson.UnmarshalCaseSensitivePreserveInts(review.Request.OldObject.Raw, &old) != nil {
			return false, "", nil, false
		}
		oldJSON, hadKey := old.Data[policy.Key]
		newJSON, hasKey := object.Data[policy.Key]
		if old.Labels[policy.Label] == policy.LabelValue && hadKey == hasKey && oldJSON == newJSON {
			return true, "", nil, true
		}
	}
	result := netpol.CompileConfigMap(&object, netpol.Inputs{Options: options})
	problems := result.Problems
	if problems != nil {
		return false, problems.Error(), nil, true
	}
	return true, "", formatWarnings(result.Warnings), true
}

// requireVerdict requires that w has the response that verdict computes, with the UID of the review.
func requireVerdict(t *testing.T, body []byte, w *httptest.ResponseRecorder) {
	t.Helper()
	response := decodeResponse(t, w.Body)
	allowed, message, warnings, isKnown := verdict(body)
	if !isKnown {
		return
	}
	var sent admissionv1.AdmissionReview
	require.NoError(t, utiljson.UnmarshalCaseSensitivePreserveInts(body, &sent))
	require.Equal(t, sent.Request.UID, response.UID)
	require.Equal(t, allowed, response.Allowed)
	require.Equal(t, warnings, response.Warnings)
	if !allowed {
		require.Equal(t, message, response.Result.Message)
	}
}

// FuzzReview checks that a review gets the verdict of a direct call and its own UID. Any other body gets a 4xx
// status. Nothing panics.
func FuzzReview(f *testing.F) {
	f.Add(review(f, request("CREATE", runtime.RawExtension{}, object(f, good))))
	f.Add(review(f, request("CREATE", runtime.RawExtension{}, object(f, bad))))
	f.Add(review(f, request("UPDATE", object(f, good), object(f, bad))))
	f.Add(review(f, request("UPDATE", object(f, bad), object(f, bad, annotated))))
	f.Add(review(f, request("UPDATE", object(f, good), object(f, bad, deleting))))
	f.Add(review(f, nil))
	handler := newHandler(newMetrics())
	f.Fuzz(func(t *testing.T, body []byte) {
		w := post(handler, bytes.NewReader(body))
		if w.Code != http.StatusOK {
			require.Contains(t, []int{http.StatusBadRequest, http.StatusRequestEntityTooLarge}, w.Code)
			return
		}
		requireVerdict(t, body, w)
	})
}

// FuzzVerdict varies the policies in a review, the labels and the name.
func FuzzVerdict(f *testing.F) {
	f.Add("", good, true, true, false, "u")
	f.Add(good, bad, true, true, false, "\x00\"\\")
	f.Add(bad, bad, true, true, false, "u")
	f.Add(bad, bad, false, true, false, "u")
	f.Add(good, bad, true, false, false, "u")
	f.Add(good, bad, true, true, true, "u")
	handler := newHandler(newMetrics())
	f.Fuzz(func(t *testing.T, oldPolicy, newPolicy string, wasLabelled, isLabelled, isDeleting bool, name string) {
		change := func(labelled, deleted bool) func(*corev1.ConfigMap) {
			return func(c *corev1.ConfigMap) {
				c.Name = name
				if !labelled {
					unlabelled(c)
				}
				if deleted {
					deleting(c)
				}
			}
		}
		r := request("UPDATE", object(t, oldPolicy, change(wasLabelled, false)), object(t, newPolicy, change(isLabelled, isDeleting)))
		if oldPolicy == "" {
			r = request("CREATE", runtime.RawExtension{}, object(t, newPolicy, change(isLabelled, false)))
		}
		body := review(t, r)
		w := post(handler, bytes.NewReader(body))
		require.Equal(t, http.StatusOK, w.Code, w.Body.String())
		requireVerdict(t, body, w)
	})
}
