package ranges

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

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"egress-agent/pkg/agent/internal/testobjects"
	"egress-agent/pkg/awsranges"
)

// fixture is an updater whose feed is a file, and whose clock the test sets.
type fixture struct {
	*Updater
	client *fake.Clientset
	file   string
	now    time.Time
	logged bytes.Buffer
	table  *awsranges.Table // the last published table
	events []string         // reason and message
}

// newFixture returns an updater whose API server has the given objects.
func newFixture(t *testing.T, objects ...runtime.Object) *fixture {
	f := &fixture{client: fake.NewClientset(objects...), file: filepath.Join(t.TempDir(), "ip-ranges.json"), now: time.Unix(1_700_000_000, 0)}
	feed := &awsranges.Feed{File: f.file, RemovalHold: 24 * time.Hour, Now: func() time.Time { return f.now }}
	f.Updater = New(f.client, Source{Feed: feed, Interval: time.Minute}, Options{
		Namespace: "egress-system", FieldManager: "egress-agent", AgentOptions: testobjects.Options.String(),
	}, Hooks{
		Publish: func(table *awsranges.Table) <-chan struct{} {
			f.table = table
			synced := make(chan struct{})
			close(synced)
			return synced
		},
		Report:     func(_ context.Context, reason, message string) { f.events = append(f.events, reason+" "+message) },
		CheckLease: func() error { return nil },
	}, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(&f.logged, nil)))
	return f
}

// refresh writes a sample to the feed's file, refreshes once, and returns the verbs of the requests.
func (f *fixture) refresh(t *testing.T, sample string) ([]string, error) {
	data := []byte(sample)
	if strings.HasSuffix(sample, ".json") {
		var err error
		data, err = os.ReadFile(testobjects.Ranges + sample)
		require.NoError(t, err)
	}
	require.NoError(t, os.WriteFile(f.file, data, 0o600))
	f.client.ClearActions()
	err := f.refreshOnce(t.Context(), 0)
	return f.verbs(), err
}

// saved returns the ConfigMap of ranges.
func (f *fixture) saved(t *testing.T) *corev1.ConfigMap {
	configMap, err := f.client.CoreV1().ConfigMaps("egress-system").Get(t.Context(), ConfigMapName, metav1.GetOptions{})
	require.NoError(t, err)
	return configMap
}

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

// nextEvent removes and returns the oldest Event; empty if there is none.
func (f *fixture) nextEvent() (reason, message string) {
	if len(f.events) > 0 {
		reason, message, _ = strings.Cut(f.events[0], " ")
		f.events = f.events[1:]
	}
	return reason, message
}

// event removes and returns the reason of the only Event; empty if there is none.
func (f *fixture) event(t *testing.T) string {
	require.LessOrEqual(t, len(f.events), 1)
	reason, _ := f.nextEvent()
	return reason
}

func TestRefreshSavesRanges(t *testing.T) {
	f := newFixture(t)
	verbs, err := f.refresh(t, "ip-ranges.json")
	require.NoError(t, err)
	require.Equal(t, []string{"get configmaps", "create configmaps"}, verbs)
	require.Equal(t, map[string]string{
		SyncTokenAnnotation: "1700000000", AcceptedAnnotation: "2023-11-14T22:13:20Z", ConfirmedAnnotation: "2023-11-14T22:13:20Z",
		OptionsAnnotation: "ipv4 dns max-port-slots=24", RowsAnnotation: "18", PairsAnnotation: "10", HeldAnnotation: "0",
	}, f.saved(t).Annotations)
	stored, err := awsranges.Read(bytes.NewReader(f.saved(t).BinaryData[RangesKey]))
	require.NoError(t, err)
	require.Equal(t, f.source.Feed.Table(), stored)

	f.now = f.now.Add(23 * time.Hour)
	verbs, err = f.refresh(t, "ip-ranges.json")
	require.NoError(t, err)
	require.Equal(t, []string{"get configmaps"}, verbs, "nothing has changed")
	f.now = f.now.Add(time.Hour)
	verbs, err = f.refresh(t, "ip-ranges.json")
	require.NoError(t, err)
	require.Equal(t, []string{"get configmaps", "update configmaps"}, verbs, "once a day it writes the time of confirmation")
	require.Equal(t, "2023-11-15T22:13:20Z", f.saved(t).Annotations[ConfirmedAnnotation])
	require.Equal(t, "2023-11-14T22:13:20Z", f.saved(t).Annotations[AcceptedAnnotation])

	verbs, err = f.refresh(t, "ip-ranges-next.json")
	require.NoError(t, err)
	require.Equal(t, []string{"update configmaps"}, verbs)
	require.Equal(t, "1", f.saved(t).Annotations[HeldAnnotation])

	// Another process continues with the same table, and writes nothing.
	next := newFixture(t, f.saved(t))
	next.now = f.now
	next.loadSaved(t.Context())
	next.Publish()
	require.Equal(t, f.table, next.table)
	verbs, err = next.refresh(t, "ip-ranges-next.json")
	require.NoError(t, err)
	require.Equal(t, []string{"get configmaps"}, verbs)

	f.now = f.now.Add(24 * time.Hour)
	verbs, err = f.refresh(t, "ip-ranges-next.json")
	require.NoError(t, err)
	require.Equal(t, []string{"update configmaps"}, verbs, "a hold has ended")
	require.Equal(t, "2023-11-15T22:13:20Z", f.saved(t).Annotations[AcceptedAnnotation], "the document is unchanged")
	require.EqualValues(t, 3, testutil.ToFloat64(f.metrics.refreshes.WithLabelValues(resultAccepted)))
	require.EqualValues(t, 2, testutil.ToFloat64(f.metrics.refreshes.WithLabelValues(resultUnchanged)))
}

func TestRefusalIsReportedOnce(t *testing.T) {
	f := newFixture(t)
	for range 2 {
		_, err := f.refresh(t, "{}")
		require.Error(t, err)
	}
	reason, message := f.nextEvent()
	require.Equal(t, ReasonRangesRefused, reason)
	require.Equal(t, `The last accepted AWS ranges stay in use: not an ip-ranges document: no rows in "prefixes" or "ipv6_prefixes"`, message)
	require.Empty(t, f.event(t))
	_, err := f.refresh(t, "ip-ranges-next.json")
	require.NoError(t, err)
	for range 2 {
		_, err := f.refresh(t, "ip-ranges.json")
		require.Error(t, err)
	}
	require.Equal(t, ReasonRangesRefused, f.event(t))
	require.Equal(t, "syncToken 1700000000 is older than the accepted 1700021600; to accept the document anyway, start with --accept-ranges 1700000000",
		f.saved(t).Annotations[RefusedAnnotation])
	require.EqualValues(t, 4, testutil.ToFloat64(f.metrics.refreshes.WithLabelValues(resultRefused)))
	_, err = f.refresh(t, "ip-ranges-next.json")
	require.NoError(t, err)
	require.NotContains(t, f.saved(t).Annotations, RefusedAnnotation)
}

func TestRangesStayInUseIfSaveFails(t *testing.T) {
	f := newFixture(t)
	f.client.PrependReactor("create", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("forbidden")
	})
	_, err := f.refresh(t, "ip-ranges.json")
	require.NoError(t, err)
	require.NotNil(t, f.table)
	require.EqualValues(t, 1, testutil.ToFloat64(f.metrics.storeErrors))
	require.Contains(t, f.logged.String(), "save AWS ranges failed")
}

func TestLoadSavedIgnoresDefectiveRanges(t *testing.T) {
	for name, data := range map[string]string{
		"nothing":         "",
		"no document":     "x",
		"everything open": `{"syncToken": "1", "prefixes": [{"ip_prefix": "0.0.0.0/0", "region": "x", "service": "S3"}]}`,
	} {
		f := newFixture(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "egress-system", Name: ConfigMapName}, BinaryData: map[string][]byte{RangesKey: []byte(data)}})
		f.loadSaved(t.Context())
		require.Contains(t, f.logged.String(), "saved AWS ranges ignored", name)
		require.Nil(t, f.source.Feed.Table(), name)
	}
}

// TestLoadSavedWaitsForTheAPIServer requires that loadSaved retries, because without the saved ranges the agent would
// close the held rows.
func TestLoadSavedWaitsForTheAPIServer(t *testing.T) {
	previous := newFixture(t)
	_, err := previous.refresh(t, "ip-ranges.json")
	require.NoError(t, err)
	f := newFixture(t, previous.saved(t))
	failures := 2
	f.client.PrependReactor("get", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) {
		failures--
		return failures >= 0, nil, errors.New("try later")
	})
	f.loadSaved(t.Context())
	require.Equal(t, "1700000000", f.source.Feed.Table().SyncToken())
	require.Equal(t, 2, strings.Count(f.logged.String(), "retrying"))
}

func TestLoadInitialStopsCleanly(t *testing.T) {
	f := newFixture(t) // the file does not exist
	_, err := f.LoadInitial(t.Context())
	require.Error(t, err)
	stopped, stop := context.WithCancel(t.Context())
	stop()
	_, err = f.LoadInitial(stopped)
	require.NoError(t, err, "a stop is not an error")
}

// TestSaveWarnsOfLargeRanges requires a warning well before the API server refuses the ConfigMap.
func TestSaveWarnsOfLargeRanges(t *testing.T) {
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
	f := newFixture(t)
	_, err := f.refresh(t, document(1000))
	require.NoError(t, err)
	require.NotContains(t, f.logged.String(), "over 80 %")
	f = newFixture(t)
	_, err = f.refresh(t, document(200_000))
	require.NoError(t, err)
	require.Greater(t, testutil.ToFloat64(f.metrics.storedBytes), 0.8*maxConfigMapBytes)
	require.Contains(t, f.logged.String(), "over 80 %")
}
