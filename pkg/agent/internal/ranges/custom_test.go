package ranges

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"egress-agent/pkg/agent/internal/testobjects"
	"egress-agent/pkg/awsranges"
)

const (
	billing = `{"prefixes": [{"ip_prefix": "10.20.0.0/24", "region": "dublin", "service": "BILLING"}]}`
	both    = `{"prefixes": [{"ip_prefix": "10.20.0.0/24", "region": "dublin", "service": "BILLING"}, {"ip_prefix": "10.30.0.0/24", "region": "dublin", "service": "LEDGER"}]}`
)

// withCustom returns an updater that has begun with a custom file. Its feed has AWS's sample, or nothing with noAWS.
func withCustom(t *testing.T, file string, noAWS bool, objects ...runtime.Object) *fixture {
	f := newFixture(t, objects...)
	f.source.Custom.Files = []string{file}
	if noAWS {
		f.source.Feed.File, f.source.Feed.URL = "", "nowhere://"
		f.source.Feed.Client = awsranges.NewClient(time.Second)
	} else {
		data, err := os.ReadFile(testobjects.Ranges + "ip-ranges.json")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(f.file, data, 0o600))
	}
	f.begin(t)
	return f
}

// begin does what the agent does at its start.
func (f *fixture) begin(t *testing.T) {
	f.client.ClearActions()
	_, err := f.LoadInitial(t.Context())
	require.NoError(t, err)
	f.saveRangesAfter(t.Context(), f.Publish(), 0)
}

// ledger returns the prefixes of the service LEDGER in the published table.
func (f *fixture) ledger() string { return fmt.Sprint(f.table.Lookup("LEDGER", "dublin")) }

// savedOrNone returns the ConfigMap of ranges, if there is one.
func (f *fixture) savedOrNone(t *testing.T) []runtime.Object {
	configMap, err := f.client.CoreV1().ConfigMaps("egress-system").Get(t.Context(), ConfigMapName, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return []runtime.Object{configMap}
}

// TestRemovedCustomServiceIsHeld also over a restart. After the hold it goes, though its file does not change again.
func TestRemovedCustomServiceIsHeld(t *testing.T) {
	for _, test := range []struct {
		name, after string
		noAWS       bool
	}{
		{"one of two", billing, false},
		{"without AWS's ranges", billing, true},
		{"an empty file", "", false},
		{"an empty document", `{"prefixes": []}`, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "own.json")
			write := func(document string) { require.NoError(t, os.WriteFile(file, []byte(document), 0o600)) }
			write(both)
			f := withCustom(t, file, test.noAWS)
			require.Equal(t, "[10.30.0.0/24]", f.ledger())
			require.Equal(t, []string{"create configmaps"}, f.writes())

			write(test.after)
			f.client.ClearActions()
			f.reloadCustom(t.Context(), 0)
			require.Equal(t, "[10.30.0.0/24]", f.ledger())
			require.True(t, f.table.KnowsService("LEDGER"))
			require.Equal(t, []string{"update configmaps"}, f.writes())
			f.client.ClearActions()
			f.reloadCustom(t.Context(), 0)
			require.Empty(t, f.verbs(), "nothing has changed")

			now := f.now
			f = withCustom(t, file, test.noAWS, f.savedOrNone(t)...)
			require.Empty(t, f.writes(), "another process finds the ranges saved")
			f.now = now.Add(23 * time.Hour)
			_ = f.refreshOnce(t.Context(), 0)
			require.Equal(t, "[10.30.0.0/24]", f.ledger())

			f.now = now.Add(24 * time.Hour)
			f.client.ClearActions()
			_ = f.refreshOnce(t.Context(), 0)
			require.Equal(t, "[]", f.ledger())
			require.False(t, f.table.KnowsService("LEDGER"))
			require.Equal(t, []string{"update configmaps"}, f.writes())
			_, stored := f.saved(t).BinaryData[CustomKey]
			require.Equal(t, test.after == billing, stored)
			f.client.ClearActions()
			_ = f.refreshOnce(t.Context(), 0)
			require.Empty(t, f.writes())
		})
	}
}

// TestCustomFileLostWhileDown requires that rows, or a whole file, that disappear while no agent runs are held from the
// next start on.
func TestCustomFileLostWhileDown(t *testing.T) {
	file := filepath.Join(t.TempDir(), "own.json")
	require.NoError(t, os.WriteFile(file, []byte(both), 0o600))
	before := withCustom(t, file, false)
	f := newFixture(t, before.saved(t))
	data, err := os.ReadFile(testobjects.Ranges + "ip-ranges.json")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(f.file, data, 0o600))
	f.begin(t) // without --custom-ranges
	require.Equal(t, "[10.30.0.0/24]", f.ledger())
	require.Equal(t, []string{"update configmaps"}, f.writes(), "it saves when the hold began")
	f.now = f.now.Add(24 * time.Hour)
	require.NoError(t, f.refreshOnce(t.Context(), 0))
	require.Equal(t, "[]", f.ledger())
	require.NotContains(t, f.saved(t).BinaryData, CustomKey)
}

// TestSaveSeparatesCustomRanges requires that the webhook and status read the same ranges with and without custom ones.
func TestSaveSeparatesCustomRanges(t *testing.T) {
	file := filepath.Join(t.TempDir(), "own.json")
	require.NoError(t, os.WriteFile(file, []byte(both), 0o600))
	f := withCustom(t, file, false)
	table, err := awsranges.Read(bytes.NewReader(f.saved(t).BinaryData[RangesKey]))
	require.NoError(t, err)
	require.Equal(t, f.source.Feed.Table(), table)
	require.Equal(t, "18", f.saved(t).Annotations[RowsAnnotation])

	// A defective document is logged, and the other one is used.
	broken := f.saved(t).DeepCopy()
	broken.BinaryData[CustomKey] = []byte("x")
	next := withCustom(t, file, false, broken)
	require.Contains(t, next.logged.String(), "custom-ranges.json.gz: not an ip-ranges document")
	require.Equal(t, "[10.30.0.0/24]", next.ledger())
	require.Equal(t, f.saved(t).BinaryData, next.saved(t).BinaryData, "repaired")

	broken = f.saved(t).DeepCopy()
	broken.BinaryData[RangesKey] = []byte("x")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	next = withCustom(t, file, false, broken)
	require.Contains(t, next.logged.String(), "ip-ranges.json.gz: not an ip-ranges document")
	require.Equal(t, "[10.30.0.0/24]", next.ledger(), "held")
}

// TestBadCustomFile fails the start. Later it changes nothing.
func TestBadCustomFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "own.json")
	everything := strings.NewReplacer("10.30.0.0/24", "0.0.0.0/0", "LEDGER", "S3").Replace(both)
	require.NoError(t, os.WriteFile(file, []byte(everything), 0o600))
	f := newFixture(t)
	f.source.Custom.Files = []string{file}
	_, err := f.LoadInitial(t.Context())
	require.EqualError(t, err, "read the custom ranges: "+file+
		": 0.0.0.0/0 (S3, dublin) has the name of an AWS service (and 1 more); correct the file or start with --trust-custom-ranges")

	require.NoError(t, os.WriteFile(file, []byte(both), 0o600))
	f = withCustom(t, file, false)
	before := f.table
	require.NoError(t, os.WriteFile(file, []byte(everything), 0o600))
	f.reloadCustom(t.Context(), 0)
	require.Same(t, before, f.table)
	require.Contains(t, f.logged.String(), "reload custom ranges failed")

	f.source.Custom.Trusted = true
	f.reloadCustom(t.Context(), 0)
	require.Len(t, f.table.Lookup("S3", "dublin"), 1)
	require.Contains(t, f.logged.String(), "0.0.0.0/0 (S3, dublin) is wider than /8")
}

// TestSaveLeavesOutTooLargeCustomRanges still saves AWS's.
func TestSaveLeavesOutTooLargeCustomRanges(t *testing.T) {
	file := filepath.Join(t.TempDir(), "own.json")
	require.NoError(t, os.WriteFile(file, []byte(both), 0o600))
	f := withCustom(t, file, false)
	require.Contains(t, f.saved(t).BinaryData, CustomKey)
	f.store.aws.data = make([]byte, maxConfigMapBytes) // as if AWS's ranges took all the room
	f.client.ClearActions()
	require.NoError(t, f.refreshOnce(t.Context(), 0))
	require.Equal(t, []string{"update configmaps"}, f.writes())
	require.Contains(t, f.logged.String(), "custom ranges too large to save")
	require.Len(t, f.saved(t).BinaryData[RangesKey], maxConfigMapBytes)
	require.NotContains(t, f.saved(t).BinaryData, CustomKey)
	f.client.ClearActions()
	require.NoError(t, f.refreshOnce(t.Context(), 0))
	require.Empty(t, f.writes())
}
