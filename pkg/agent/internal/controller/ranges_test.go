package controller

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/runtime"

	"egress-agent/pkg/agent/internal/plan"
	"egress-agent/pkg/agent/internal/testobjects"
	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
)

func TestSyncWithoutRanges(t *testing.T) {
	f := newFixture(t, testobjects.ConfigMap(testobjects.Valid))
	f.table.Store(nil)
	for range 2 {
		require.NoError(t, f.sync(t.Context(), key))
		f.setCached(t, getPolicy(t, f))
	}
	require.Equal(t, plan.ReasonRangesUnavailable, f.event(t), "it is reported once")
	require.Equal(t, 1, strings.Count(strings.Join(f.verbs(), " "), "create"))
	require.NotContains(t, f.verbs(), "update networkpolicies")
	partial := getPolicy(t, f)
	require.Len(t, partial.Spec.Egress, 2, "DNS and the CIDR")

	f.table.Store(testobjects.Table(t))
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, plan.ReasonRangesChanged, f.event(t))
	require.Equal(t, testobjects.NetworkPolicy(t, testobjects.Valid).Spec, getPolicy(t, f).Spec)
	f.updateCache(t)
	f.table.Store(nil)
	require.NoError(t, f.sync(t.Context(), key))
	require.Empty(t, f.verbs(), "the current rules stay")
	require.Equal(t, plan.ReasonRangesUnavailable, f.event(t))
}

// TestDisappearedServiceIsClosed requires that what the service opened is closed, although the policy that names it is
// invalid now. Without AWS's document the agent cannot know that the service disappeared.
func TestDisappearedServiceIsClosed(t *testing.T) {
	const ours = `{"allowedDestinations": [{"name": "ours", "awsService": "our_own", "ports": [443]}, {"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]}]}`
	custom, err := awsranges.Parse([]byte(`{"prefixes": [{"ip_prefix": "10.7.0.0/16", "region": "here", "service": "OUR_OWN"}]}`))
	require.NoError(t, err)
	f := newFixture(t, testobjects.ConfigMap(ours))
	f.table.Store(awsranges.Merge(testobjects.Table(t), custom))
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, plan.ReasonApplied, f.event(t))
	require.Equal(t, 2, netpol.CIDRCount(getNamed(t, f, "egress").Spec))
	f.updateCache(t)

	f.table.Store(nil)
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, plan.ReasonInvalid, f.event(t))
	require.Empty(t, f.writes())

	f.table.Store(testobjects.Table(t))
	require.NoError(t, f.sync(t.Context(), key))
	reason, message := f.nextEvent()
	require.Equal(t, plan.ReasonServiceGone, reason)
	require.Equal(t, `The ranges no longer have the names ["our_own"], so their addresses are closed; remove these names from the policy, or replace them`, message)
	require.Equal(t, 1, netpol.CIDRCount(getNamed(t, f, "egress").Spec))
	f.updateCache(t)
	require.NoError(t, f.sync(t.Context(), key))
	require.Empty(t, f.event(t), "it is reported once")
	require.Empty(t, f.writes())

	f.table.Store(awsranges.Merge(testobjects.Table(t), custom))
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, plan.ReasonRangesChanged, f.event(t), "the service has returned")
	require.Equal(t, 2, netpol.CIDRCount(getNamed(t, f, "egress").Spec))

	edited := testobjects.ConfigMap(strings.Replace(ours, "5432", "5433", 1))
	f.updateCache(t)
	f.table.Store(testobjects.Table(t))
	f.setCached(t, edited)
	require.NoError(t, f.sync(t.Context(), key))
	reason, message = f.nextEvent()
	require.Equal(t, plan.ReasonInvalid, reason, "a new document that names it is invalid")
	require.Contains(t, message, "Invalid service: our_own")
}

// TestOnlyAffectedPoliciesAreEnqueued requires that a new table enqueues the policies that name its changes.
func TestOnlyAffectedPoliciesAreEnqueued(t *testing.T) {
	named := func(name, document string) runtime.Object {
		object := testobjects.ConfigMap(document)
		object.Name = name
		return object
	}
	of := func(service, regions string) string {
		return `{"allowedDestinations": [{"name": "a", "awsService": "` + service + `"` + regions + `, "ports": [443]}]}`
	}
	manyPorts := "1" // more ports than a CIDR has slots: with other ranges, the policy might be valid
	for port := 3; port < 60; port += 2 {
		manyPorts += fmt.Sprintf(", %d", port)
	}
	f := newFixture(t,
		named("s3-east", of("s3", `, "regions": ["us-west-2", "us-east-1"]`)),
		named("s3-west", of("S3", `, "regions": ["us-west-2"]`)),
		named("s3", of("s3", "")),
		named("dynamodb", of("dynamodb", "")),
		named("cidr", testobjects.Edited),
		named("invalid", testobjects.Invalid),
		named("unknown", of("nosuch", "")),
		named("manyports", strings.Replace(of("s3", ""), "443", manyPorts, 1)),
	)
	f.table.Store(nil)
	queued := func() []string { // and synced
		var names []string
		for f.queue.Len() > 0 {
			key, _ := f.queue.Get()
			require.NoError(t, f.sync(t.Context(), key))
			f.queue.Done(key)
			names = append(names, key.Name)
		}
		f.updateCache(t)
		slices.Sort(names)
		return names
	}
	now := time.Unix(1_700_000_000, 0)
	feed := &awsranges.Feed{File: filepath.Join(t.TempDir(), "ip-ranges.json"), RemovalHold: 24 * time.Hour, Now: func() time.Time { return now }}
	publish := func(sample string, custom *awsranges.Table) (synced <-chan struct{}) {
		data, err := os.ReadFile(testobjects.Ranges + sample)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(feed.File, data, 0o600))
		table, err := feed.Fetch(t.Context())
		require.NoError(t, err)
		return f.Publish(awsranges.Merge(table, custom))
	}
	publish("ip-ranges.json", nil)
	require.Len(t, queued(), 8, "there were no ranges before, so any policy may have become valid")
	synced := publish("ip-ranges-next.json", nil)
	require.Equal(t, []string{"manyports", "s3", "s3-east"}, queued())
	<-synced
	publish("ip-ranges-next.json", nil)
	require.Empty(t, queued())
	custom, err := awsranges.ReadFile(testobjects.Ranges + "custom.json")
	require.NoError(t, err)
	publish("ip-ranges-next.json", custom)
	require.Len(t, queued(), 8, "a service has appeared")
}

// TestRangesChangeDuringASync requires another sync: Publish may have missed the policy, whose services were not
// recorded yet.
func TestRangesChangeDuringASync(t *testing.T) {
	f := newFixture(t, testobjects.ConfigMap(testobjects.Valid))
	before := f.table.Load()
	require.NoError(t, f.sync(t.Context(), key))
	require.Zero(t, f.queue.Len())
	f.updateCache(t)
	f.table.Store(testobjects.Table(t))
	_, err := f.syncWith(t.Context(), key, before)
	require.NoError(t, err)
	require.Equal(t, 1, f.queue.Len())
}

func TestSyncReportsChangedRanges(t *testing.T) {
	f := newFixture(t, testobjects.ConfigMap(testobjects.Valid), testobjects.NetworkPolicy(t, testobjects.Valid))
	next, err := awsranges.ReadFile(testobjects.Ranges + "ip-ranges-next.json")
	require.NoError(t, err)
	f.table.Store(next)
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, []string{"get networkpolicies", "update networkpolicies"}, f.verbs())
	reason, message := f.nextEvent()
	require.Equal(t, plan.ReasonRangesChanged, reason)
	require.Equal(t, "The ranges changed, CIDRs added: 1, removed: 1; NetworkPolicy egress is in force, with these numbers of CIDRs: s3=2 db=1", message)

	f = newTwoStepFixture(t, testobjects.ConfigMap(testobjects.Valid), testobjects.NetworkPolicy(t, testobjects.Valid)) // two writes
	f.table.Store(next)
	require.NoError(t, f.sync(t.Context(), key))
	reason, again := f.nextEvent()
	require.Equal(t, plan.ReasonRangesChanged, reason)
	require.Equal(t, message, again, "the first write reports the whole change")
	f.updateCache(t)
	require.NoError(t, f.sync(t.Context(), key))
	f.settle()
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, []string{"update networkpolicies"}, f.writes())
	require.Empty(t, f.event(t))
}
