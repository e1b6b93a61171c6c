package controller

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/agent/internal/governance"
	"egress-agent/pkg/agent/internal/plan"
	"egress-agent/pkg/agent/internal/testobjects"
	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/internal/policytest"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/platform"
	"egress-agent/pkg/policy"
)

const (
	baseline = `{"namespaces": {"matchLabels": {"tier": "tenant"}}, "allowedDestinations": [{"name": "ten", "cidr": "10.9.0.0/16", "ports": [443]}],
		"guardrails": {"denied": [{"name": "one", "cidr": "10.1.0.0/25", "reason": "secret"}]}}`
	uncorrected = `{"namespaces": {"matchLabels": {"tier": "tenant"}}, "allowedDestinations": [{}]}`
)

var baseKey = cache.NewObjectName("tenant-a", "egress-platform-baseline")

func platformConfigMap(document string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "egress-system", Name: "baseline", UID: "platform-1", Labels: map[string]string{policy.Label: platform.LabelValue}},
		Data:       map[string]string{platform.Key: document},
	}
}

func namespaceWith(name, tier string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"tier": tier}}}
}

// drain syncs every key on the queue, with the caches that an informer would have.
func (f *fixture) drain(t *testing.T) {
	for f.queue.Len() > 0 {
		key, _ := f.queue.Get()
		require.NoError(t, f.sync(t.Context(), key))
		f.queue.Done(key)
	}
	f.updateCache(t)
	for f.queue.Len() > 0 { // a second write may follow
		key, _ := f.queue.Get()
		require.NoError(t, f.sync(t.Context(), key))
		f.queue.Done(key)
	}
	f.updateCache(t)
}

func (f *fixture) find(t *testing.T, key cache.ObjectName) *networkingv1.NetworkPolicy {
	networkPolicy, err := f.client.NetworkingV1().NetworkPolicies(key.Namespace).Get(t.Context(), key.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	require.NoError(t, err)
	return networkPolicy
}

func allows(networkPolicy *networkingv1.NetworkPolicy, address string, port uint16) bool {
	return networkPolicy != nil && policytest.Allows(policytest.BlocksOf(networkPolicy.Spec), netip.MustParseAddr(address), policy.TCP, port)
}

func TestPlatformGoverns(t *testing.T) {
	f := newFixture(t, namespaceWith("tenant-a", "tenant"), namespaceWith("tenant-b", "other"), namespaceWith("kube-system", "tenant"),
		testobjects.ConfigMap(testobjects.Valid), testobjects.NetworkPolicy(t, testobjects.Valid))
	require.True(t, allows(f.find(t, key), "10.1.0.1", 5432))
	f.setCached(t, platformConfigMap(baseline))
	reason, message := f.nextEvent()
	require.Equal(t, "Applied", reason)
	require.Equal(t, "The document is in force and governs 1 namespaces", message)
	f.drain(t)
	base := f.find(t, baseKey)
	require.True(t, allows(base, "10.9.1.1", 443))
	require.Equal(t, netpol.Base, base.Labels[netpol.PlatformLabel])
	require.False(t, allows(f.find(t, key), "10.1.0.1", 5432), "the guardrail closes it")
	require.True(t, allows(f.find(t, key), "10.1.0.128", 5432))
	reason, message = f.nextEvent()
	require.Equal(t, plan.ReasonGuarded, reason)
	require.Contains(t, message, "Denied by guardrail one of platform document baseline (secret): db opens 10.1.0.0/25 on TCP 5432")
	require.Equal(t, 1.0, f.metric(t, "egress_agent_policies", "guarded"))
	list, err := f.client.NetworkingV1().NetworkPolicies("").List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	require.Len(t, list.Items, 2, "neither kube-system nor a namespace with another label")

	t.Run("nothing changes, nothing is written", func(t *testing.T) {
		f.client.ClearActions()
		f.queue.Add(baseKey)
		f.queue.Add(key)
		for f.queue.Len() > 0 {
			key, _ := f.queue.Get()
			require.NoError(t, f.sync(t.Context(), key))
			f.queue.Done(key)
		}
		require.Empty(t, f.writes())
		require.Empty(t, f.event(t))
	})
	t.Run("the base comes back", func(t *testing.T) {
		require.NoError(t, f.client.NetworkingV1().NetworkPolicies("tenant-a").Delete(t.Context(), baseKey.Name, metav1.DeleteOptions{}))
		f.updateCache(t)
		f.queue.Add(baseKey)
		f.drain(t)
		require.NotNil(t, f.find(t, baseKey))
		require.Equal(t, plan.ReasonRestored, f.event(t))
	})
	t.Run("without its policy, a namespace still has the base", func(t *testing.T) {
		require.NoError(t, f.client.CoreV1().ConfigMaps("tenant-a").Delete(t.Context(), "egress", metav1.DeleteOptions{}))
		require.NoError(t, f.caches.configMaps.Delete(f.caches.reduceConfigMap(testobjects.ConfigMap(testobjects.Valid))))
		f.queue.Add(key)
		f.drain(t)
		require.Nil(t, f.find(t, key))
		require.NotNil(t, f.find(t, baseKey))
		_, err := f.client.CoreV1().ConfigMaps("tenant-a").Create(t.Context(), testobjects.ConfigMap(testobjects.Valid), metav1.CreateOptions{})
		require.NoError(t, err)
		f.setCached(t, testobjects.ConfigMap(testobjects.Valid))
		f.queue.Add(key)
		f.drain(t)
		require.False(t, allows(f.find(t, key), "10.1.0.1", 5432))
		require.Equal(t, plan.ReasonGuarded, f.event(t))
	})
	t.Run("an invalid version leaves the last valid one in force", func(t *testing.T) {
		f.setCached(t, platformConfigMap(uncorrected))
		require.Zero(t, f.queue.Len())
		reason, message := f.nextEvent()
		require.Equal(t, plan.ReasonInvalid, reason)
		require.Contains(t, message, "Platform document validation failed: Missing field: name (allowedDestinations[0].name)")
		require.Contains(t, message, "; until it is corrected, the last valid version stays in force")
		require.Equal(t, 1.0, f.metric(t, "egress_agent_platform_documents", "invalid"))
		f.setCached(t, platformConfigMap(uncorrected))
		require.Empty(t, f.event(t), "the same problem is told once")
	})
	t.Run("a namespace leaves and returns", func(t *testing.T) {
		f.setCached(t, namespaceWith("tenant-a", "none"))
		f.drain(t)
		require.Nil(t, f.find(t, baseKey))
		require.True(t, allows(f.find(t, key), "10.1.0.1", 5432))
		require.NotContains(t, f.find(t, key).Annotations, netpol.GuardedAnnotation)
		reason, message := f.nextEvent()
		require.Equal(t, plan.ReasonApplied, reason)
		require.Contains(t, message, "The guardrails of the platform changed; NetworkPolicy egress is in force")
		f.setCached(t, namespaceWith("tenant-a", "tenant"))
		f.drain(t)
		require.NotNil(t, f.find(t, baseKey))
		require.False(t, allows(f.find(t, key), "10.1.0.1", 5432))
		for reason, _ := f.nextEvent(); reason != ""; reason, _ = f.nextEvent() {
		}
	})
	t.Run("the document goes", func(t *testing.T) {
		f.platformHandler().OnDelete(reducePlatform(platformConfigMap(baseline)))
		f.drain(t)
		require.Nil(t, f.find(t, baseKey))
		require.True(t, allows(f.find(t, key), "10.1.0.1", 5432))
	})
}

// The cache of platform ConfigMaps may be behind. The agent deletes a base only if the API server has no such ConfigMap.
func TestPlatformBaseStaysUntilConfirmed(t *testing.T) {
	f := newFixture(t, namespaceWith("tenant-a", "tenant"), platformConfigMap(baseline))
	f.drain(t)
	require.NotNil(t, f.find(t, baseKey))
	f.platformHandler().OnDelete(cache.DeletedFinalStateUnknown{Obj: reducePlatform(platformConfigMap(baseline))})
	require.ErrorContains(t, f.sync(t.Context(), baseKey), "the cache lacks ConfigMap egress-system/baseline")
	require.NotNil(t, f.find(t, baseKey))
	require.NoError(t, f.client.CoreV1().ConfigMaps("egress-system").Delete(t.Context(), "baseline", metav1.DeleteOptions{}))
	require.NoError(t, f.sync(t.Context(), baseKey))
	require.Nil(t, f.find(t, baseKey))
}

// A version that was valid before the agent started stays in force, and so does what an unknown version has made.
func TestPlatformRestores(t *testing.T) {
	first := newFixture(t, namespaceWith("tenant-a", "tenant"), platformConfigMap(baseline))
	require.NoError(t, first.snapshots.save(t.Context()))
	first.drain(t)
	base, saved := first.find(t, baseKey), must(first.client.CoreV1().ConfigMaps("egress-system").Get(t.Context(), platform.SnapshotName, metav1.GetOptions{}))

	second := newFixture(t, namespaceWith("tenant-a", "tenant"), platformConfigMap(uncorrected), base, saved)
	second.RestorePlatform(t.Context())
	second.queue.Add(baseKey)
	second.drain(t)
	require.Equal(t, base.Spec, second.find(t, baseKey).Spec)
	require.NotNil(t, second.governance.Guardrails("tenant-a", testobjects.Table(t)))

	third := newFixture(t, namespaceWith("tenant-a", "tenant"), platformConfigMap(uncorrected), base)
	third.RestorePlatform(t.Context())
	third.queue.Add(baseKey)
	third.drain(t)
	require.Equal(t, base.Spec, third.find(t, baseKey).Spec, "its last valid version is unknown")
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func TestPlatformSnapshot(t *testing.T) {
	f := newFixture(t, namespaceWith("tenant-a", "tenant"), namespaceWith("tenant-b", "other"))
	require.NoError(t, f.snapshots.save(t.Context()))
	require.Empty(t, f.writes(), "without a document, no ConfigMap")
	f.setCached(t, platformConfigMap(baseline))
	require.NoError(t, f.snapshots.save(t.Context()))
	require.Equal(t, []string{"create configmaps"}, f.writes())
	stored := must(f.client.CoreV1().ConfigMaps("egress-system").Get(t.Context(), platform.SnapshotName, metav1.GetOptions{}))
	snapshot := must(platform.DecodeSnapshot(stored.BinaryData[platform.SnapshotKey]))
	require.Equal(t, map[string][]string{"tenant-a": {"baseline"}, "tenant-b": {}}, snapshot.Namespaces)
	require.JSONEq(t, baseline, string(snapshot.Documents["baseline"]))
	require.NotZero(t, snapshot.Changed)
	f.client.ClearActions()
	require.NoError(t, f.snapshots.save(t.Context()))
	require.Empty(t, f.writes(), "nothing has changed")
	f.setCached(t, namespaceWith("tenant-b", "tenant"))
	require.NoError(t, f.snapshots.save(t.Context()))
	require.Equal(t, []string{"update configmaps"}, f.writes())
	f.platformHandler().OnDelete(reducePlatform(platformConfigMap(baseline)))
	require.NoError(t, f.snapshots.save(t.Context()))
	stored = must(f.client.CoreV1().ConfigMaps("egress-system").Get(t.Context(), platform.SnapshotName, metav1.GetOptions{}))
	require.Empty(t, must(platform.DecodeSnapshot(stored.BinaryData[platform.SnapshotKey])).Documents)
}

// A tenant's ConfigMap may have a reserved name. It opens nothing, and never changes what the platform made.
func TestPlatformNameIsReserved(t *testing.T) {
	wide := testobjects.With(testobjects.ConfigMap(`{"defaultAction": "allow", "allowedDestinations": []}`), func(c *corev1.ConfigMap) { c.Name = baseKey.Name })
	f := newFixture(t, namespaceWith("tenant-a", "tenant"), wide)
	f.queue.Add(baseKey)
	f.drain(t)
	require.Nil(t, f.find(t, baseKey))
	reason, message := f.nextEvent()
	require.Equal(t, plan.ReasonNameConflict, reason)
	require.Contains(t, message, "Reserved name: egress-platform-baseline")
	f.setCached(t, platformConfigMap(baseline))
	f.drain(t)
	require.False(t, allows(f.find(t, baseKey), "8.8.8.8", 443))
	require.True(t, allows(f.find(t, baseKey), "10.9.0.1", 443))
}

// A NetworkPolicy that a tenant wrote under the name of a base is replaced, since the name is reserved. One in a namespace
// that no document governs stays.
func TestPlatformTakesOnlyItsOwn(t *testing.T) {
	copied := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant-b", Name: baseKey.Name, UID: "x"}}
	f := newFixture(t, namespaceWith("tenant-a", "tenant"), platformConfigMap(baseline), copied)
	f.queue.Add(cache.NewObjectName("tenant-b", baseKey.Name))
	f.drain(t)
	require.NotNil(t, f.find(t, cache.NewObjectName("tenant-b", baseKey.Name)))
}

// A change of the ranges may change what a guardrail closes in policies that do not name the service.
func TestPlatformFollowsRanges(t *testing.T) {
	const document = `{"namespaces": {}, "guardrails": {"denied": [{"name": "s3", "awsService": "s3", "regions": ["us-east-1"]}]}}`
	wide := `{"allowedDestinations": [{"name": "all", "cidr": "0.0.0.0/0", "ports": [443]}]}`
	var objects []runtime.Object
	objects = append(objects, namespaceWith("tenant-a", "x"), platformConfigMap(document), testobjects.ConfigMap(wide))
	f := newFixture(t, objects...)
	f.queue.Add(key)
	f.drain(t)
	before := f.find(t, key)
	next := must(awsranges.ReadFile(testobjects.Ranges + "ip-ranges-next.json"))
	require.Contains(t, f.keysAffected(next, next.Diff(testobjects.Table(t))), key)
	f.table.Store(next)
	f.queue.Add(key)
	f.drain(t)
	require.NotEqual(t, before.Spec, f.find(t, key).Spec)
	require.False(t, f.governance.Guardrails("tenant-a", next).Violates(f.find(t, key).Spec, netpol.IPv4))
}

func inheritable(document string) *corev1.ConfigMap {
	return testobjects.With(testobjects.ConfigMap(document), func(c *corev1.ConfigMap) {
		c.Namespace, c.Annotations = "division", map[string]string{policy.InheritAnnotation: "true"}
	})
}

func childOf(name, parent string) *corev1.Namespace {
	return testobjects.With(namespaceWith(name, "tenant"), func(n *corev1.Namespace) { n.Labels["egress-controller/parent"] = parent })
}

func TestInheritance(t *testing.T) {
	f := newFixtureWith(t, Options{
		Plan: plan.Options{Compile: testobjects.Options, ChunkPeers: 200}, Workers: 1, Namespace: "egress-system", ParentLabels: []string{"egress-controller/parent"},
	}, namespaceWith("division", "none"), childOf("tenant-a", "division"), childOf("tenant-b", "tenant-a"), childOf("kube-system", "division"),
		platformConfigMap(baseline), inheritable(testobjects.Valid))
	for reason, _ := f.nextEvent(); reason != ""; reason, _ = f.nextEvent() {
	}
	inherited := func(namespace string) *networkingv1.NetworkPolicy {
		return f.find(t, cache.NewObjectName(namespace, "egress-inherited-division.egress"))
	}
	change := func(configMap *corev1.ConfigMap) {
		_, err := f.client.CoreV1().ConfigMaps(configMap.Namespace).Update(t.Context(), configMap, metav1.UpdateOptions{})
		require.NoError(t, err)
		reduced := f.caches.reduceConfigMap(configMap.DeepCopy())
		require.NoError(t, f.caches.configMaps.Add(reduced))
		f.configMapHandler().OnUpdate(nil, reduced)
		f.drain(t)
	}
	change(inheritable(testobjects.Valid))
	for _, namespace := range []string{"tenant-a", "tenant-b"} {
		networkPolicy := inherited(namespace)
		require.True(t, allows(networkPolicy, "10.1.0.128", 5432), namespace)
		require.False(t, allows(networkPolicy, "10.1.0.1", 5432), "the child's guardrail closes it")
		require.Equal(t, netpol.Inherited, networkPolicy.Labels[netpol.PlatformLabel])
		require.Equal(t, "division/egress", networkPolicy.Annotations[netpol.SourceAnnotation])
		require.Empty(t, networkPolicy.OwnerReferences)
	}
	require.Nil(t, inherited("kube-system"))
	require.NotNil(t, f.find(t, cache.NewObjectName("division", "egress")))
	reason, _ := f.nextEvent()
	require.Equal(t, plan.ReasonApplied, reason)
	reason, message := f.nextEvent()
	require.Equal(t, plan.ReasonGuarded, reason)
	require.Contains(t, message, "In namespace tenant-")

	t.Run("an invalid edit leaves the last valid version in force", func(t *testing.T) {
		change(inheritable(testobjects.Invalid))
		require.True(t, allows(inherited("tenant-b"), "10.1.0.128", 5432))
		change(inheritable(testobjects.Edited))
		require.NotContains(t, inherited("tenant-b").Annotations[netpol.DestinationsAnnotation], "s3")
	})
	t.Run("a cycle inherits nothing", func(t *testing.T) {
		f.setCached(t, childOf("division", "tenant-b"))
		f.drain(t)
		require.Nil(t, inherited("tenant-a"))
		require.Nil(t, inherited("tenant-b"))
		require.Equal(t, []string{"division", "tenant-a", "tenant-b"}, f.governance.Cycles())
		f.setCached(t, namespaceWith("division", "none"))
		f.drain(t)
		require.NotNil(t, inherited("tenant-a"))
		require.NotNil(t, inherited("tenant-b"))
		require.Empty(t, f.governance.Cycles())
	})
	t.Run("a namespace leaves the tree, with those below it", func(t *testing.T) {
		f.setCached(t, namespaceWith("tenant-a", "tenant"))
		f.drain(t)
		require.Nil(t, inherited("tenant-a"))
		require.Nil(t, inherited("tenant-b"))
		f.setCached(t, childOf("tenant-a", "division"))
		f.drain(t)
		require.NotNil(t, inherited("tenant-b"))
	})
	t.Run("at most 20 policies of a namespace", func(t *testing.T) {
		for i := range 21 {
			configMap := testobjects.With(inheritable(testobjects.Edited), func(c *corev1.ConfigMap) { c.Name, c.UID = fmt.Sprintf("a%02d", i), types.UID(fmt.Sprint(i)) })
			_, err := f.client.CoreV1().ConfigMaps("division").Create(t.Context(), configMap, metav1.CreateOptions{})
			require.NoError(t, err)
			change(configMap)
		}
		list, err := f.client.NetworkingV1().NetworkPolicies("tenant-b").List(t.Context(), metav1.ListOptions{LabelSelector: netpol.PlatformLabel + "=" + netpol.Inherited})
		require.NoError(t, err)
		require.Len(t, list.Items, governance.MaxInherited)
		require.Nil(t, inherited("tenant-b"), "egress comes after a00 to a19")
		require.Nil(t, f.find(t, cache.NewObjectName("tenant-b", "egress-inherited-division.a20")))
		for reason, message := f.nextEvent(); reason != "NotInherited"; reason, message = f.nextEvent() {
			require.NotEmpty(t, reason, message)
		}
		for i := range 21 {
			name := fmt.Sprintf("a%02d", i)
			require.NoError(t, f.client.CoreV1().ConfigMaps("division").Delete(t.Context(), name, metav1.DeleteOptions{}))
			reduced := f.caches.reduceConfigMap(testobjects.With(inheritable(testobjects.Edited), func(c *corev1.ConfigMap) { c.Name = name }))
			require.NoError(t, f.caches.configMaps.Delete(reduced))
			f.configMapHandler().OnDelete(reduced)
		}
		f.drain(t)
		require.NotNil(t, inherited("tenant-b"))
		for reason, _ := f.nextEvent(); reason != ""; reason, _ = f.nextEvent() {
		}
	})
	t.Run("without the annotation, nothing inherits it", func(t *testing.T) {
		change(testobjects.With(inheritable(testobjects.Edited), func(c *corev1.ConfigMap) { c.Annotations = nil }))
		require.Nil(t, inherited("tenant-a"))
		require.Nil(t, inherited("tenant-b"))
		require.NotNil(t, f.find(t, cache.NewObjectName("division", "egress")))
	})
}
