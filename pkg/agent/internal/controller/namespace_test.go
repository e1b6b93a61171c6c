package controller

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/agent/internal/cached"
	"egress-agent/pkg/agent/internal/ledger"
	"egress-agent/pkg/agent/internal/plan"
	"egress-agent/pkg/agent/internal/testobjects"
	"egress-agent/pkg/netpol"
)

// TestPoliciesOfANamespaceFitTogether has two policies that fit alone but not together. The second policy is invalid
// until the first policy has fewer ports.
func TestPoliciesOfANamespaceFitTogether(t *testing.T) {
	const manyPorts = `{"allowedDestinations": [{"name": "net", "cidr": "10.0.0.0/8", "ports": [1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31,33,35,37,39,41]}]}`
	other := testobjects.ConfigMap(manyPorts)
	other.Name, other.UID = "other", "uid-2"
	f := newFixture(t, testobjects.ConfigMap(testobjects.Widened), other)
	sync := func(key cache.ObjectName) (reason, message string) {
		require.NoError(t, f.sync(t.Context(), key))
		reason, message = f.nextEvent()
		f.updateCache(t)
		return reason, message
	}
	reason, _ := sync(key)
	require.Equal(t, plan.ReasonApplied, reason)
	reason, message := sync(policyKey(other))
	require.Equal(t, plan.ReasonInvalid, reason)
	require.Equal(t, "Policy validation failed: Too many ports: 10.1.0.0/24 has 23 ports and port ranges, and DNS takes 2; AWS VPC CNI enforces at most 24 for a CIDR: "+
		"merge or remove ports of this or the namespace's other policies, which apply to the same pods (allowedDestinations); until it is corrected, all egress but DNS is denied", message)
	require.Equal(t, netpol.DenyAll(testobjects.Options), getNamed(t, f, "other").Spec)
	require.Empty(t, second(sync(policyKey(other))), "it is reported once")

	f.setCached(t, testobjects.ConfigMap(testobjects.Valid))
	f.configMapHandler().OnUpdate(nil, testobjects.ConfigMap(testobjects.Valid))
	require.Equal(t, []string{"tenant-a/egress", "tenant-a/other"}, f.queued(2), "the policy over the limit is enqueued again")
	reason, _ = sync(key)
	require.Equal(t, plan.ReasonApplied, reason, "22 slots are enough")
	reason, _ = sync(policyKey(other))
	require.Equal(t, plan.ReasonApplied, reason)

	f = newFixture(t, testobjects.ConfigMap(testobjects.Widened), other, getNamed(t, f, "other"))
	reason, _ = sync(key)
	require.Equal(t, plan.ReasonInvalid, reason, "the other policy is in force, though this process has not written it")
	require.NoError(t, f.client.NetworkingV1().NetworkPolicies("tenant-a").Delete(t.Context(), "other", metav1.DeleteOptions{}))
	require.NoError(t, f.caches.configMaps.Delete(other))
	f.networkPolicyHandler().OnDelete(&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant-a", Name: "other"}})
	f.updateCache(t)
	require.Equal(t, []string{"tenant-a/egress", "tenant-a/other"}, f.queued(2))
	reason, _ = sync(key)
	require.Equal(t, plan.ReasonApplied, reason)
}

// TestNamespaceOverLimitMayShrink has NetworkPolicies that an agent without the limit wrote. An edit that opens nothing
// new is applied.
func TestNamespaceOverLimitMayShrink(t *testing.T) {
	ports := func(first, n int) string {
		var list []string
		for i := range n {
			list = append(list, strconv.Itoa(first+2*i))
		}
		return `{"allowedDestinations": [{"name": "net", "cidr": "10.0.0.0/8", "ports": [` + strings.Join(list, ",") + `]}]}`
	}
	other := testobjects.ConfigMap(ports(1000, 20))
	other.Name, other.UID = "other", "uid-2"
	f := newFixture(t, testobjects.ConfigMap(ports(1, 19)), testobjects.NetworkPolicy(t, ports(1, 20)), other, testobjects.NetworkPolicyOf(t, other))
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, plan.ReasonApplied, f.event(t))
	require.Len(t, getNamed(t, f, "egress").Spec.Egress[1].Ports, 19)
	f.updateCache(t)
	f.setCached(t, testobjects.ConfigMap(ports(3, 19)))
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, plan.ReasonInvalid, f.event(t))
}

// TestNamespaceOverLimitIsReported has two NetworkPolicies that an agent without the limit wrote. Each of them stays,
// and its policy gets one Warning.
func TestNamespaceOverLimitIsReported(t *testing.T) {
	const manyPorts = `{"allowedDestinations": [{"name": "net", "cidr": "10.0.0.0/8", "ports": [1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31,33,35,37,39,41]}]}`
	other := testobjects.ConfigMap(manyPorts)
	other.Name, other.UID = "other", "uid-2"
	f := newFixture(t, testobjects.ConfigMap(testobjects.Widened), testobjects.NetworkPolicy(t, testobjects.Widened), other, testobjects.NetworkPolicyOf(t, other))
	for _, key := range []cache.ObjectName{key, policyKey(other)} {
		require.NoError(t, f.sync(t.Context(), key))
		reason, message := f.nextEvent()
		require.Equal(t, plan.ReasonInvalid, reason)
		require.Contains(t, message, "10.1.0.0/24 has 23 ports and port ranges")
		require.Contains(t, message, "; the policies stay in force, and the dataplane enforces a part of them")
		require.NoError(t, f.sync(t.Context(), key))
		require.Empty(t, f.event(t), "it is reported once")
	}
	require.Empty(t, f.writes())
}

func second[A, B any](_ A, b B) B { return b }

// TestCacheOfANamespaceIsBounded requires that the cache holds less than a mebibyte of documents for a namespace. Each
// document is still synced.
func TestCacheOfANamespaceIsBounded(t *testing.T) {
	f := newFixture(t)
	addConfigMap := func(name, document string) *corev1.ConfigMap {
		c := testobjects.ConfigMap(document)
		c.Name, c.UID = name, types.UID(name)
		_, err := f.client.CoreV1().ConfigMaps("tenant-a").Create(t.Context(), c, metav1.CreateOptions{})
		require.NoError(t, err)
		f.setCached(t, c)
		return c
	}
	cachedBytes := func() (bytes int) {
		for _, object := range f.caches.configMaps.List() {
			for key, text := range object.(*cached.ConfigMap).ConfigMap().Data {
				bytes += len(key) + len(text)
			}
		}
		return bytes
	}
	sync := func(name string) (reason, message string) {
		require.NoError(t, f.sync(t.Context(), cache.NewObjectName("tenant-a", name)))
		return f.nextEvent()
	}
	for i := range 20 {
		addConfigMap(fmt.Sprint("white", i), testobjects.Valid+strings.Repeat(" ", 900<<10))
	}
	require.Less(t, cachedBytes(), 20*(len(testobjects.Valid)+100))
	reason, _ := sync("white7")
	require.Equal(t, plan.ReasonApplied, reason)
	for i := range 12 {
		addConfigMap(fmt.Sprint("large", i), `["`+strings.Repeat("x", 1<<20)+`"]`)
		addConfigMap(fmt.Sprint("broken", i), `[`+strings.Repeat(" ", 1<<20))
		addConfigMap(fmt.Sprint("full", i), `["`+strings.Repeat("x", 200<<10)+`"]`)
	}
	require.Less(t, cachedBytes(), ledger.MaxBytes)
	_, message := sync("large3")
	require.Contains(t, message, "Policy too large: 1048580 bytes without white space; at most 262144 are allowed")
	_, message = sync("full9")
	require.Contains(t, message, "Too many policies: the policies of the namespace have")
	for _, object := range f.caches.configMaps.List() {
		if name := object.(*cached.ConfigMap).ConfigMap().Name; !strings.HasPrefix(name, "full1") && !strings.HasPrefix(name, "broken") {
			f.configMapHandler().OnDelete(object)
			require.NoError(t, f.caches.configMaps.Delete(object))
		}
	}
	reason, message = sync("broken3")
	require.Equal(t, plan.ReasonInvalid, reason)
	require.Contains(t, message, "Invalid JSON: unexpected end of JSON input at line 1, column 1048578", "the sync reads the document from the API server")
	reason, message = sync("full1")
	require.Equal(t, plan.ReasonInvalid, reason)
	require.Contains(t, message, "Invalid policy: must be an object, not a list")
	for _, object := range f.caches.configMaps.List() {
		f.configMapHandler().OnDelete(object)
	}
	for _, name := range []string{"white7", "broken3", "full1", "full9", "large3"} {
		f.ledger.DropUsage("tenant-a", name)
		f.ledger.SetOverLimit("tenant-a", name, false)
	}
	require.Zero(t, f.ledger.Size())
}
