package cached

import (
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/agent/internal/testobjects"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

func TestNetworkPolicyKeepsOnlyMetadata(t *testing.T) {
	networkPolicy := testobjects.NetworkPolicy(t, testobjects.Valid)
	networkPolicy.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "x"}}
	n := NetworkPolicyOf(networkPolicy.DeepCopy())
	require.Equal(t, netpol.SpecDigestOf(networkPolicy.Spec), n.SpecDigest)
	require.Equal(t, 3, n.CIDRCount)
	require.NotEmpty(t, networkPolicy.Annotations[netpol.PolicyAnnotation])
	require.NotContains(t, n.Annotations, netpol.PolicyAnnotation)
	require.Equal(t, netpol.DocumentDigest(networkPolicy.Annotations[netpol.PolicyAnnotation]), n.DocumentDigest)
	require.Nil(t, n.ManagedFields)
	require.Equal(t, networkPolicy.Labels, n.Labels)
}

func TestReducedConfigMapKeepsOnlyThePolicy(t *testing.T) {
	full := testobjects.ConfigMap(testobjects.Valid)
	full.Labels["team"], full.Annotations = "x", map[string]string{"y": "z"}
	full.Data["other"], full.BinaryData = "x", map[string][]byte{"b": nil}
	want := testobjects.ConfigMap(testobjects.Valid)
	want.Data[policy.Key], _ = policy.Compact(testobjects.Valid)
	digest, err := hex.DecodeString(netpol.PolicyDigestOf(full))
	require.NoError(t, err)
	want.Annotations, want.GenerateName, want.Generation = markOnly, string(digest), int64(len(want.Data[policy.Key]))
	always := func(*corev1.ConfigMap, int, int) bool { return true }
	reduced := ReduceConfigMap(full, always)
	require.Equal(t, want, reduced)
	require.Equal(t, want, ReduceConfigMap(reduced, always), "the informer does that with listed objects")
	require.Equal(t, netpol.PolicyDigestOf(testobjects.ConfigMap(testobjects.Valid)), PolicyDigest(reduced))
	require.Equal(t, len(want.Data[policy.Key]), DocumentSize(reduced))
}
