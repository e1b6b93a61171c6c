package mirror

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/policy"
)

const document = `{"allowedDestinations": []}`

func hubPolicy(name, document string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "tenant", Name: name, Labels: map[string]string{policy.Label: policy.LabelValue}},
		Data:       map[string]string{policy.Key: document},
	}
}

func mayCacheAll(int) bool { return true }

// TestLocalIsEqualOnlyToAnExactCopy edits a copy in each way that matters, and in some that do not.
func TestLocalIsEqualOnlyToAnExactCopy(t *testing.T) {
	source := newSource(hubPolicy("egress", document), mayCacheAll)
	for name, test := range map[string]struct {
		edit func(*corev1.ConfigMap)
		want bool
	}{
		"no edit":             {func(*corev1.ConfigMap) {}, true},
		"label of others":     {func(c *corev1.ConfigMap) { c.Labels["team"] = "x" }, true},
		"document":            {func(c *corev1.ConfigMap) { c.Data[policy.Key] += " " }, false},
		"more data":           {func(c *corev1.ConfigMap) { c.Data["x"] = "y" }, false},
		"binary data":         {func(c *corev1.ConfigMap) { c.BinaryData = map[string][]byte{"x": nil} }, false},
		"no document":         {func(c *corev1.ConfigMap) { c.Data = nil }, false},
		"inherit":             {func(c *corev1.ConfigMap) { c.Annotations = map[string]string{policy.InheritAnnotation: "true"} }, false},
		"inherit, not true":   {func(c *corev1.ConfigMap) { c.Annotations = map[string]string{policy.InheritAnnotation: "x"} }, false},
		"annotation of other": {func(c *corev1.ConfigMap) { c.Annotations = map[string]string{"x": "y"} }, true},
	} {
		t.Run(name, func(t *testing.T) {
			copied := newCopy(source.key, "hub", *source.content)
			test.edit(copied)
			require.Equal(t, test.want, newLocal(copied).digest == source.digest)
			require.Equal(t, source.digest, newLocal(source.content.applyTo(copied, "hub")).digest, "it is repaired")
		})
	}
}

func TestSourcesBoundTheirMemory(t *testing.T) {
	s := &sources{}
	s.replace("hub", nil)
	large := `{"x": "` + strings.Repeat("x", 200<<10) + `"}`
	most := maxCachedBytes / len(large)
	for i := range most + 10 {
		s.put(hubPolicy(string(rune('a'+i%26))+strings.Repeat("x", i/26), large))
	}
	require.Equal(t, most*len(large), s.cachedBytes)
	for key := range s.byKey {
		s.remove(key)
	}
	require.Zero(t, s.cachedBytes)

	over := newSource(hubPolicy("egress", `{"x": "`+strings.Repeat("x", policy.MaxDocumentBytes)+`"}`), mayCacheAll)
	require.Equal(t, "the hub's policy.json has 262152 bytes without white space; at most 262144 are allowed", over.problem)
	require.Nil(t, over.content)
	require.Equal(t, "the hub's ConfigMap has no policy.json", newSource(&corev1.ConfigMap{}, mayCacheAll).problem)
}

func TestReplaceReturnsWhatChanged(t *testing.T) {
	s := &sources{}
	list := func(names ...string) (sources []*source) {
		for _, name := range names {
			name, version, _ := strings.Cut(name, "=")
			sources = append(sources, newSource(hubPolicy(name, document+version), mayCacheAll))
		}
		return sources
	}
	key := func(names ...string) (keys []cache.ObjectName) {
		for _, name := range names {
			keys = append(keys, cache.NewObjectName("tenant", name))
		}
		return keys
	}
	require.ElementsMatch(t, key("a", "b"), s.replace("hub", list("a", "b")))
	require.Empty(t, s.replace("hub", list("a", "b")))
	require.ElementsMatch(t, key("a", "b", "c"), s.replace("hub", list("a= ", "c")))
	require.ElementsMatch(t, key("a", "c"), s.replace("another hub", list("a= ", "c")))
	require.Equal(t, 2, s.size())
	require.ElementsMatch(t, key("a", "c"), s.keysIn("tenant"))
	require.Equal(t, 2*len(document)+1, s.cachedBytes)
}
