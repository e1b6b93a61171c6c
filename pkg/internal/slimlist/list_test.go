package slimlist

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/pager"
)

// encodedList returns a list of NetworkPolicies, and its encoding by an API server.
func encodedList(t *testing.T, continued string) (*networkingv1.NetworkPolicyList, []byte) {
	list := &networkingv1.NetworkPolicyList{
		TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicyList"},
		ListMeta: metav1.ListMeta{ResourceVersion: "12345", Continue: continued},
	}
	for i := range 300 { // more than a buffer holds
		list.Items = append(list.Items, networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: "tenant-a", Name: fmt.Sprintf("policy-%d", i), Annotations: map[string]string{"a": strings.Repeat("b", 500)}},
			Spec:       networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}},
		})
	}
	var encoded bytes.Buffer
	require.NoError(t, protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Encode(list, &encoded))
	return list, encoded.Bytes()
}

// nameOf reduces an object to its name.
func nameOf(metadata *metav1.PartialObjectMetadata) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: metadata.Name}}
}

func resource(client kubernetes.Interface) Resource {
	return Resource{Name: "networkpolicies", Client: client.NetworkingV1().RESTClient()}
}

func TestListReducesEachObject(t *testing.T) {
	want, encoded := encodedList(t, "")
	answer := func(w http.ResponseWriter) { w.Write(encoded) }
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		require.Equal(t, "/apis/networking.k8s.io/v1/networkpolicies?labelSelector=a%3Db&resourceVersion=0", r.URL.String())
		require.Equal(t, runtime.ContentTypeProtobuf, r.Header.Get("Accept"))
		answer(w)
	}))
	defer server.Close()
	client, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL})
	require.NoError(t, err)
	listed := func() (runtime.Object, error) {
		return list(t.Context(), resource(client), metav1.ListOptions{ResourceVersion: "0", LabelSelector: "a=b"}, nameOf)
	}

	object, err := listed()
	require.NoError(t, err)
	reduced := object.(*metav1.List)
	require.Equal(t, "12345", reduced.ResourceVersion)
	require.Len(t, reduced.Items, len(want.Items))
	for i, item := range reduced.Items {
		require.Equal(t, &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: want.Items[i].Name}}, item.Object)
	}

	answer = func(w http.ResponseWriter) { http.Error(w, "no", http.StatusForbidden) }
	_, err = listed()
	require.True(t, apierrors.IsForbidden(err), err)
	answer = func(w http.ResponseWriter) { io.WriteString(w, `{"kind": "NetworkPolicyList"}`) }
	_, err = listed()
	require.EqualError(t, err, `list networkpolicies: the answer is not protobuf: it begins with "{\"ki"`)
}

// TestListReadsPages reads a list in pages, which an API server returns if it lists from etcd.
func TestListReadsPages(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		continued := "further"
		if r.URL.Query().Get("continue") == continued {
			continued = ""
		}
		_, page := encodedList(t, continued)
		w.Write(page)
	}))
	defer server.Close()
	client, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL})
	require.NoError(t, err)
	pages := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return list(ctx, resource(client), options, nameOf)
	})
	all, _, err := pages.ListWithAlloc(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	items, err := meta.ExtractListWithAlloc(all)
	require.NoError(t, err)
	require.Len(t, items, 600)
	for _, item := range items {
		require.IsType(t, &metav1.PartialObjectMetadata{}, item)
	}
}

// TestListRefusesAPage answers a request without a limit with one page of several.
func TestListRefusesAPage(t *testing.T) {
	continued := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, page := encodedList(t, continued)
		w.Write(page)
	}))
	defer server.Close()
	client, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL})
	require.NoError(t, err)
	items, resourceVersion, err := List(t.Context(), resource(client), nameOf)
	require.NoError(t, err)
	require.Len(t, items, 300)
	require.Equal(t, "12345", resourceVersion)
	continued = "further"
	items, _, err = List(t.Context(), resource(client), nameOf)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Nil(t, items)
}

// TestReadListRefusesAnIncompleteList cuts a list at many bytes. The informer treats an object that is not listed as
// deleted, so readList must not accept a part of a list.
func TestReadListRefusesAnIncompleteList(t *testing.T) {
	want, encoded := encodedList(t, "")
	read := func(encoded []byte) (items int, err error) {
		err = readList(bytes.NewReader(encoded), &metav1.ListMeta{}, func([]byte) error { items++; return nil })
		return items, err
	}
	items, err := read(encoded)
	require.NoError(t, err)
	require.Equal(t, len(want.Items), items)
	end := len(encoded) - 4 // two empty fields follow the list in the runtime.Unknown
	for n := range end {
		if n > 500 && n < end-500 && n%97 != 0 {
			continue
		}
		_, err := read(encoded[:n])
		require.Error(t, err, "the first %d bytes of %d", n, len(encoded))
	}
	for i := range 200 { // of the prefix, the list's fields and the first object
		broken := bytes.Clone(encoded)
		broken[i] ^= 0xff
		_, _ = read(broken) // does not panic, and allocates little
	}
}

func TestReadListStopsAtAnError(t *testing.T) {
	stop := fmt.Errorf("enough")
	_, encoded := encodedList(t, "")
	calls := 0
	err := readList(bytes.NewReader(encoded), &metav1.ListMeta{}, func([]byte) error { calls++; return stop })
	require.ErrorIs(t, err, stop)
	require.Equal(t, 1, calls)
}
