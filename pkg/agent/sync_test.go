package agent

import (
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

const (
	valid   = `{"allowedDestinations": [{"name": "s3", "awsService": "s3", "regions": ["us-east-1"], "ports": [443]}, {"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]}]}`
	edited  = `{"allowedDestinations": [{"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]}]}`
	invalid = `{"allowedDestinations": [{}]}`
)

var (
	options = netpol.Options{Family: netpol.IPv4, AllowDNS: true, MaxPortSlots: netpol.DefaultPortSlots}
	key     = cache.NewObjectName("tenant-a", "egress")
)

func testTable(t *testing.T) *awsranges.Table {
	table, err := awsranges.ReadFile("../../testdata/ranges/ip-ranges.json")
	require.NoError(t, err)
	return table
}

func configMap(document string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "tenant-a", Name: "egress", UID: "uid-1", Labels: map[string]string{policy.Label: policy.LabelValue}},
		Data:       map[string]string{policy.Key: document},
	}
}

// writtenFor is the NetworkPolicy that the agent made of a document.
func writtenFor(t *testing.T, document string) *networkingv1.NetworkPolicy {
	return madeFrom(t, configMap(document))
}

func madeFrom(t *testing.T, configMap *corev1.ConfigMap) *networkingv1.NetworkPolicy {
	return netpol.Assess(configMap, nil, netpol.Inputs{Table: testTable(t), Options: options}).Desired[0]
}

func with(policy *networkingv1.NetworkPolicy, change func(*networkingv1.NetworkPolicy)) *networkingv1.NetworkPolicy {
	change(policy)
	return policy
}

// fixture is an agent whose caches hold exactly the given objects, as does its API server.
type fixture struct {
	*Agent
	client *fake.Clientset
	events *record.FakeRecorder
}

func newFixture(t *testing.T, objects ...runtime.Object) *fixture {
	client := fake.NewClientset(objects...)
	a := New(client, client, Options{
		Compile: options, Source: Source{Feed: &awsranges.Feed{Now: time.Now}, Interval: time.Minute}, Namespace: "egress-system",
		Workers: 1, ChunkPeers: 200, Metrics: prometheus.NewRegistry(),
	}, slog.New(slog.DiscardHandler))
	a.table.Store(testTable(t))
	a.isLeader.Store(true)
	events := record.NewFakeRecorder(10)
	a.events = events
	f := &fixture{a, client, events}
	for _, object := range objects {
		f.see(t, object)
	}
	return f
}

// see puts an object in the agent's cache, as its informer would.
func (f *fixture) see(t *testing.T, object runtime.Object) {
	switch object := object.(type) {
	case *corev1.ConfigMap:
		if object.Labels[policy.Label] == policy.LabelValue {
			require.NoError(t, f.configMaps.Add(f.slim(object.DeepCopy())))
		}
	case *networkingv1.NetworkPolicy:
		require.NoError(t, f.networkPolicies.Add(f.Agent.observe(object.DeepCopy())))
	}
}

// observe brings the cache of NetworkPolicies up to date with the API server.
func (f *fixture) observe(t *testing.T) {
	list, err := f.client.NetworkingV1().NetworkPolicies("").List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	require.NoError(t, f.networkPolicies.Replace(nil, ""))
	for i := range list.Items {
		f.see(t, &list.Items[i])
	}
	f.client.ClearActions()
}

func (f *fixture) verbs() []string {
	var verbs []string
	for _, action := range f.client.Actions() {
		verbs = append(verbs, action.GetVerb()+" "+action.GetResource().Resource)
	}
	return verbs
}

// writes are the verbs but get.
func (f *fixture) writes() []string {
	return slices.DeleteFunc(f.verbs(), func(verb string) bool { return strings.HasPrefix(verb, "get ") })
}

// event is the reason of the one Event recorded since, or empty.
func (f *fixture) event(t *testing.T) string {
	require.LessOrEqual(t, len(f.events.Events), 1)
	reason, _ := f.nextEvent()
	return reason
}

// nextEvent is the oldest Event not looked at yet; empty for none.
func (f *fixture) nextEvent() (reason, message string) {
	select {
	case event := <-f.events.Events:
		_, event, _ = strings.Cut(event, " ") // its type
		reason, message, _ = strings.Cut(event, " ")
	default:
	}
	return reason, message
}

func TestSync(t *testing.T) {
	foreign := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "tenant-a", Name: "egress"},
		Spec:       networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}},
	}
	now := metav1.Now()
	for _, test := range []struct {
		name    string
		objects []runtime.Object
		verbs   []string
		event   string
	}{
		{"new", []runtime.Object{configMap(valid)}, []string{"create networkpolicies"}, ReasonApplied},
		{"the same", []runtime.Object{configMap(valid), writtenFor(t, valid)}, nil, ""},
		{"edited", []runtime.Object{configMap(edited), writtenFor(t, valid)}, []string{"update networkpolicies"}, ReasonApplied},
		{"invalid from the start", []runtime.Object{configMap(invalid)}, []string{"create networkpolicies"}, ReasonInvalid},
		{"still invalid", []runtime.Object{configMap(invalid), writtenFor(t, invalid)}, nil, ReasonInvalid},
		{"invalid after a good one", []runtime.Object{configMap(invalid), writtenFor(t, valid)}, []string{"get networkpolicies"}, ReasonInvalid},
		{"without the key", []runtime.Object{with2(configMap(valid), func(c *corev1.ConfigMap) { c.Data = nil })}, []string{"create networkpolicies"}, ReasonInvalid},
		{"corrected", []runtime.Object{configMap(valid), writtenFor(t, invalid)}, []string{"update networkpolicies"}, ReasonApplied},
		{"spec edited by others", []runtime.Object{configMap(valid), with(writtenFor(t, valid), func(p *networkingv1.NetworkPolicy) { p.Spec.Egress = p.Spec.Egress[:1] })},
			[]string{"update networkpolicies"}, ReasonRestored},
		{"deny-all edited by others", []runtime.Object{configMap(invalid), with(writtenFor(t, invalid), func(p *networkingv1.NetworkPolicy) { p.Spec.Egress = nil })},
			[]string{"update networkpolicies"}, ReasonInvalid},
		{"label taken off by others", []runtime.Object{configMap(valid), with(writtenFor(t, valid), func(p *networkingv1.NetworkPolicy) { p.Labels = nil })},
			[]string{"update networkpolicies"}, ReasonRestored},
		{"annotations taken off by others", []runtime.Object{configMap(valid), with(writtenFor(t, valid), func(p *networkingv1.NetworkPolicy) { p.Annotations = nil })},
			[]string{"update networkpolicies"}, ReasonRestored},
		{"ConfigMap made anew", []runtime.Object{configMap(valid), with(writtenFor(t, valid), func(p *networkingv1.NetworkPolicy) { p.OwnerReferences[0].UID = "uid-0" })},
			[]string{"update networkpolicies"}, ReasonApplied},
		{"somebody else's", []runtime.Object{configMap(valid), foreign}, nil, ReasonNameConflict},
		{"somebody else's, and no policy", []runtime.Object{foreign}, nil, ""},
		{"no policy any more", []runtime.Object{writtenFor(t, valid)}, []string{"get configmaps", "delete networkpolicies"}, ""},
		{"label gone", []runtime.Object{with2(configMap(valid), func(c *corev1.ConfigMap) { c.Labels = nil }), writtenFor(t, valid)},
			[]string{"get configmaps", "delete networkpolicies"}, ""},
		{"on its way out", []runtime.Object{with(writtenFor(t, valid), func(p *networkingv1.NetworkPolicy) {
			p.DeletionTimestamp, p.Finalizers = &now, []string{"networking.k8s.aws/resources"}
		})}, nil, ""},
		{"comes back when it is gone", []runtime.Object{configMap(valid), with(writtenFor(t, edited), func(p *networkingv1.NetworkPolicy) {
			p.DeletionTimestamp, p.Finalizers = &now, []string{"networking.k8s.aws/resources"}
		})}, nil, ""},
		{"nothing at all", nil, nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, test.objects...)
			require.NoError(t, f.sync(t.Context(), key))
			require.Equal(t, test.verbs, f.verbs())
			require.Equal(t, test.event, f.event(t))
			if current, err := f.client.NetworkingV1().NetworkPolicies("tenant-a").Get(t.Context(), "egress", metav1.GetOptions{}); err == nil && len(test.verbs) == 1 && test.verbs[0] != "get networkpolicies" {
				want := writtenFor(t, test.objects[0].(*corev1.ConfigMap).Data[policy.Key])
				require.Equal(t, want.Spec, current.Spec)
				require.Equal(t, want.OwnerReferences, current.OwnerReferences)
				require.Equal(t, want.Annotations, current.Annotations)
				require.Equal(t, want.Labels, current.Labels)
			}
			f.observe(t)
			require.NoError(t, f.sync(t.Context(), key))
			require.Empty(t, f.writes(), "a second sync writes nothing")
			require.Empty(t, f.event(t), "and reports nothing new")
		})
	}
}

// TestSyncFollowsLastValidPolicy: while an edit is invalid, the version before it follows the ranges and undoes edits by hand.
func TestSyncFollowsLastValidPolicy(t *testing.T) {
	f := newFixture(t, configMap(valid))
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, ReasonApplied, f.event(t))
	f.observe(t)
	digest := getPolicy(t, f).Annotations[netpol.PolicyDigestAnnotation]
	f.see(t, configMap(invalid))
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, ReasonInvalid, f.event(t))
	require.Empty(t, f.writes())

	next, err := awsranges.ReadFile("../../testdata/ranges/ip-ranges-next.json")
	require.NoError(t, err)
	require.Contains(t, f.keysNaming(next.Diff(testTable(t))), key, "a change of the ranges concerns the last valid policy")
	f.table.Store(next)
	require.NoError(t, f.sync(t.Context(), key))
	reason, message := f.nextEvent()
	require.Equal(t, ReasonRangesChanged, reason)
	require.Contains(t, message, "CIDRs added: 1, removed: 1")
	want := netpol.CompileConfigMap(configMap(valid), netpol.Inputs{Table: next, Options: options}).Spec()
	require.Equal(t, want, getPolicy(t, f).Spec)
	require.Equal(t, digest, getPolicy(t, f).Annotations[netpol.PolicyDigestAnnotation])
	f.observe(t)
	require.NoError(t, f.sync(t.Context(), key))
	require.Empty(t, f.writes())
	require.Empty(t, f.event(t))

	edited := getPolicy(t, f)
	edited.Spec.Egress = append(edited.Spec.Egress, networkingv1.NetworkPolicyEgressRule{})
	_, err = f.client.NetworkingV1().NetworkPolicies("tenant-a").Update(t.Context(), edited, metav1.UpdateOptions{})
	require.NoError(t, err)
	f.observe(t)
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, ReasonRestored, f.event(t))
	require.Equal(t, want, getPolicy(t, f).Spec)

	f.observe(t)
	f.see(t, configMap(valid))
	require.NoError(t, f.sync(t.Context(), key))
	require.Empty(t, f.writes(), "the edit is taken back")
}

// TestSyncLeavesUnknownLastValidPolicy: without its document, or with one that is no policy, what is in force stays.
func TestSyncLeavesUnknownLastValidPolicy(t *testing.T) {
	next, err := awsranges.ReadFile("../../testdata/ranges/ip-ranges-next.json")
	require.NoError(t, err)
	for _, document := range []string{"", "{", `{"allowedDestinations": [{"name": "s3", "cidr": "10.0.0.0/99"}]}`} {
		f := newFixture(t, configMap(invalid), with(writtenFor(t, valid), func(p *networkingv1.NetworkPolicy) {
			if p.Annotations[netpol.PolicyAnnotation] = document; document == "" {
				delete(p.Annotations, netpol.PolicyAnnotation)
			}
		}))
		f.table.Store(next)
		require.NoError(t, f.sync(t.Context(), key))
		require.Equal(t, ReasonInvalid, f.event(t))
		require.Empty(t, f.writes())
	}
}

// TestOptionsChangedIsNoRangesChange: a new --dns-cidr changes the CIDRs of every policy, and no ranges.
func TestOptionsChangedIsNoRangesChange(t *testing.T) {
	f := newFixture(t, configMap(valid), writtenFor(t, valid))
	f.options.Compile.DNSCIDRs = []netip.Prefix{netip.MustParsePrefix("169.254.20.10/32")}
	require.NoError(t, f.sync(t.Context(), key))
	reason, message := f.nextEvent()
	require.Equal(t, ReasonApplied, reason)
	require.Contains(t, message, "The options of the agent changed; NetworkPolicy egress is in force")
	f.observe(t)
	require.NoError(t, f.sync(t.Context(), key))
	require.Empty(t, f.writes())
}

func with2(c *corev1.ConfigMap, change func(*corev1.ConfigMap)) *corev1.ConfigMap {
	change(c)
	return c
}

func TestSyncRestoresWhatOthersDeleted(t *testing.T) {
	f := newFixture(t, configMap(valid), writtenFor(t, valid))
	require.NoError(t, f.sync(t.Context(), key))
	require.NoError(t, f.client.Tracker().Delete(networkingv1.SchemeGroupVersion.WithResource("networkpolicies"), "tenant-a", "egress"))
	f.observe(t)
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, []string{"get configmaps", "create networkpolicies"}, f.verbs())
	require.Equal(t, ReasonRestored, f.event(t))
}

// TestSyncDoesNotTrustAFullCache has a NetworkPolicy gone with a ConfigMap that the cache still holds.
func TestSyncDoesNotTrustAFullCache(t *testing.T) {
	configMaps := corev1.SchemeGroupVersion.WithResource("configmaps")
	for _, test := range []struct {
		name string
		now  *corev1.ConfigMap
	}{
		{"gone", nil},
		{"made anew", with2(configMap(valid), func(c *corev1.ConfigMap) { c.UID = "uid-2" })},
		{"label gone", with2(configMap(valid), func(c *corev1.ConfigMap) { c.Labels = nil })},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, configMap(valid), writtenFor(t, valid))
			require.NoError(t, f.sync(t.Context(), key))
			require.NoError(t, f.client.Tracker().Delete(networkingv1.SchemeGroupVersion.WithResource("networkpolicies"), "tenant-a", "egress"))
			require.NoError(t, f.client.Tracker().Delete(configMaps, "tenant-a", "egress"))
			if test.now != nil {
				require.NoError(t, f.client.Tracker().Add(test.now))
			}
			f.observe(t)
			require.NoError(t, f.sync(t.Context(), key), "what it waits for comes by the watch")
			require.Equal(t, []string{"get configmaps"}, f.verbs())
			require.Empty(t, f.event(t))
		})
	}
}

// TestSyncKeepsWhatOthersAdded also has the case that one of the owners is not the agent's.
func TestSyncKeepsWhatOthersAdded(t *testing.T) {
	other := metav1.OwnerReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "egress", UID: "d-1"}
	f := newFixture(t, configMap(edited), with(writtenFor(t, valid), func(p *networkingv1.NetworkPolicy) {
		p.Labels["team"], p.Annotations["note"] = "payments", "kept"
		p.Finalizers = []string{"networking.k8s.aws/resources"}
		p.OwnerReferences = append(p.OwnerReferences, other)
	}))
	require.NoError(t, f.sync(t.Context(), key))
	current, err := f.client.NetworkingV1().NetworkPolicies("tenant-a").Get(t.Context(), "egress", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, writtenFor(t, edited).Spec, current.Spec)
	require.Equal(t, "payments", current.Labels["team"])
	require.Equal(t, "kept", current.Annotations["note"])
	require.Equal(t, []string{"networking.k8s.aws/resources"}, current.Finalizers)
	require.Equal(t, []metav1.OwnerReference{writtenFor(t, edited).OwnerReferences[0], other}, current.OwnerReferences)

	f = newFixture(t, configMap(valid), with(writtenFor(t, valid), func(p *networkingv1.NetworkPolicy) {
		p.OwnerReferences[0].UID = "uid-0"
		p.OwnerReferences = append(p.OwnerReferences, other)
	}))
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, []metav1.OwnerReference{other, writtenFor(t, valid).OwnerReferences[0]}, getPolicy(t, f).OwnerReferences,
		"only the ConfigMap's predecessor is replaced")
}

// TestSyncDeletesWhatItSaw requires that a deletion is for the very object it was decided on, which
// may have been replaced by one of the same name.
func TestSyncDeletesWhatItSaw(t *testing.T) {
	f := newFixture(t, with(writtenFor(t, valid), func(p *networkingv1.NetworkPolicy) { p.UID = "np-1" }))
	require.NoError(t, f.sync(t.Context(), key))
	deletion := f.client.Actions()[1].(clienttesting.DeleteActionImpl)
	require.EqualValues(t, "np-1", *deletion.DeleteOptions.Preconditions.UID)
}

func TestSyncWithoutRanges(t *testing.T) {
	f := newFixture(t, configMap(valid))
	f.table.Store(nil)
	for range 2 {
		require.NoError(t, f.sync(t.Context(), key))
		f.see(t, getPolicy(t, f))
	}
	require.Equal(t, ReasonRangesUnavailable, f.event(t), "told once")
	require.Equal(t, 1, strings.Count(strings.Join(f.verbs(), " "), "create"))
	require.NotContains(t, f.verbs(), "update networkpolicies")
	partial := getPolicy(t, f)
	require.Len(t, partial.Spec.Egress, 2, "DNS and the CIDR")

	f.table.Store(testTable(t))
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, ReasonRangesChanged, f.event(t))
	require.Equal(t, writtenFor(t, valid).Spec, getPolicy(t, f).Spec)
	f.observe(t)
	f.table.Store(nil)
	require.NoError(t, f.sync(t.Context(), key))
	require.Empty(t, f.verbs(), "what is there stays")
	require.Equal(t, ReasonRangesUnavailable, f.event(t))
}

func getPolicy(t *testing.T, f *fixture) *networkingv1.NetworkPolicy {
	current, err := f.client.NetworkingV1().NetworkPolicies("tenant-a").Get(t.Context(), "egress", metav1.GetOptions{})
	require.NoError(t, err)
	return current
}

// TestSyncDoesNotTrustAnEmptyCache has a NetworkPolicy whose ConfigMap the cache does not hold yet.
func TestSyncDoesNotTrustAnEmptyCache(t *testing.T) {
	f := newFixture(t, writtenFor(t, valid))
	require.NoError(t, f.client.Tracker().Add(configMap(valid)))
	require.EqualError(t, f.sync(t.Context(), key), "the cache does not hold ConfigMap egress yet")
	require.Equal(t, []string{"get configmaps"}, f.verbs())
}

func TestSyncErrors(t *testing.T) {
	resource := networkingv1.Resource("networkpolicies")
	terminating := apierrors.NewForbidden(resource, "egress", errors.New("terminating"))
	terminating.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	for _, test := range []struct {
		name, verb, resource string
		answer               error
		objects              []runtime.Object
		want                 string
	}{
		{"create fails", "create", "networkpolicies", errors.New("away"), []runtime.Object{configMap(valid)}, "create NetworkPolicy egress: away"},
		{"update fails", "update", "networkpolicies", errors.New("away"), []runtime.Object{configMap(edited), writtenFor(t, valid)}, "update NetworkPolicy egress: away"},
		{"look fails", "get", "configmaps", errors.New("away"), []runtime.Object{writtenFor(t, valid)}, "look for the ConfigMap of NetworkPolicy egress: away"},
		{"delete fails", "delete", "networkpolicies", errors.New("away"), []runtime.Object{writtenFor(t, valid)}, "delete NetworkPolicy egress: away"},
		{"gone already", "delete", "networkpolicies", apierrors.NewNotFound(resource, "egress"), []runtime.Object{writtenFor(t, valid)}, ""},
		{"namespace gone", "create", "networkpolicies", apierrors.NewNotFound(resource, "egress"), []runtime.Object{configMap(valid)}, ""},
		{"namespace terminating", "create", "networkpolicies", terminating, []runtime.Object{configMap(valid)}, ""},
		{"forbidden", "create", "networkpolicies", apierrors.NewForbidden(resource, "egress", errors.New("no")), []runtime.Object{configMap(valid)},
			`create NetworkPolicy egress: networkpolicies.networking.k8s.io "egress" is forbidden: no`},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, test.objects...)
			f.client.PrependReactor(test.verb, test.resource, func(clienttesting.Action) (bool, runtime.Object, error) {
				return true, nil, test.answer
			})
			err := f.sync(t.Context(), key)
			if test.want == "" {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, test.want)
			}
			require.Empty(t, f.event(t), "nothing is told of what did not happen")
		})
	}
}

// TestSyncLeavesAloneWhatItMayNotHaveSeen requires that an update carries the version it was decided on.
func TestSyncLeavesAloneWhatItMayNotHaveSeen(t *testing.T) {
	f := newFixture(t, configMap(edited), with(writtenFor(t, valid), func(p *networkingv1.NetworkPolicy) { p.ResourceVersion = "7" }))
	require.NoError(t, f.sync(t.Context(), key))
	update := f.client.Actions()[0].(clienttesting.UpdateAction).GetObject().(*networkingv1.NetworkPolicy)
	require.Equal(t, "7", update.ResourceVersion)
}

func TestEventMessagesAreCut(t *testing.T) {
	f := newFixture(t, configMap(`{"allowedDestinations": [`+strings.TrimSuffix(strings.Repeat(`{"ü": 1},`, 50), ",")+`]}`))
	require.NoError(t, f.sync(t.Context(), key))
	_, message := f.nextEvent()
	require.LessOrEqual(t, len(message), 1024)
	require.True(t, strings.HasSuffix(message, "…"))
}
