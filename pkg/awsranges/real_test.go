package awsranges

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// realData is the environment variable with the folder of AWS's real document of 2026-08-22, ip-ranges.json.
// The repository has no copy of the document.
const realData = "IP_RANGES_DATA"

// readReal returns the real document, and skips the test if the variable is not set.
func readReal(tb testing.TB) []byte {
	dir := os.Getenv(realData)
	if dir == "" {
		tb.Skipf("%s is not set: it names a folder with AWS's ip-ranges.json of 2026-08-22", realData)
	}
	data, err := os.ReadFile(filepath.Join(dir, "ip-ranges.json"))
	require.NoError(tb, err)
	return data
}

func TestParseRealDocument(t *testing.T) {
	table, err := Parse(readReal(t))
	require.NoError(t, err)
	require.Len(t, table.Rows(), 10668+6160)
	require.Equal(t, "1787411825", table.SyncToken())
	for _, test := range []struct {
		service, region string
		ipv4, ipv6      int
	}{
		{"S3", "us-east-1", 15, 5},
		{"S3", "", 175, 175},
		{"EC2", "", 726, -1},
		{"EC2", "us-east-1", 232, -1},
		{"DYNAMODB", "us-east-1", 5, 0},
		{"AMAZON", "us-east-1", 509, -1},
		{"AMAZON", "", 1753, 2107},
		{"IOT_CORE", "", 0, -1},
	} {
		ipv4, ipv6 := 0, 0
		for _, prefix := range table.Lookup(test.service, test.region) {
			if prefix.Addr().Is4() {
				ipv4++
			} else {
				ipv6++
			}
		}
		t.Log(test.service, test.region, ipv4, ipv6)
		require.Equal(t, test.ipv4, ipv4, "%s %s", test.service, test.region)
	}
	for _, service := range table.Services() {
		_, known := LookupService(service)
		require.True(t, known, "%s is not in the catalogue", service)
		for _, region := range table.Regions(service) {
			require.Contains(t, regions, region)
		}
	}
	require.Len(t, table.Services(), len(services), "the catalogue has a service that AWS's document lacks")
	require.Len(t, regions, 43)
}

// TestFeedAcceptsRealDocuments feeds a month of AWS's documents in their order. The feed must accept all.
func TestFeedAcceptsRealDocuments(t *testing.T) {
	readReal(t) // skips without data
	files, err := filepath.Glob(filepath.Join(os.Getenv(realData), "history", "*.json"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	slices.Sort(files) // by sync token; all have equal length
	f := &Feed{RemovalHold: 24 * time.Hour}
	changeCount := 0
	for i, file := range files {
		before := f.Table()
		f.File = file
		seconds, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(file), ".json"), 10, 64)
		require.NoError(t, err)
		table, err := fetchAt(t, f, time.Unix(seconds, 0))
		require.NoError(t, err, file)
		if before != nil {
			changeCount += len(table.Diff(before).ServiceRegions)
		}
		if i%20 != 0 {
			continue
		}
		restarted, err := Parse(plainJSON(t, table))
		require.NoError(t, err)
		require.True(t, slices.Equal(table.Rows(), restarted.Rows()))
		require.Empty(t, table.Diff(restarted).ServiceRegions)
	}
	t.Logf("%d documents, %d changes of a service-region", len(files), changeCount)

	first, err := ReadFile(files[0])
	require.NoError(t, err)
	require.NoError(t, validateSuccessor(first, coveredPrefixes(first), &f.Table().document, f.Now()), "a document a month later")
}

// BenchmarkParse reports the time of Parse relative to a floor: encoding/json decodes the same bytes into the
// same row structs. It measures both in turn.
func BenchmarkParse(b *testing.B) {
	data := readReal(b)
	var floor, total int64
	for b.Loop() {
		floor += nanoseconds(func() {
			var d struct {
				IPv4 []jsonRow `json:"prefixes"`
				IPv6 []jsonRow `json:"ipv6_prefixes"`
			}
			require.NoError(b, json.Unmarshal(data, &d))
		})
		total += nanoseconds(func() {
			_, err := Parse(data)
			require.NoError(b, err)
		})
	}
	b.ReportMetric(float64(floor)/float64(b.N)/1e6, "ms-floor")
	b.ReportMetric(float64(total)/float64(b.N)/1e6, "ms-parse")
	b.ReportMetric(float64(total)/float64(floor), "x-floor(at-most-1.5)")
}

func nanoseconds(f func()) int64 {
	start := time.Now()
	f()
	return time.Since(start).Nanoseconds()
}
