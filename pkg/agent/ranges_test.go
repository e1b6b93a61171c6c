package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"egress-agent/pkg/awsranges"
)

// feeding is an agent whose feed is a file and whose clock stands, both the test's.
type feeding struct {
	*fixture
	file string
	now  time.Time
	log  bytes.Buffer
}

func newFeeding(t *testing.T, objects ...runtime.Object) *feeding {
	f := &feeding{fixture: newFixture(t, objects...), file: filepath.Join(t.TempDir(), "ip-ranges.json"), now: time.Unix(1_700_000_000, 0)}
	f.table.Store(nil)
	feed := f.options.Source.Feed
	feed.File, feed.RemovalHold, feed.Now = f.file, 24*time.Hour, func() time.Time { return f.now }
	f.Agent.log = slog.New(slog.NewTextHandler(&f.log, nil))
	return f
}

// look puts a sample in the feed's file, looks at it, and returns the verbs of the calls.
func (f *feeding) look(t *testing.T, sample string) ([]string, error) {
	data := []byte(sample)
	if strings.HasSuffix(sample, ".json") {
		var err error
		data, err = os.ReadFile("../../testdata/ranges/" + sample)
		require.NoError(t, err)
	}
	require.NoError(t, os.WriteFile(f.file, data, 0o600))
	f.client.ClearActions()
	err := f.refreshOnce(t.Context(), 0)
	return f.verbs(), err
}

func (f *feeding) kept(t *testing.T) *corev1.ConfigMap {
	configMap, err := f.client.CoreV1().ConfigMaps("egress-system").Get(t.Context(), RangesName, metav1.GetOptions{})
	require.NoError(t, err)
	return configMap
}

func TestRangesAreKept(t *testing.T) {
	f := newFeeding(t)
	verbs, err := f.look(t, "ip-ranges.json")
	require.NoError(t, err)
	require.Equal(t, []string{"get configmaps", "create configmaps"}, verbs)
	require.Equal(t, map[string]string{
		SyncTokenAnnotation: "1700000000", AcceptedAnnotation: "2023-11-14T22:13:20Z", ConfirmedAnnotation: "2023-11-14T22:13:20Z",
		OptionsAnnotation: "ipv4 dns max-port-slots=24", RowsAnnotation: "18", PairsAnnotation: "10", HeldAnnotation: "0",
	}, f.kept(t).Annotations)
	stored, err := awsranges.Read(bytes.NewReader(f.kept(t).BinaryData[RangesKey]))
	require.NoError(t, err)
	require.Equal(t, f.options.Source.Feed.Table(), stored)

	f.now = f.now.Add(23 * time.Hour)
	verbs, err = f.look(t, "ip-ranges.json")
	require.NoError(t, err)
	require.Equal(t, []string{"get configmaps"}, verbs, "nothing is new")
	f.now = f.now.Add(time.Hour)
	verbs, err = f.look(t, "ip-ranges.json")
	require.NoError(t, err)
	require.Equal(t, []string{"get configmaps", "update configmaps"}, verbs, "once a day it says that it was confirmed")
	require.Equal(t, "2023-11-15T22:13:20Z", f.kept(t).Annotations[ConfirmedAnnotation])
	require.Equal(t, "2023-11-14T22:13:20Z", f.kept(t).Annotations[AcceptedAnnotation])

	verbs, err = f.look(t, "ip-ranges-next.json")
	require.NoError(t, err)
	require.Equal(t, []string{"update configmaps"}, verbs)
	require.Equal(t, "1", f.kept(t).Annotations[HeldAnnotation])

	// What another process goes on from is the same, and nothing is written.
	next := newFeeding(t, f.kept(t))
	next.now = f.now
	next.loadSaved(t.Context())
	next.publish(next.options.Source.Feed.Table())
	require.Equal(t, f.table.Load(), next.table.Load())
	verbs, err = next.look(t, "ip-ranges-next.json")
	require.NoError(t, err)
	require.Equal(t, []string{"get configmaps"}, verbs)

	f.now = f.now.Add(24 * time.Hour)
	verbs, err = f.look(t, "ip-ranges-next.json")
	require.NoError(t, err)
	require.Equal(t, []string{"update configmaps"}, verbs, "a hold has ended")
	require.Equal(t, "2023-11-15T22:13:20Z", f.kept(t).Annotations[AcceptedAnnotation], "the document is the same")
	require.EqualValues(t, 3, testutil.ToFloat64(f.metrics.refreshes.WithLabelValues(resultAccepted)))
	require.EqualValues(t, 2, testutil.ToFloat64(f.metrics.refreshes.WithLabelValues(resultUnchanged)))
}

func TestRefusalIsToldOnce(t *testing.T) {
	f := newFeeding(t)
	for range 2 {
		_, err := f.look(t, "{}")
		require.Error(t, err)
	}
	reason, message := f.nextEvent()
	require.Equal(t, ReasonRangesRefused, reason)
	require.Equal(t, `The last accepted AWS ranges stay in use: not an ip-ranges document: no rows in "prefixes" or "ipv6_prefixes"`, message)
	require.Empty(t, f.event(t))
	_, err := f.look(t, "ip-ranges-next.json")
	require.NoError(t, err)
	for range 2 {
		_, err := f.look(t, "ip-ranges.json")
		require.Error(t, err)
	}
	require.Equal(t, ReasonRangesRefused, f.event(t))
	require.Equal(t, "syncToken 1700000000 is older than the accepted 1700021600; to accept the document anyway, start with --accept-ranges 1700000000",
		f.kept(t).Annotations[RefusedAnnotation])
	require.EqualValues(t, 4, testutil.ToFloat64(f.metrics.refreshes.WithLabelValues(resultRefused)))
	_, err = f.look(t, "ip-ranges-next.json")
	require.NoError(t, err)
	require.NotContains(t, f.kept(t).Annotations, RefusedAnnotation)
}

func TestRangesInUseThoughNotKept(t *testing.T) {
	f := newFeeding(t)
	f.client.PrependReactor("create", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("forbidden")
	})
	_, err := f.look(t, "ip-ranges.json")
	require.NoError(t, err)
	require.NotNil(t, f.table.Load())
	require.EqualValues(t, 1, testutil.ToFloat64(f.metrics.storeErrors))
	require.Contains(t, f.log.String(), "AWS ranges not kept in the cluster")
}

func TestResumeRefuses(t *testing.T) {
	for name, data := range map[string]string{
		"nothing":               "",
		"no document":           "x",
		"what nobody publishes": `{"syncToken": "1", "prefixes": [{"ip_prefix": "0.0.0.0/0", "region": "x", "service": "S3"}]}`,
	} {
		f := newFeeding(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "egress-system", Name: RangesName}, BinaryData: map[string][]byte{RangesKey: []byte(data)}})
		f.loadSaved(t.Context())
		require.Contains(t, f.log.String(), "are not used", name)
		require.Nil(t, f.options.Source.Feed.Table(), name)
	}
}

// TestResumeWaitsForTheAPIServer: what is held must not be lost because a request failed.
func TestResumeWaitsForTheAPIServer(t *testing.T) {
	before := newFeeding(t)
	_, err := before.look(t, "ip-ranges.json")
	require.NoError(t, err)
	f := newFeeding(t, before.kept(t))
	failures := 2
	f.client.PrependReactor("get", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) {
		failures--
		return failures >= 0, nil, errors.New("try later")
	})
	f.loadSaved(t.Context())
	require.Equal(t, "1700000000", f.options.Source.Feed.Table().SyncToken())
	require.Equal(t, 2, strings.Count(f.log.String(), "will retry"))
}

func TestStopWhileTheFirstDocumentIsRead(t *testing.T) {
	f := newFeeding(t) // whose file is not there
	_, err := f.loadInitial(t.Context())
	require.Error(t, err)
	stopped, stop := context.WithCancel(t.Context())
	stop()
	_, err = f.loadInitial(stopped)
	require.NoError(t, err, "it is a clean stop")
}

// TestLargeRanges: well before the API server takes them no more, it is told.
func TestLargeRanges(t *testing.T) {
	document := func(rows int) string {
		var b strings.Builder
		b.WriteString(`{"syncToken": "1", "createDate": "x", "prefixes": [`)
		for i := range rows {
			n := uint32(i) * 2654435761 // scattered, so that it does not compress
			fmt.Fprintf(&b, `{"ip_prefix": "11.%d.%d.%d/32", "region": "us-east-1", "service": "S3"},`, n>>24, n>>16&255, n>>8&255)
		}
		b.WriteString(`{"ip_prefix": "3.0.0.0/24", "region": "us-east-1", "service": "S3"}]}`)
		return b.String()
	}
	f := newFeeding(t)
	_, err := f.look(t, document(1000))
	require.NoError(t, err)
	require.NotContains(t, f.log.String(), "over 80 %")
	f = newFeeding(t)
	_, err = f.look(t, document(200_000))
	require.NoError(t, err)
	require.Greater(t, testutil.ToFloat64(f.metrics.storedBytes), 0.8*largestConfigMap)
	require.Contains(t, f.log.String(), "over 80 %")
}

// TestOnlyAffectedPoliciesAreQueued, by what they name.
func TestOnlyAffectedPoliciesAreQueued(t *testing.T) {
	named := func(name, document string) runtime.Object {
		object := configMap(document)
		object.Name = name
		return object
	}
	of := func(service, regions string) string {
		return `{"allowedDestinations": [{"name": "a", "awsService": "` + service + `"` + regions + `, "ports": [443]}]}`
	}
	crowd := "1" // more ports than a CIDR has slots for: with other ranges, the policy might be valid
	for port := 3; port < 60; port += 2 {
		crowd += fmt.Sprintf(", %d", port)
	}
	f := newFeeding(t,
		named("s3-east", of("s3", `, "regions": ["us-west-2", "us-east-1"]`)),
		named("s3-west", of("S3", `, "regions": ["us-west-2"]`)),
		named("s3", of("s3", "")),
		named("dynamodb", of("dynamodb", "")),
		named("cidr", edited),
		named("invalid", invalid),
		named("unknown", of("nosuch", "")),
		named("crowded", strings.Replace(of("s3", ""), "443", crowd, 1)),
	)
	queued := func() []string { // and synced
		var names []string
		for f.queue.Len() > 0 {
			key, _ := f.queue.Get()
			require.NoError(t, f.sync(t.Context(), key))
			f.queue.Done(key)
			f.order.release(key)
			names = append(names, key.Name)
		}
		f.observe(t)
		slices.Sort(names)
		return names
	}
	_, err := f.look(t, "ip-ranges.json")
	require.NoError(t, err)
	require.Len(t, queued(), 8, "there were none before: what is valid may be other")
	_, err = f.look(t, "ip-ranges-next.json")
	require.NoError(t, err)
	require.Equal(t, []string{"crowded", "s3", "s3-east"}, queued())
	_, err = f.look(t, "ip-ranges-next.json")
	require.NoError(t, err)
	require.Empty(t, queued())
	f.custom, err = awsranges.ReadFile("../../testdata/ranges/custom.json")
	require.NoError(t, err)
	f.publish(f.options.Source.Feed.Table())
	require.Len(t, queued(), 8, "a service came")
}

// TestRangesChangeDuringASync, which may not have known yet what its policy names.
func TestRangesChangeDuringASync(t *testing.T) {
	f := newFixture(t, configMap(valid))
	before := f.table.Load()
	require.NoError(t, f.sync(t.Context(), key))
	require.Zero(t, f.queue.Len())
	f.observe(t)
	f.table.Store(testTable(t))
	_, err := f.syncWith(t.Context(), key, before)
	require.NoError(t, err)
	require.Equal(t, 1, f.queue.Len())
}

func TestFanout(t *testing.T) {
	a, b := cache.NewObjectName("n", "a"), cache.NewObjectName("n", "b")
	first, second := &awsranges.Table{}, &awsranges.Table{}
	var told []string
	tell := func(name string) func(int, int) {
		return func(written, waiting int) { told = append(told, fmt.Sprint(name, " ", written, " ", waiting)) }
	}
	isOver := func(over <-chan struct{}) bool {
		select {
		case <-over:
			return true
		default:
			return false
		}
	}
	var f rollout
	require.True(t, isOver(f.start(first, nil, tell("none"))))
	over := f.start(first, []cache.ObjectName{a, b}, tell("both"))
	f.policySynced(a, first, true)
	f.policySynced(a, first, true)
	f.policySynced(b, second, true)
	require.False(t, isOver(over), "one waits: twice is once, and with another table is not at all")
	f.policySynced(b, first, false)
	require.True(t, isOver(over))
	f.policySynced(b, first, true)
	over = f.start(first, []cache.ObjectName{a, b}, tell("overtaken"))
	f.policySynced(a, first, true)
	f.start(second, []cache.ObjectName{a}, tell("last"))
	require.True(t, isOver(over))
	f.policySynced(a, second, true)
	require.Equal(t, []string{"none 0 0", "both 1 0", "overtaken 1 1", "last 1 0"}, told)
}

func TestSyncTellsOfOtherRanges(t *testing.T) {
	f := newFixture(t, configMap(valid), writtenFor(t, valid))
	next, err := awsranges.ReadFile("../../testdata/ranges/ip-ranges-next.json")
	require.NoError(t, err)
	f.table.Store(next)
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, []string{"get networkpolicies", "update networkpolicies"}, f.verbs())
	reason, message := f.nextEvent()
	require.Equal(t, ReasonRangesChanged, reason)
	require.Equal(t, "The ranges changed, CIDRs added: 1, removed: 1; NetworkPolicy egress is in force, with these numbers of CIDRs: s3=2 db=1", message)

	f = changing(t, configMap(valid), writtenFor(t, valid)) // two writes
	f.table.Store(next)
	require.NoError(t, f.sync(t.Context(), key))
	reason, again := f.nextEvent()
	require.Equal(t, ReasonRangesChanged, reason)
	require.Equal(t, message, again, "with the first, which sees all of it")
	f.observe(t)
	require.NoError(t, f.sync(t.Context(), key))
	f.settle()
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, []string{"update networkpolicies"}, f.writes())
	require.Empty(t, f.event(t))
}

// TestElect: without the Lease nothing is written, and it is given back when all is done.
func TestElect(t *testing.T) {
	run := func(f *feeding) (stop func() error) {
		f.options.LeaderElect = true
		f.informers = nil // the caches are full
		require.NoError(t, os.WriteFile(f.file, []byte(`{"syncToken": "1", "prefixes": [{"ip_prefix": "3.0.0.0/24", "region": "us-east-1", "service": "S3"}]}`), 0o600))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()
		return func() error { cancel(); return <-done }
	}
	holder := func(f *feeding) string {
		lease, err := f.client.CoordinationV1().Leases("egress-system").Get(t.Context(), Name, metav1.GetOptions{})
		if err != nil || lease.Spec.HolderIdentity == nil {
			return ""
		}
		return *lease.Spec.HolderIdentity
	}
	f := newFeeding(t, configMap(edited))
	stop := run(f)
	require.Eventually(t, func() bool { return slices.Contains(f.verbs(), "create networkpolicies") }, 10*time.Second, 10*time.Millisecond)
	require.NotEmpty(t, holder(f))
	require.NoError(t, stop())
	require.Empty(t, holder(f), "the next need not wait")
	require.NoError(t, run(newFeeding(t))(), "one that never led stops as cleanly")
}
