package cached

import (
	"strings"
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
	n := NetworkPolicyOf(testobjects.Metadata(networkPolicy))
	require.Nil(t, n.full, "the agent's own metadata is packed")
	current, isSpecKnown := n.Current()
	require.True(t, isSpecKnown)
	require.Equal(t, netpol.SpecDigestOf(networkPolicy.Spec), current.SpecDigest)
	require.Equal(t, 3, current.Usage.CIDRs)
	require.NotEmpty(t, networkPolicy.Annotations[netpol.PolicyAnnotation])
	require.NotContains(t, current.Annotations, netpol.PolicyAnnotation)
	require.Equal(t, netpol.DocumentDigest(networkPolicy.Annotations[netpol.PolicyAnnotation]), current.DocumentDigest)
	require.Nil(t, current.ManagedFields)
}

// TestNetworkPolicyLosesNoMetadata reduces metadata in many variants, and requires that Current returns it unchanged
// except for the PolicyAnnotation.
func TestNetworkPolicyLosesNoMetadata(t *testing.T) {
	now := metav1.Now()
	for name, change := range map[string]func(*metav1.ObjectMeta){
		"the agent's own": func(*metav1.ObjectMeta) {},
		"deny-all": func(m *metav1.ObjectMeta) {
			delete(m.Annotations, netpol.PolicyDigestAnnotation)
			delete(m.Annotations, netpol.DestinationsAnnotation)
		},
		"edited spec":        func(m *metav1.ObjectMeta) { m.Generation = 7 },
		"no labels":          func(m *metav1.ObjectMeta) { m.Labels = nil },
		"another label":      func(m *metav1.ObjectMeta) { m.Labels["team"] = "x" },
		"label of others":    func(m *metav1.ObjectMeta) { m.Labels = map[string]string{"team": "x"} },
		"no annotations":     func(m *metav1.ObjectMeta) { m.Annotations = nil },
		"another annotation": func(m *metav1.ObjectMeta) { m.Annotations["x"] = "y" },
		"no usage":           func(m *metav1.ObjectMeta) { delete(m.Annotations, netpol.UsageAnnotation) },
		"empty destinations": func(m *metav1.ObjectMeta) { m.Annotations[netpol.DestinationsAnnotation] = "" },
		"no generation":      func(m *metav1.ObjectMeta) { delete(m.Annotations, netpol.GenerationAnnotation) },
		"no valid digest":    func(m *metav1.ObjectMeta) { m.Annotations[netpol.PolicyDigestAnnotation] = "x" },
		"empty digest":       func(m *metav1.ObjectMeta) { m.Annotations[netpol.SpecDigestAnnotation] = "" },
		"upper-case digest":  func(m *metav1.ObjectMeta) { m.Annotations[netpol.SpecDigestAnnotation] = "AB" },
		"no owner":           func(m *metav1.ObjectMeta) { m.OwnerReferences = nil },
		"controller":         func(m *metav1.ObjectMeta) { m.OwnerReferences[0].Controller = new(bool) },
		"another kind":       func(m *metav1.ObjectMeta) { m.OwnerReferences[0].Kind = "Secret" },
		"another name":       func(m *metav1.ObjectMeta) { m.OwnerReferences[0].Name = "other" },
		"two owners": func(m *metav1.ObjectMeta) {
			m.OwnerReferences = append(m.OwnerReferences, metav1.OwnerReference{Name: "x"})
		},
		"finalizer":     func(m *metav1.ObjectMeta) { m.Finalizers = []string{"x/y"} },
		"being deleted": func(m *metav1.ObjectMeta) { m.DeletionTimestamp = &now },
	} {
		t.Run(name, func(t *testing.T) {
			metadata := testobjects.Metadata(testobjects.NetworkPolicy(t, testobjects.Valid))
			metadata.UID, metadata.ResourceVersion = "uid-2", "42"
			change(&metadata.ObjectMeta)
			want := metadata.ObjectMeta.DeepCopy()
			delete(want.Annotations, netpol.PolicyAnnotation)
			n := NetworkPolicyOf(metadata)
			current, _ := n.Current()
			require.Equal(t, want, current.ObjectMeta)
			require.Equal(t, netpol.HasManagedLabel(want), n.IsManaged())
			stored := n.GetObjectMeta()
			require.Equal(t, []string{want.Namespace, want.Name, string(want.UID), want.ResourceVersion},
				[]string{stored.GetNamespace(), stored.GetName(), string(stored.GetUID()), stored.GetResourceVersion()})
		})
	}
}

func TestConfigMapKeepsOnlyThePolicy(t *testing.T) {
	full := testobjects.ConfigMap(testobjects.Valid)
	full.Labels["team"], full.Annotations = "x", map[string]string{"y": "z"}
	full.Data["other"], full.BinaryData = "x", map[string][]byte{"b": nil}
	full.CreationTimestamp = metav1.Unix(1_700_000_000, 0)
	want := testobjects.ConfigMap(testobjects.Valid)
	want.CreationTimestamp = full.CreationTimestamp
	want.Data[policy.Key], _ = policy.Compact(testobjects.Valid)
	reduced := ConfigMapOf(full, func(*corev1.ConfigMap, int, int) bool { return true })
	require.Equal(t, want, reduced.ConfigMap())
	require.Equal(t, netpol.PolicyDigestOf(full), reduced.PolicyDigest())
	require.Equal(t, len(want.Data[policy.Key]), reduced.DocumentSize())
	require.True(t, reduced.HasDocument())
	require.Equal(t, want.CreationTimestamp, reduced.GetObjectMeta().GetCreationTimestamp())

	reduced = ConfigMapOf(full, func(*corev1.ConfigMap, int, int) bool { return false })
	require.Nil(t, reduced.ConfigMap().Data)
	require.False(t, reduced.HasDocument())
	full.Data, full.BinaryData, full.Labels = nil, map[string][]byte{policy.Key: append([]byte{0xff, 0xfe}, make([]byte, 100)...)}, nil
	reduced = ConfigMapOf(full, func(*corev1.ConfigMap, int, int) bool { return true })
	require.Len(t, reduced.ConfigMap().BinaryData[policy.Key], 64)
	require.True(t, reduced.HasDocument(), "no document is stored in data")
	require.Nil(t, reduced.ConfigMap().Labels)
}

// TestBinaryHeadExplainsTheWholeDocument requires of the reduced form the message of the full one.
func TestBinaryHeadExplainsTheWholeDocument(t *testing.T) {
	for _, binary := range []string{"{}", "\xff\xfe{\x00}\x00", "{\"name\": \"caf\xe9\"}", strings.Repeat(" ", 100) + "\xe9", strings.Repeat(" ", 63) + "é\xe9", ""} {
		full := testobjects.ConfigMap("")
		full.Data, full.BinaryData = nil, map[string][]byte{policy.Key: []byte(binary)}
		reduced := ConfigMapOf(full, func(*corev1.ConfigMap, int, int) bool { return true })
		require.Equal(t, netpol.CompileConfigMap(full, netpol.Inputs{}).Problems, netpol.CompileConfigMap(reduced.ConfigMap(), netpol.Inputs{}).Problems, "%q", binary)
	}
}
