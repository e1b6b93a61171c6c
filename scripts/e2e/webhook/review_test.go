package webhook

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// review returns the AdmissionReview of a new policy, with some changes.
func review(t testing.TB, uid, policy string, change ...func(*admissionv1.AdmissionReview)) []byte {
	t.Helper()
	object, err := json.Marshal(corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Name: "egress", Namespace: "tenant-a", Labels: map[string]string{"egress-controller": "managed"}},
		Data:       map[string]string{"policy.json": policy},
	})
	require.NoError(t, err)
	asked := admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: types.UID(uid), Kind: metav1.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}, Operation: admissionv1.Create,
			Namespace: "tenant-a", Name: "egress", Object: runtime.RawExtension{Raw: object},
		},
	}
	for _, f := range change {
		f(&asked)
	}
	body, err := json.Marshal(asked)
	require.NoError(t, err)
	return body
}
