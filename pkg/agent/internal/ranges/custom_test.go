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
	billing          = `{"prefixes": [{"ip_prefix": "10.20.0.0/24", "region": "dublin", "service": "BILLING"}]}`
	billingAndLedger = `{"prefixes": [{"ip_prefix": "10.20.0.0/24", "region": "dublin", "service": "BILLING"}, {"ip_prefix": "10.30.0.0/24", "region": "dublin", "service": "LEDGER"}]}`
)

// newCustomFixture returns an updater that has begun with a custom file. Its feed reads AWS's sample. If noAWS is true,
// every fetch of the feed fails.
func newCustomFixture(t *testing.T, file string, noAWS bool, objects ...runtime.Object) *fixture {
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

// begin loads, publishes and saves the ranges, as the agent does at its start.
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

// TestRemovedCustomServiceIsHeld requires a hold that outlasts a restart. After the hold the service disappears, though
// its file does not change again.
func TestRemovedCustomServiceIsHeld(t *testing.T) {
	for _, test := range []struct {
		name, newDocument string
		noAWS             bool
	}{
		{"one service of two", billing, false},
		{"without AWS's ranges", billing, true},
		{"an empty file", "", false},
		{"an empty document", `{"prefixes": []}`, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "own.json")
			write := func(document string) { require.NoError(t, os.WriteFile(file, []byte(document), 0o600)) }
			write(billingAndLedger)
			f := newCustomFixture(t, file, test.noAWS)
			require.Equal(t, "[10.30.0.0/24]", f.ledger())
			require.Equal(t, []string{"create configmaps"}, f.writes())

			write(test.newDocument)
			f.client.ClearActions()
			f.reloadCustom(t.Context(), 0)
			require.Equal(t, "[10.30.0.0/24]", f.ledger())
			require.True(t, f.table.KnowsService("LEDGER"))
			require.Equal(t, []string{"update configmaps"}, f.writes())
			f.client.ClearActions()
			f.reloadCustom(t.Context(), 0)
			require.Empty(t, f.verbs(), "nothing has changed")

			now := f.now
			f = newCustomFixture(t, file, test.noAWS, f.savedOrNone(t)...)
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
			require.Equal(t, test.newDocument == billing, stored)
			f.client.ClearActions()
			_ = f.refreshOnce(t.Context(), 0)
			require.Empty(t, f.writes())
		})
	}
}

// TestCustomFileLostWhileDown removes the custom file while no agent runs. Its rows must be held from the next start
// on.
func TestCustomFileLostWhileDown(t *testing.T) {
	file := filepath.Join(t.TempDir(), "own.json")
	require.NoError(t, os.WriteFile(file, []byte(billingAndLedger), 0o600))
	previous := newCustomFixture(t, file, false)
	f := newFixture(t, previous.saved(t))
	data, err := os.ReadFile(testobjects.Ranges + "ip-ranges.json")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(f.file, data, 0o600))
	f.begin(t) // without --custom-ranges
	require.Equal(t, "[10.30.0.0/24]", f.ledger())
	require.Equal(t, []string{"update configmaps"}, f.writes(), "the time when the hold began is saved")
	f.now = f.now.Add(24 * time.Hour)
	require.NoError(t, f.refreshOnce(t.Context(), 0))
	require.Equal(t, "[]", f.ledger())
	require.NotContains(t, f.saved(t).BinaryData, CustomKey)
}

// TestSaveSeparatesCustomRanges requires that RangesKey, which the webhook and status read, has no custom ranges.
func TestSaveSeparatesCustomRanges(t *testing.T) {
	file := filepath.Join(t.TempDir(), "own.json")
	require.NoError(t, os.WriteFile(file, []byte(billingAndLedger), 0o600))
	f := newCustomFixture(t, file, false)
	table, err := awsranges.Read(bytes.NewReader(f.saved(t).BinaryData[RangesKey]))
	require.NoError(t, err)
	require.Equal(t, f.source.Feed.Table(), table)
	require.Equal(t, "18", f.saved(t).Annotations[RowsAnnotation])

	// The agent logs a defective document, and uses the other document.
	broken := f.saved(t).DeepCopy()
	broken.BinaryData[CustomKey] = []byte("x")
	next := newCustomFixture(t, file, false, broken)
	require.Contains(t, next.logged.String(), "custom-ranges.json.gz: not an ip-ranges document")
	require.Equal(t, "[10.30.0.0/24]", next.ledger())
	require.Equal(t, f.saved(t).BinaryData, next.saved(t).BinaryData, "the defective document is overwritten")

	broken = f.saved(t).DeepCopy()
	broken.BinaryData[RangesKey] = []byte("x")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	next = newCustomFixture(t, file, false, broken)
	require.Contains(t, next.logged.String(), "ip-ranges.json.gz: not an ip-ranges document")
	require.Equal(t, "[10.30.0.0/24]", next.ledger(), "held")
}

// TestBadCustomFile requires that a file with wrong ranges prevents the start. After the start, such a file changes
// nothing.
func TestBadCustomFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "own.json")
	everything := strings.NewReplacer("10.30.0.0/24", "0.0.0.0/0", "LEDGER", "S3").Replace(billingAndLedger)
	require.NoError(t, os.WriteFile(file, []byte(everything), 0o600))
	f := newFixture(t)
	f.source.Custom.Files = []string{file}
	_, err := f.LoadInitial(t.Context())
	require.EqualError(t, err, "read the custom ranges: "+file+
		": 0.0.0.0/0 (S3, dublin) has the name of an AWS service (and 1 more); correct the file or start with --trust-custom-ranges")

	require.NoError(t, os.WriteFile(file, []byte(billingAndLedger), 0o600))
	f = newCustomFixture(t, file, false)
	previous := f.table
	require.NoError(t, os.WriteFile(file, []byte(everything), 0o600))
	f.reloadCustom(t.Context(), 0)
	require.Same(t, previous, f.table)
	require.Contains(t, f.logged.String(), "reload custom ranges failed")

	f.source.Custom.Trusted = true
	f.reloadCustom(t.Context(), 0)
	require.Len(t, f.table.Lookup("S3", "dublin"), 1)
	require.Contains(t, f.logged.String(), "0.0.0.0/0 (S3, dublin) is wider than /8")
}

// TestSaveLeavesOutTooLargeCustomRanges also requires that AWS's ranges are saved.
func TestSaveLeavesOutTooLargeCustomRanges(t *testing.T) {
	file := filepath.Join(t.TempDir(), "own.json")
	require.NoError(t, os.WriteFile(file, []byte(billingAndLedger), 0o600))
	f := newCustomFixture(t, file, false)
	require.Contains(t, f.saved(t).BinaryData, CustomKey)
	f.store.aws.data = make([]byte, maxConfigMapBytes) // as if AWS's ranges took all the space
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
