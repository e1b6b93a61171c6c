package admission

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"egress-agent/pkg/awsranges"
)

func TestRangesReload(t *testing.T) {
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

	ranges, err := NewRanges(file, awsranges.CustomFiles{Files: []string{samples + "custom.json"}}, log)
	require.NoError(t, err, "the agent may not have written the file yet")
	require.False(t, ranges.Table().HasAWS())
	require.Zero(t, ranges.PublishedAt())
	require.NotEmpty(t, ranges.Table().Lookup("BILLING", "dublin"))

	put(sample("ip-ranges.json"))
	ranges.reload()
	require.Equal(t, "1700000000", ranges.Table().SyncToken())
	require.Equal(t, time.Unix(1_700_000_000, 0), ranges.PublishedAt())
	require.NotEmpty(t, ranges.Table().Lookup("BILLING", "dublin"))
	previous := ranges.Table()
	for _, broken := range []string{"", "{}", "<html>", `{"prefixes": [{"ip_prefix": "3.0.0.0/15", "service": "S3", "region": "x"}]}`} {
		put([]byte(broken))
		ranges.reload()
		require.Same(t, previous, ranges.Table(), broken)
	}
	require.NoError(t, os.Remove(file))
	ranges.reload()
	require.Same(t, previous, ranges.Table())
	put(sample("ip-ranges-next.json"))
	ranges.reload()
	require.Equal(t, "1700021600", ranges.Table().SyncToken())

	_, err = NewRanges(file, awsranges.CustomFiles{Files: []string{"none.json"}}, log)
	require.EqualError(t, err, "read the custom ranges: open none.json: no such file or directory")
	own := filepath.Join(t.TempDir(), "own.json")
	write := func(data string) { require.NoError(t, os.WriteFile(own, []byte(data), 0o600)) }
	const everything = `{"prefixes": [{"ip_prefix": "0.0.0.0/0", "service": "s3", "region": "x"}]}`
	write(everything)
	_, err = NewRanges(file, awsranges.CustomFiles{Files: []string{own}}, log)
	require.ErrorContains(t, err, "read the custom ranges: "+own+": 0.0.0.0/0 (S3, x) has the name of an AWS service")
	var logs bytes.Buffer
	trusted, err := NewRanges("", awsranges.CustomFiles{Files: []string{own}, Trusted: true}, slog.New(slog.NewTextHandler(&logs, nil)))
	require.NoError(t, err)
	require.NotEmpty(t, trusted.Table().Lookup("S3", "x"))
	require.Equal(t, 1, strings.Count(logs.String(), "has the name of an AWS service"), logs.String())
	write("")
	ranges, err = NewRanges(file, awsranges.CustomFiles{Files: []string{own}}, log)
	require.NoError(t, err, "an empty file has no services")
	previous = ranges.Table()
	write(everything)
	ranges.reload()
	require.Same(t, previous, ranges.Table(), "reload refuses the file as well")
	none, err := NewRanges("", awsranges.CustomFiles{}, log)
	require.NoError(t, err)
	require.Nil(t, none.Table())
}
