package agent

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	typeddiscoveryv1 "k8s.io/client-go/kubernetes/typed/discovery/v1"
	typednetworkingv1 "k8s.io/client-go/kubernetes/typed/networking/v1"
	metadatafake "k8s.io/client-go/metadata/fake"
	"k8s.io/client-go/rest"

	"egress-agent/pkg/agent/internal/testobjects"
	"egress-agent/pkg/awsranges"
)

// listingClient is a fake clientset that answers the lists of the agent's informers, which need a REST client.
type listingClient struct {
	*fake.Clientset
	rest *kubernetes.Clientset
}

func (c listingClient) CoreV1() typedcorev1.CoreV1Interface {
	return listingCoreV1{c.Clientset.CoreV1(), c.rest.CoreV1().RESTClient()}
}

func (c listingClient) NetworkingV1() typednetworkingv1.NetworkingV1Interface {
	return listingNetworkingV1{c.Clientset.NetworkingV1(), c.rest.NetworkingV1().RESTClient()}
}

func (c listingClient) DiscoveryV1() typeddiscoveryv1.DiscoveryV1Interface {
	return listingDiscoveryV1{c.Clientset.DiscoveryV1(), c.rest.DiscoveryV1().RESTClient()}
}

type listingDiscoveryV1 struct {
	typeddiscoveryv1.DiscoveryV1Interface
	rest rest.Interface
}

func (c listingDiscoveryV1) RESTClient() rest.Interface { return c.rest }

type listingCoreV1 struct {
	typedcorev1.CoreV1Interface
	rest rest.Interface
}

func (c listingCoreV1) RESTClient() rest.Interface { return c.rest }

type listingNetworkingV1 struct {
	typednetworkingv1.NetworkingV1Interface
	rest rest.Interface
}

func (c listingNetworkingV1) RESTClient() rest.Interface { return c.rest }

func newListingClient(t *testing.T, objects ...runtime.Object) listingClient {
	clientset := fake.NewClientset(objects...)
	serializer := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)
	answer := func(w http.ResponseWriter, list runtime.Object, kind schema.GroupVersionKind, err error) {
		if err != nil {
			t.Error(err)
			return
		}
		list.GetObjectKind().SetGroupVersionKind(kind)
		var encoded bytes.Buffer
		if err := serializer.Encode(list, &encoded); err != nil {
			t.Error(err)
		}
		w.Write(encoded.Bytes())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/configmaps", func(w http.ResponseWriter, r *http.Request) {
		list, err := clientset.CoreV1().ConfigMaps("").List(r.Context(), metav1.ListOptions{LabelSelector: r.URL.Query().Get("labelSelector")})
		answer(w, list, corev1.SchemeGroupVersion.WithKind("ConfigMapList"), err)
	})
	mux.HandleFunc("GET /api/v1/namespaces/egress-system/configmaps", func(w http.ResponseWriter, r *http.Request) {
		list, err := clientset.CoreV1().ConfigMaps("egress-system").List(r.Context(), metav1.ListOptions{LabelSelector: r.URL.Query().Get("labelSelector")})
		answer(w, list, corev1.SchemeGroupVersion.WithKind("ConfigMapList"), err)
	})
	mux.HandleFunc("GET /api/v1/namespaces", func(w http.ResponseWriter, r *http.Request) {
		list, err := clientset.CoreV1().Namespaces().List(r.Context(), metav1.ListOptions{})
		answer(w, list, corev1.SchemeGroupVersion.WithKind("NamespaceList"), err)
	})
	mux.HandleFunc("GET /apis/networking.k8s.io/v1/networkpolicies", func(w http.ResponseWriter, r *http.Request) {
		list, err := clientset.NetworkingV1().NetworkPolicies("").List(r.Context(), metav1.ListOptions{})
		answer(w, list, networkingv1.SchemeGroupVersion.WithKind("NetworkPolicyList"), err)
	})
	mux.HandleFunc("GET /api/v1/namespaces/default/services", func(w http.ResponseWriter, r *http.Request) {
		list, err := clientset.CoreV1().Services("default").List(r.Context(), metav1.ListOptions{})
		answer(w, list, corev1.SchemeGroupVersion.WithKind("ServiceList"), err)
	})
	mux.HandleFunc("GET /apis/discovery.k8s.io/v1/namespaces/default/endpointslices", func(w http.ResponseWriter, r *http.Request) {
		list, err := clientset.DiscoveryV1().EndpointSlices("default").List(r.Context(), metav1.ListOptions{})
		answer(w, list, discoveryv1.SchemeGroupVersion.WithKind("EndpointSliceList"), err)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	restClient, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL})
	require.NoError(t, err)
	return listingClient{clientset, restClient}
}

// TestElectedAgentReleasesTheLease requires that nothing is written without the Lease, and that a stop releases it.
func TestElectedAgentReleasesTheLease(t *testing.T) {
	run := func(client listingClient) (stop func() error) {
		file := filepath.Join(t.TempDir(), "ip-ranges.json")
		require.NoError(t, os.WriteFile(file, []byte(`{"syncToken": "1", "prefixes": [{"ip_prefix": "3.0.0.0/24", "region": "us-east-1", "service": "S3"}]}`), 0o600))
		now := time.Unix(1_700_000_000, 0)
		a := New(Clients{API: client, Metadata: metadatafake.NewSimpleMetadataClient(metadatafake.NewTestScheme()), Events: client}, Options{
			Compile: testobjects.Options, Namespace: "egress-system", LeaderElect: true, Workers: 1, ChunkPeers: 200, Metrics: prometheus.NewRegistry(),
			Source: Source{Feed: &awsranges.Feed{File: file, Now: func() time.Time { return now }}, Interval: time.Minute},
		}, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		return func() error { cancel(); return <-done }
	}
	verbs := func(client listingClient) (verbs []string) {
		for _, action := range client.Actions() {
			verbs = append(verbs, action.GetVerb()+" "+action.GetResource().Resource)
		}
		return verbs
	}
	holder := func(client listingClient) string {
		lease, err := client.CoordinationV1().Leases("egress-system").Get(t.Context(), Name, metav1.GetOptions{})
		if err != nil || lease.Spec.HolderIdentity == nil {
			return ""
		}
		return *lease.Spec.HolderIdentity
	}
	client := newListingClient(t, testobjects.ConfigMap(testobjects.Edited))
	stop := run(client)
	require.Eventually(t, func() bool { return slices.Contains(verbs(client), "create networkpolicies") }, 10*time.Second, 10*time.Millisecond)
	require.NotEmpty(t, holder(client))
	require.NoError(t, stop())
	require.Empty(t, holder(client), "the next agent need not wait")
	require.NoError(t, run(newListingClient(t))(), "an agent that never led also stops cleanly")
}
