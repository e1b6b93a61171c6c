package admission

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRangesReread(t *testing.T) {
	const samples = "../../testdata/ranges/"
	log := slog.New(slog.DiscardHandler)
	file := filepath.Join(t.TempDir(), "ip-ranges.json")
	put := func(data []byte) {
		require.NoError(t, os.WriteFile(file+"~", data, 0o600))
		require.NoError(t, os.Rename(file+"~", file))
	}
	sample := func(name string) []byte {
		data, err := os.ReadFile(samples + name)
		require.NoError(t, err)
		return data
	}

	ranges, err := NewRanges(file, []string{samples + "custom.json"}, log)
	require.NoError(t, err, "the agent may not have written the file yet")
	require.False(t, ranges.Table().HasAWS())
	require.Zero(t, ranges.Published())
	require.NotEmpty(t, ranges.Table().Lookup("BILLING", "dublin"))

	put(sample("ip-ranges.json"))
	ranges.reread()
	require.Equal(t, "1700000000", ranges.Table().SyncToken())
	require.Equal(t, time.Unix(1_700_000_000, 0), ranges.Published())
	require.NotEmpty(t, ranges.Table().Lookup("BILLING", "dublin"))
	before := ranges.Table()
	for _, broken := range []string{"", "{}", "<html>", `{"prefixes": [{"ip_prefix": "3.0.0.0/15", "service": "S3", "region": "x"}]}`} {
		put([]byte(broken))
		ranges.reread()
		require.Same(t, before, ranges.Table(), broken)
	}
	require.NoError(t, os.Remove(file))
	ranges.reread()
	require.Same(t, before, ranges.Table())
	put(sample("ip-ranges-next.json"))
	ranges.reread()
	require.Equal(t, "1700021600", ranges.Table().SyncToken())

	_, err = NewRanges(file, []string{"none.json"}, log)
	require.EqualError(t, err, "read the custom ranges: open none.json: no such file or directory")
	none, err := NewRanges("", nil, log)
	require.NoError(t, err)
	require.Nil(t, none.Table())
}
