package agent

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

	"egress-agent/pkg/awsranges"
)

const (
	billing = `{"prefixes": [{"ip_prefix": "10.20.0.0/24", "region": "dublin", "service": "BILLING"}]}`
	both    = `{"prefixes": [{"ip_prefix": "10.20.0.0/24", "region": "dublin", "service": "BILLING"}, {"ip_prefix": "10.30.0.0/24", "region": "dublin", "service": "LEDGER"}]}`
)

// withCustom is an agent that began with a custom file. Its feed has AWS's sample, unless that is not there.
func withCustom(t *testing.T, file string, noAWS bool, objects ...runtime.Object) *feeding {
	f := newFeeding(t, objects...)
	f.options.Source.Custom.Files = []string{file}
	if noAWS {
		f.options.Source.Feed.File, f.options.Source.Feed.URL = "", "nowhere://"
		f.options.Source.Feed.Client = awsranges.NewClient(time.Second)
	} else {
		data, err := os.ReadFile("../../testdata/ranges/ip-ranges.json")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(f.file, data, 0o600))
	}
	f.begin(t)
	return f
}

// begin does what the agent's start does, and a refresh after it.
func (f *feeding) begin(t *testing.T) {
	f.client.ClearActions()
	_, err := f.loadInitial(t.Context())
	require.NoError(t, err)
	f.saveRangesAfter(t.Context(), f.publish(f.options.Source.Feed.Table()), 0)
}

// ledger is what is in use of a service that a file loses.
func (f *feeding) ledger() string { return fmt.Sprint(f.table.Load().Lookup("LEDGER", "dublin")) }

func (f *feeding) keptOrNone(t *testing.T) []runtime.Object {
	configMap, err := f.client.CoreV1().ConfigMaps("egress-system").Get(t.Context(), RangesName, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return []runtime.Object{configMap}
}

// TestWithdrawnCustomServiceIsHeld, over a restart, and then goes though its file does not change again.
func TestWithdrawnCustomServiceIsHeld(t *testing.T) {
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
			require.True(t, f.table.Load().KnowsService("LEDGER"))
			require.Equal(t, []string{"update configmaps"}, f.writes())
			f.client.ClearActions()
			f.reloadCustom(t.Context(), 0)
			require.Empty(t, f.verbs(), "nothing is new")

			now := f.now
			f = withCustom(t, file, test.noAWS, f.keptOrNone(t)...)
			require.Empty(t, f.writes(), "another process finds what it would keep")
			f.now = now.Add(23 * time.Hour)
			_ = f.refreshOnce(t.Context(), 0)
			require.Equal(t, "[10.30.0.0/24]", f.ledger())

			f.now = now.Add(24 * time.Hour)
			f.client.ClearActions()
			_ = f.refreshOnce(t.Context(), 0)
			require.Equal(t, "[]", f.ledger())
			require.False(t, f.table.Load().KnowsService("LEDGER"))
			require.Equal(t, []string{"update configmaps"}, f.writes())
			_, stored := f.kept(t).BinaryData[CustomKey]
			require.Equal(t, test.after == billing, stored)
			f.client.ClearActions()
			_ = f.refreshOnce(t.Context(), 0)
			require.Empty(t, f.writes())
		})
	}
}

// TestCustomFileLostWhileDown: what the file lost, or the file itself, while no agent ran is held from its
// next start on.
func TestCustomFileLostWhileDown(t *testing.T) {
	file := filepath.Join(t.TempDir(), "own.json")
	require.NoError(t, os.WriteFile(file, []byte(both), 0o600))
	before := withCustom(t, file, false)
	f := newFeeding(t, before.kept(t))
	data, err := os.ReadFile("../../testdata/ranges/ip-ranges.json")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(f.file, data, 0o600))
	f.begin(t) // without --custom-ranges
	require.Equal(t, "[10.30.0.0/24]", f.ledger())
	require.Equal(t, []string{"update configmaps"}, f.writes(), "since when is kept")
	f.now = f.now.Add(24 * time.Hour)
	require.NoError(t, f.refreshOnce(t.Context(), 0))
	require.Equal(t, "[]", f.ledger())
	require.NotContains(t, f.kept(t).BinaryData, CustomKey)
}

// TestCustomRangesBesideAWS: what the webhook and status read is as without them.
func TestCustomRangesBesideAWS(t *testing.T) {
	file := filepath.Join(t.TempDir(), "own.json")
	require.NoError(t, os.WriteFile(file, []byte(both), 0o600))
	f := withCustom(t, file, false)
	table, err := awsranges.Read(bytes.NewReader(f.kept(t).BinaryData[RangesKey]))
	require.NoError(t, err)
	require.Equal(t, f.options.Source.Feed.Table(), table)
	require.Equal(t, "18", f.kept(t).Annotations[RowsAnnotation])

	// What cannot be read is told, and is no reason to do without the other.
	broken := f.kept(t).DeepCopy()
	broken.BinaryData[CustomKey] = []byte("x")
	next := withCustom(t, file, false, broken)
	require.Contains(t, next.log.String(), "custom-ranges.json.gz: not an ip-ranges document")
	require.Equal(t, "[10.30.0.0/24]", next.ledger())
	require.Equal(t, f.kept(t).BinaryData, next.kept(t).BinaryData, "repaired")

	broken = f.kept(t).DeepCopy()
	broken.BinaryData[RangesKey] = []byte("x")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	next = withCustom(t, file, false, broken)
	require.Contains(t, next.log.String(), "ip-ranges.json.gz: not an ip-ranges document")
	require.Equal(t, "[10.30.0.0/24]", next.ledger(), "held")
}

// TestBadCustomFile ends the start, and changes nothing later.
func TestBadCustomFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "own.json")
	everything := strings.NewReplacer("10.30.0.0/24", "0.0.0.0/0", "LEDGER", "S3").Replace(both)
	require.NoError(t, os.WriteFile(file, []byte(everything), 0o600))
	f := newFeeding(t)
	f.options.Source.Custom.Files = []string{file}
	_, err := f.loadInitial(t.Context())
	require.EqualError(t, err, "read the custom ranges: "+file+
		": 0.0.0.0/0 (S3, dublin) has the name of an AWS service (and 1 more); correct the file or start with --trust-custom-ranges")

	require.NoError(t, os.WriteFile(file, []byte(both), 0o600))
	f = withCustom(t, file, false)
	before := f.table.Load()
	require.NoError(t, os.WriteFile(file, []byte(everything), 0o600))
	f.reloadCustom(t.Context(), 0)
	require.Same(t, before, f.table.Load())
	require.Contains(t, f.log.String(), "custom ranges not reread: they stay as they were")

	f.options.Source.Custom.Trusted = true
	f.reloadCustom(t.Context(), 0)
	require.Len(t, f.table.Load().Lookup("S3", "dublin"), 1)
	require.Contains(t, f.log.String(), "0.0.0.0/0 (S3, dublin) is wider than /8")
}

// TestCustomRangesTooLarge: AWS's are kept all the same.
func TestCustomRangesTooLarge(t *testing.T) {
	file := filepath.Join(t.TempDir(), "own.json")
	require.NoError(t, os.WriteFile(file, []byte(both), 0o600))
	f := withCustom(t, file, false)
	require.Contains(t, f.kept(t).BinaryData, CustomKey)
	f.store.aws.data = make([]byte, largestConfigMap) // as if AWS's had grown to that
	f.client.ClearActions()
	require.NoError(t, f.refreshOnce(t.Context(), 0))
	require.Equal(t, []string{"update configmaps"}, f.writes())
	require.Contains(t, f.log.String(), "custom ranges not kept in the cluster")
	require.Len(t, f.kept(t).BinaryData[RangesKey], largestConfigMap)
	require.NotContains(t, f.kept(t).BinaryData, CustomKey)
	f.client.ClearActions()
	require.NoError(t, f.refreshOnce(t.Context(), 0))
	require.Empty(t, f.writes())
}
