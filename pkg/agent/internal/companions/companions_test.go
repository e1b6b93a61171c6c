package companions

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/watch"
	fakediscovery "k8s.io/client-go/discovery/fake"
	fakedynamic "k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
)

func TestMain(m *testing.M) {
	utilruntime.ErrorHandlers = nil // they sleep after an error that they told at another time, which in a bubble is years away
	os.Exit(m.Run())
}

var widgets = schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"}

// fixture has companions that are one Widget for each key, beside a fake API server.
type fixture struct {
	*Companions
	client *fakedynamic.FakeDynamicClient

	mu     sync.Mutex
	log    strings.Builder
	sizes  map[string]int64 // of the desired Widgets, by name
	failed error            // of Desired

	isDefined bool
	watches   []watch.Interface
}

func (f *fixture) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.Write(p)
}

func (f *fixture) logged(text string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Count(f.log.String(), text)
}

// want sets the size of a desired Widget and syncs it; 0 means that there is none.
func (f *fixture) want(name string, size int64, err error) {
	f.mu.Lock()
	f.sizes[name], f.failed = size, err
	f.mu.Unlock()
	f.Enqueue(cache.NewObjectName("shop", name))
}

func (f *fixture) desired(_ context.Context, key cache.ObjectName) ([]*unstructured.Unstructured, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed != nil || f.sizes[key.Name] == 0 {
		return nil, f.failed
	}
	return []*unstructured.Unstructured{widget(key.Name, f.sizes[key.Name])}, nil
}

func widget(name string, size int64) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "example.com/v1", "kind": "Widget",
		"metadata": map[string]any{"namespace": "shop", "name": name, "labels": map[string]any{"made": "here"}},
		"spec":     map[string]any{"size": size},
	}}
}

func (f *fixture) size(t *testing.T, name string) int64 {
	time.Sleep(time.Second) // the cache may be behind a write
	object, err := f.client.Resource(widgets).Namespace("shop").Get(t.Context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return 0
	}
	require.NoError(t, err)
	size, _, err := unstructured.NestedInt64(object.Object, "spec", "size")
	require.NoError(t, err)
	return size
}

// setDefined adds the CustomResourceDefinition, or removes it and ends all watches.
func (f *fixture) setDefined(isDefined bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.isDefined = isDefined; isDefined {
		return
	}
	for _, w := range f.watches {
		w.Stop()
	}
	f.watches = nil
}

// widgetDiscovery finds Widgets as long as they are defined.
type widgetDiscovery struct {
	*fakediscovery.FakeDiscovery
	f *fixture
}

func (d widgetDiscovery) ServerResourcesForGroupVersion(groupVersion string) (*metav1.APIResourceList, error) {
	d.f.mu.Lock()
	defer d.f.mu.Unlock()
	if !d.f.isDefined || groupVersion != "example.com/v1" {
		return nil, apierrors.NewNotFound(schema.GroupResource{}, groupVersion)
	}
	return &metav1.APIResourceList{APIResources: []metav1.APIResource{{Name: "widgets", Kind: "Widget"}}}, nil
}

// react answers lists and watches without a CustomResourceDefinition, and keeps the other watches.
func (f *fixture) react() {
	notFound := apierrors.NewNotFound(widgets.GroupResource(), "")
	f.client.PrependReactor("list", "widgets", func(clienttesting.Action) (bool, runtime.Object, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return !f.isDefined, nil, notFound
	})
	f.client.PrependWatchReactor("widgets", func(action clienttesting.Action) (bool, watch.Interface, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if !f.isDefined {
			return true, nil, notFound
		}
		w, err := f.client.Tracker().Watch(widgets, action.GetNamespace())
		f.watches = append(f.watches, w)
		return true, w, err
	})
}

// start runs the companions until the test ends.
func start(t *testing.T, isDefined bool) *fixture {
	f := &fixture{sizes: make(map[string]int64)}
	f.client = fakedynamic.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{widgets: "WidgetList"})
	f.react()
	f.setDefined(isDefined)
	f.Companions = New(Kind{
		Resource: widgets, Name: "Widget", Selector: "made=here", Desired: f.desired,
		KeyOf: func(companion metav1.Object) cache.ObjectName {
			if companion.GetLabels()["made"] != "here" {
				return cache.ObjectName{} // the fake API server watches also what the selector excludes
			}
			return cache.NewObjectName(companion.GetNamespace(), companion.GetName())
		},
	}, Config{
		Client: f.client, Discovery: widgetDiscovery{&fakediscovery.FakeDiscovery{Fake: &clienttesting.Fake{}}, f}, FieldManager: "test", CheckLease: func() error { return nil },
		Metrics: NewMetrics(prometheus.NewRegistry()), Log: slog.New(slog.NewTextHandler(f, nil)),
	})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { f.Run(ctx, context.WithoutCancel(ctx)) })
	t.Cleanup(func() { cancel(); running.Wait() })
	synctest.Wait() // the fake API server loses what happens between a list and its watch
	return f
}

func TestCompanionsFollowWhatIsDesired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, true)
		f.want("a", 1, nil)
		require.Equal(t, int64(1), f.size(t, "a"))
		f.want("a", 2, nil)
		require.Equal(t, int64(2), f.size(t, "a"))
		_, err := f.client.Resource(widgets).Namespace("shop").Update(t.Context(), widget("a", 9), metav1.UpdateOptions{})
		require.NoError(t, err)
		require.Equal(t, int64(2), f.size(t, "a"), "an edit is undone")
		before := len(f.client.Actions())
		f.want("a", 2, nil)
		synctest.Wait()
		require.Len(t, f.client.Actions(), before, "nothing to write")
		f.want("a", 0, nil)
		require.Zero(t, f.size(t, "a"))
		require.Zero(t, f.logged("level=WARN"), "a cache that is behind is no error")
	})
}

// TestCompanionsLeaveOthersAlone meets an object of somebody else under the name of a companion.
func TestCompanionsLeaveOthersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, true)
		foreign := widget("a", 7)
		foreign.SetLabels(nil)
		_, err := f.client.Resource(widgets).Namespace("shop").Create(t.Context(), foreign, metav1.CreateOptions{})
		require.NoError(t, err)
		f.want("a", 1, nil)
		time.Sleep(time.Hour)
		require.Equal(t, int64(7), f.size(t, "a"))
		require.Equal(t, 1, f.logged("Widget a exists without the label made=here, so somebody else made it: rename or delete it"))
		require.NoError(t, f.client.Resource(widgets).Namespace("shop").Delete(t.Context(), "a", metav1.DeleteOptions{}))
		time.Sleep(maxDelay)
		require.Equal(t, int64(1), f.size(t, "a"))
	})
}

// TestCompanionsRetry waits for what is not ready, and tells an error once.
func TestCompanionsRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, true)
		f.want("a", 1, nil)
		require.Equal(t, int64(1), f.size(t, "a"))
		f.want("a", 2, ErrNotReady)
		require.Equal(t, int64(1), f.size(t, "a"), "the last one stays")
		f.mu.Lock()
		f.failed = errors.New("no answer")
		f.mu.Unlock()
		time.Sleep(10 * time.Second)
		require.Equal(t, int64(1), f.size(t, "a"))
		require.Equal(t, 1, f.logged("no answer"))
		f.mu.Lock()
		f.failed = nil
		f.mu.Unlock()
		time.Sleep(maxDelay)
		require.Equal(t, int64(2), f.size(t, "a"))
	})
}

// TestCompanionsWaitForTheDefinition starts without a CustomResourceDefinition, and loses it again.
func TestCompanionsWaitForTheDefinition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lacks = "the API server lacks a kind"
		f := start(t, false)
		f.want("a", 1, nil)
		time.Sleep(10 * discoveryInterval)
		require.Zero(t, f.size(t, "a"))
		require.Equal(t, 1, f.logged(lacks), "one line")
		f.setDefined(true)
		time.Sleep(discoveryInterval)
		require.Equal(t, int64(1), f.size(t, "a"))

		// Its deletion ends every watch, and deletes every Widget.
		f.setDefined(false)
		time.Sleep(time.Minute)
		require.Equal(t, 2, f.logged(lacks), "one line more")
		time.Sleep(10 * discoveryInterval)
		require.Equal(t, 2, f.logged(lacks))
		f.setDefined(true)
		time.Sleep(discoveryInterval)
		f.want("a", 3, nil)
		require.Equal(t, int64(3), f.size(t, "a"))
		require.Equal(t, 2, f.logged("companions begin"))
	})
}
