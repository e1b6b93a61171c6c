package mirror

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
)

// fixture is a mirror with fake API servers. Tests fill its caches themselves.
type fixture struct {
	*Mirror
	here, there *fake.Clientset
	logged      *strings.Builder
}

// newFixture returns a mirror with copies p-0 to p-(count-1), whose policies the hub has.
func newFixture(t *testing.T, count int, token string) *fixture {
	f := &fixture{here: fake.NewClientset(), there: fake.NewClientset(), logged: &strings.Builder{}}
	m := &Mirror{
		options: Options{Namespace: "egress-system", AcceptDeletions: token}, client: f.here,
		log:     slog.New(slog.NewTextHandler(f.logged, nil)),
		sources: &sources{}, locals: cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{}),
	}
	m.results = newResults(prometheus.NewRegistry(), m.log)
	var there kubernetes.Interface = f.there
	m.hub = &hub{sources: m.sources, log: m.log, reload: make(chan struct{}, 1)}
	m.hub.client.Store(&there)
	m.deleter = newDeleter(m)
	f.Mirror = m
	m.sources.replace("hub", nil)
	for i := range count {
		name := fmt.Sprintf("p-%d", i)
		full := hubPolicy(name, document)
		require.NoError(t, f.there.Tracker().Add(full))
		m.sources.put(full)
		copied := newCopy(cache.NewObjectName("tenant", name), "hub", contentOf(full))
		copied.UID, copied.ResourceVersion = types.UID(name), "1"
		f.add(t, copied)
	}
	return f
}

// add adds a ConfigMap to this cluster and to the cache.
func (f *fixture) add(t *testing.T, c *corev1.ConfigMap) {
	require.NoError(t, f.here.Tracker().Add(c))
	require.NoError(t, f.locals.Add(newLocal(c)))
}

// lose removes policies from the hub and from its last list.
func (f *fixture) lose(t *testing.T, first, last int) {
	for i := first; i < last; i++ {
		key := cache.NewObjectName("tenant", fmt.Sprintf("p-%d", i))
		require.NoError(t, f.there.CoreV1().ConfigMaps(key.Namespace).Delete(t.Context(), key.Name, metav1.DeleteOptions{}))
		f.sources.remove(key)
	}
}

// sweep sweeps at a time. Then it takes the deleted copies out of the cache, as an informer does. It returns how many
// it deleted.
func (f *fixture) sweep(t *testing.T, now time.Time) (deleted int, isDone bool, err error) {
	isDone, err = f.deleter.sweep(t.Context(), now)
	for _, object := range f.locals.List() {
		_, getErr := f.here.CoreV1().ConfigMaps("tenant").Get(t.Context(), object.(*local).name, metav1.GetOptions{})
		if apierrors.IsNotFound(getErr) {
			require.NoError(t, f.locals.Delete(object))
			deleted++
		}
	}
	return deleted, isDone, err
}

var noon = time.Date(2027, 3, 31, 12, 0, 0, 0, time.UTC)

// TestSweepCountsAcrossRestarts deletes a fifth, restarts, and holds the next deletion until the hour has passed.
func TestSweepCountsAcrossRestarts(t *testing.T) {
	f := newFixture(t, 10, "")
	f.lose(t, 0, 2)
	deleted, isDone, err := f.sweep(t, noon)
	require.NoError(t, err)
	require.True(t, isDone)
	require.Equal(t, 2, deleted)

	f.deleter = newDeleter(f.Mirror)
	f.lose(t, 2, 3)
	deleted, isDone, err = f.sweep(t, noon.Add(59*time.Minute))
	require.NoError(t, err)
	require.False(t, isDone)
	require.Zero(t, deleted)
	require.Contains(t, f.logged.String(), `msg="deletions held" owed=1 copies=8 deletedInLastHour=2 token=`)
	deleted, isDone, err = f.sweep(t, noon.Add(time.Hour))
	require.NoError(t, err)
	require.True(t, isDone)
	require.Equal(t, 1, deleted)
}

// TestSweepAcceptsExactlyTheTokensSet accepts half of the copies. A failed deletion is still accepted in the next sweep.
func TestSweepAcceptsExactlyTheTokensSet(t *testing.T) {
	f := newFixture(t, 10, "")
	f.lose(t, 0, 5)
	owed, _ := f.deleter.owed()
	f.options.AcceptDeletions = tokenOf(owed)
	f.here.PrependReactor("delete", "configmaps", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if action.(clienttesting.DeleteAction).GetName() == "p-3" {
			return true, nil, errors.New("busy")
		}
		return false, nil, nil
	})
	deleted, _, err := f.sweep(t, noon)
	require.EqualError(t, err, "delete the copy tenant/p-3: busy")
	require.Equal(t, 4, deleted)
	f.here.ReactionChain = f.here.ReactionChain[1:]
	deleted, isDone, err := f.sweep(t, noon)
	require.NoError(t, err)
	require.True(t, isDone)
	require.Equal(t, 1, deleted)

	f.lose(t, 5, 7)
	deleted, isDone, err = f.sweep(t, noon)
	require.NoError(t, err)
	require.False(t, isDone, "another set needs another token")
	require.Zero(t, deleted)
}

// TestSweepAsksTheHub has lists that lack policies, and hubs that do not say that a policy is gone.
func TestSweepAsksTheHub(t *testing.T) {
	f := newFixture(t, 10, "")
	f.sources.remove(cache.NewObjectName("tenant", "p-0"))
	deleted, isDone, err := f.sweep(t, noon)
	require.NoError(t, err)
	require.False(t, isDone)
	require.Zero(t, deleted)
	require.Contains(t, f.logged.String(), "the list of the hub lacked policies that it has")
	require.Len(t, f.hub.reload, 1, "it is read again")

	proxyAnswer := apierrors.NewGenericServerResponse(404, "get", corev1.Resource("configmaps"), "p-0", "<html>", 0, true)
	forbidden := apierrors.NewForbidden(corev1.Resource("configmaps"), "p-0", errors.New("no"))
	for _, answer := range []error{errors.New("no connection"), proxyAnswer, forbidden} {
		f.there.PrependReactor("get", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, answer })
		deleted, _, err = f.sweep(t, noon)
		require.ErrorIs(t, err, answer)
		require.Zero(t, deleted)
	}
}

// TestSweepLeavesWhatIsNotItsOwn has copies from another hub, and ConfigMaps of others.
func TestSweepLeavesWhatIsNotItsOwn(t *testing.T) {
	f := newFixture(t, 5, "")
	other := newCopy(cache.NewObjectName("tenant", "other"), "another-hub", content{document: document})
	f.add(t, other)
	mine := hubPolicy("mine", document)
	f.add(t, mine)
	for range 2 {
		deleted, isDone, err := f.sweep(t, noon)
		require.NoError(t, err)
		require.True(t, isDone)
		require.Zero(t, deleted)
	}
	f.sources.replace("another-hub", nil)
	_, isDone, err := f.sweep(t, noon)
	require.NoError(t, err)
	require.True(t, isDone)
	require.NotNil(t, f.localOf(cache.NewObjectName("tenant", "p-0")), "the hub of the copies is another one now")
}

// TestSweepNeedsTheRecord deletes nothing while the record of deletions cannot be read or written.
func TestSweepNeedsTheRecord(t *testing.T) {
	f := newFixture(t, 10, "")
	f.lose(t, 0, 1)
	require.NoError(t, f.here.Tracker().Add(&corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "egress-system", Name: Name}, Data: map[string]string{ledgerKey: "x"}}))
	deleted, _, err := f.sweep(t, noon)
	require.EqualError(t, err, "ConfigMap egress-system/egress-mirror: key deletions.json: invalid character 'x' looking for beginning of value; delete this ConfigMap")
	require.Zero(t, deleted)
	require.NoError(t, f.here.CoreV1().ConfigMaps("egress-system").Delete(t.Context(), Name, metav1.DeleteOptions{}))
	f.here.PrependReactor("create", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, errors.New("no") })
	deleted, _, err = f.sweep(t, noon)
	require.EqualError(t, err, "write ConfigMap egress-system/egress-mirror: no")
	require.Zero(t, deleted)
}
