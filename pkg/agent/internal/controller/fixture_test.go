package controller

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"egress-agent/pkg/agent/internal/cached"
	"egress-agent/pkg/agent/internal/fairqueue"
	"egress-agent/pkg/agent/internal/plan"
	"egress-agent/pkg/agent/internal/reporter"
	"egress-agent/pkg/agent/internal/testobjects"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/platform"
	"egress-agent/pkg/policy"
)

// key is the key of testobjects.ConfigMap.
var key = cache.NewObjectName("tenant-a", "egress")

// fixture is a leading controller whose API server and caches have the same objects.
type fixture struct {
	*Controller
	client  *fake.Clientset
	events  *record.FakeRecorder
	metrics *prometheus.Registry
	skipped time.Duration // the clock of the controller is ahead by this
}

// newFixture returns a controller that changes up to 200 CIDRs in one write.
func newFixture(t *testing.T, objects ...runtime.Object) *fixture {
	return newFixtureWith(t, Options{
		Plan: plan.Options{Compile: testobjects.Options, ChunkPeers: 200}, Workers: 1, Namespace: "egress-system",
	}, objects...)
}

// newTwoStepFixture returns a controller that makes every change in two writes, and waits an hour between them.
func newTwoStepFixture(t *testing.T, objects ...runtime.Object) *fixture {
	return newFixtureWith(t, Options{
		Plan: plan.Options{Compile: testobjects.Options}, Settle: time.Hour, Workers: 1, Namespace: "egress-system",
	}, objects...)
}

func newFixtureWith(t *testing.T, options Options, objects ...runtime.Object) *fixture {
	f := &fixture{client: fake.NewClientset(objects...), events: record.NewFakeRecorder(1000), metrics: prometheus.NewRegistry()}
	f.client.PrependReactor("*", "networkpolicies", f.setGeneration)
	log := slog.New(slog.DiscardHandler)
	f.Controller = New(f.client, metadatafake.NewSimpleMetadataClient(metadatafake.NewTestScheme()), options,
		fairqueue.New("test", f.metrics), reporter.New(f.events, f.metrics, log), func() error { return nil }, log)
	f.now = func() time.Time { return time.Now().Add(f.skipped) }
	f.table.Store(testobjects.Table(t))
	f.SetLeader(true)
	for _, object := range objects {
		f.setCached(t, object)
	}
	return f
}

// setGeneration sets the generation of each written NetworkPolicy, as an API server does.
func (f *fixture) setGeneration(action clienttesting.Action) (handled bool, result runtime.Object, err error) {
	write, isWrite := action.(clienttesting.UpdateAction) // a CreateAction has the same methods
	if !isWrite {
		return false, nil, nil
	}
	networkPolicy := write.GetObject().(*networkingv1.NetworkPolicy)
	networkPolicy.Generation = 1
	stored, err := f.client.Tracker().Get(action.GetResource(), networkPolicy.Namespace, networkPolicy.Name)
	if previous, exists := stored.(*networkingv1.NetworkPolicy); err == nil && exists {
		networkPolicy.Generation = previous.Generation
		if netpol.SpecDigestOf(previous.Spec) != netpol.SpecDigestOf(networkPolicy.Spec) {
			networkPolicy.Generation++
		}
	}
	return false, nil, nil
}

// setCached puts an object in the cache, as its informer would.
func (f *fixture) setCached(t *testing.T, object runtime.Object) {
	switch object := object.(type) {
	case *corev1.ConfigMap:
		switch object.Labels[policy.Label] {
		case policy.LabelValue:
			require.NoError(t, f.caches.configMaps.Add(f.caches.reduceConfigMap(object.DeepCopy())))
		case platform.LabelValue:
			f.platformHandler().OnAdd(reducePlatform(object.DeepCopy()), false)
		}
	case *corev1.Namespace:
		f.namespaceHandler().OnAdd(cached.NamespaceOf(&metav1.PartialObjectMetadata{ObjectMeta: *object.ObjectMeta.DeepCopy()}), false)
	case *networkingv1.NetworkPolicy:
		require.NoError(t, f.caches.networkPolicies.Add(f.caches.reduceNetworkPolicy(testobjects.Metadata(object))))
	}
}

// updateCache fills the cache of NetworkPolicies from the API server, and clears the record of requests.
func (f *fixture) updateCache(t *testing.T) {
	list, err := f.client.NetworkingV1().NetworkPolicies("").List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	require.NoError(t, f.caches.networkPolicies.Replace(nil, ""))
	for i := range list.Items {
		f.setCached(t, &list.Items[i])
	}
	f.client.ClearActions()
}

// settle sets the clock to a time when a second write need not wait any longer.
func (f *fixture) settle() { f.skipped += 2 * f.options.Settle }

// verbs returns the verbs and resources of the requests.
func (f *fixture) verbs() []string {
	var verbs []string
	for _, action := range f.client.Actions() {
		verbs = append(verbs, action.GetVerb()+" "+action.GetResource().Resource)
	}
	return verbs
}

// writes returns the verbs and resources of the requests, except get requests.
func (f *fixture) writes() []string {
	return slices.DeleteFunc(f.verbs(), func(verb string) bool { return strings.HasPrefix(verb, "get ") })
}

// event removes and returns the reason of the only Event; empty if there is none.
func (f *fixture) event(t *testing.T) string {
	require.LessOrEqual(t, len(f.events.Events), 1)
	reason, _ := f.nextEvent()
	return reason
}

// nextEvent removes and returns the oldest Event; empty if there is none.
func (f *fixture) nextEvent() (reason, message string) {
	select {
	case event := <-f.events.Events:
		_, event, _ = strings.Cut(event, " ") // its type
		reason, message, _ = strings.Cut(event, " ")
	default:
	}
	return reason, message
}

// metric returns the value of the metric with this name. If label is not empty, the metric must also have this label
// value. The value of a histogram is its number of samples.
func (f *fixture) metric(t *testing.T, name, label string) float64 {
	families, err := f.metrics.Gather()
	require.NoError(t, err)
	for _, family := range families {
		for _, metric := range family.Metric {
			if family.GetName() == name && (label == "" || metric.Label[0].GetValue() == label) {
				return metric.GetGauge().GetValue() + metric.GetCounter().GetValue() + float64(metric.GetHistogram().GetSampleCount())
			}
		}
	}
	require.Fail(t, "no such metric", "%s %s", name, label)
	return 0
}

// getPolicy returns the NetworkPolicy of key.
func getPolicy(t *testing.T, f *fixture) *networkingv1.NetworkPolicy { return getNamed(t, f, key.Name) }

func getNamed(t *testing.T, f *fixture, name string) *networkingv1.NetworkPolicy {
	policy, err := f.client.NetworkingV1().NetworkPolicies(key.Namespace).Get(t.Context(), name, metav1.GetOptions{})
	require.NoError(t, err)
	return policy
}

// queued gets n keys from the queue, and returns them sorted.
func (f *fixture) queued(n int) []string {
	var keys []string
	for range n {
		key, _ := f.queue.Get()
		f.queue.Done(key)
		keys = append(keys, key.String())
	}
	slices.Sort(keys)
	return keys
}
