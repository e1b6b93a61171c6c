package awsranges

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"egress-agent/pkg/internal/prefixtest"
)

func TestReadFilesRefusesSuspiciousCustomRows(t *testing.T) {
	row := func(prefix, service string) string {
		return fmt.Sprintf(`{"ip_prefix": %q, "service": "%s", "region": "here"}`, prefix, service)
	}
	row6 := func(prefix, service string) string {
		return fmt.Sprintf(`{"ipv6_prefix": %q, "service": "%s", "region": "here"}`, prefix, service)
	}
	file := filepath.Join(t.TempDir(), "own.json")
	for _, test := range []struct {
		name, ipv4, ipv6 string
		want             []string
	}{
		{"private space", row("10.0.0.0/8", "OWN") + "," + row("172.16.0.0/12", "OWN"), row6("2001:db8::/32", "OWN"), nil},
		{"a service that AWS's document lacks", row("10.0.0.0/24", "sqs"), "", nil},
		{"everything as s3", row("0.0.0.0/0", "s3"), "", []string{
			"0.0.0.0/0 (S3, here) has the name of an AWS service", "0.0.0.0/0 (S3, here) is wider than /8"}},
		{"an AWS name in another spelling", row("10.1.0.0/24", "Iot-Core"), "", []string{"10.1.0.0/24 (IOT_CORE, here) has the name of an AWS service"}},
		{"an AWS name in IPv6", "", row6("fd00::/64", "s3"), []string{"fd00::/64 (S3, here) has the name of an AWS service"}},
		{"control characters", row("10.0.0.0/7", `\u001b[31mown`), "", []string{`10.0.0.0/7 (\x1b[31MOWN, here) is wider than /8`}},
		{"wide", row("10.0.0.0/7", "OWN"), "", []string{"10.0.0.0/7 (OWN, here) is wider than /8"}},
		{"wide IPv6", "", row6("2001:db8::/31", "OWN"), []string{"2001:db8::/31 (OWN, here) is wider than /32"}},
		{"wide together", row("10.0.0.0/8", "OWN") + "," + row("11.0.0.0/8", "own"), "", []string{"10.0.0.0/7, the union of several OWN rows, is wider than /8"}},
	} {
		document := fmt.Sprintf(`{"prefixes": [%s], "ipv6_prefixes": [%s]}`, test.ipv4, test.ipv6)
		require.NoError(t, os.WriteFile(file, []byte(document), 0o600))
		var notes []string
		record := func(message string) { notes = append(notes, message) }
		_, err := ReadFiles(sample, CustomFiles{Files: []string{custom, file}, OnSuspicious: record})
		require.Empty(t, notes, test.name)
		if test.want == nil {
			require.NoError(t, err, test.name)
			continue
		}
		require.Error(t, err, test.name)
		require.True(t, strings.HasPrefix(err.Error(), file+": "+test.want[0]), "%s: %s", test.name, err)
		require.True(t, strings.HasSuffix(err.Error(), "; correct the file or start with --trust-custom-ranges"), "%s: %s", test.name, err)
		require.Equal(t, len(test.want) > 1, strings.Contains(err.Error(), "(and 1 more)"), test.name)

		table, err := ReadFiles(sample, CustomFiles{Files: []string{custom, file}, Trusted: true, OnSuspicious: record})
		require.NoError(t, err, test.name)
		require.Greater(t, len(table.Rows()), 18+3)
		for i, want := range test.want {
			require.Equal(t, file+": "+want, notes[i], test.name)
		}
		require.Len(t, notes, len(test.want), test.name)
	}
}

// FuzzHoldCustom checks that rows in use stay until the hold ends, and that only the files' rows remain
// afterwards. It also checks that DecodeCustom reverses EncodeCustom.
func FuzzHoldCustom(f *testing.F) {
	f.Add([]byte{0, 24, 128, 25, 7, 32}, []byte{0, 24}, int64(3600))
	f.Add([]byte{0, 24}, []byte{}, int64(0))
	f.Fuzz(func(t *testing.T, previousData, loadedData []byte, seconds int64) {
		table := func(data []byte) *Table {
			prefixes, _ := prefixtest.FromBytes(data)
			d := &document{}
			for i, prefix := range prefixes {
				d.rows = append(d.rows, Row{Prefix: prefix.Masked(), Service: string(rune('A' + i%2)), Region: "x"})
			}
			d.rows = sortUnique(d.rows)
			return Merge(nil, newTable(d, nil))
		}
		const holdTime = time.Hour
		at := func(seconds int64) time.Time { return time.Unix(1_700_000_000+seconds%(2*3600), 0) }
		previous, loaded := table(previousData), table(loadedData)
		held := HoldCustom(previous, loaded, at(0), holdTime)
		for _, row := range append(slices.Clone(previous.rows), loaded.rows...) {
			inUse := slices.ContainsFunc(held.rows, func(r Row) bool { return compareKeys(r, row) == 0 && r.Custom })
			require.True(t, inUse, row)
		}
		data, err := EncodeCustom(held)
		require.NoError(t, err)
		if len(held.rows) > 0 {
			restarted, err := DecodeCustom(data)
			require.NoError(t, err)
			require.Equal(t, held, restarted)
			require.Same(t, restarted, HoldCustom(restarted, loaded, at(0), holdTime))
		}
		later := HoldCustom(held, held, at(seconds), holdTime)
		if at(seconds).Sub(at(0)) < holdTime {
			require.Len(t, later.rows, len(held.rows))
		} else {
			require.True(t, slices.Equal(loaded.rows, later.rows))
		}
	})
}
