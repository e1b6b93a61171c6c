package awsranges

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"egress-agent/pkg/internal/prefixtest"
)

const (
	sample = "../../testdata/ranges/ip-ranges.json"
	custom = "../../testdata/ranges/custom.json"
)

func TestLookup(t *testing.T) {
	table, err := ReadFile(sample)
	require.NoError(t, err)
	require.Equal(t, "1700000000", table.SyncToken())
	require.Equal(t, "2023-11-14-22-13-20", table.CreateDate())
	require.Equal(t, []string{"AMAZON", "CLOUDFRONT", "DYNAMODB", "EC2", "IOT_CORE", "S3"}, table.Services())
	require.Equal(t, []string{"us-east-1", "us-west-2"}, table.Regions("S3"))
	require.Equal(t, prefixtest.Parse("198.18.0.0/24", "198.18.4.0/24", "2001:2:0:1000::/63"), table.Lookup("S3", "us-east-1"))
	require.Equal(t, prefixtest.Parse("198.18.0.0/24", "198.18.4.0/24", "198.18.8.0/24", "2001:2:0:1000::/63", "2001:2:0:2000::/64"), table.Lookup("S3", ""))
	require.Nil(t, table.Lookup("S3", "mars-1"))
	require.Nil(t, table.Lookup("s3", "us-east-1"), "Lookup takes canonical names only")
	require.Zero(t, testing.AllocsPerRun(100, func() { table.Lookup("S3", "us-east-1") }))
}

func TestMergeAddsCustomServices(t *testing.T) {
	aws, err := ReadFile(sample)
	require.NoError(t, err)
	own, err := ReadFile(custom)
	require.NoError(t, err)
	merged := Merge(aws, own, nil)
	require.Equal(t, aws.SyncToken(), merged.SyncToken())
	require.Equal(t, prefixtest.Parse("10.20.0.0/23"), merged.Lookup("BILLING", "frankfurt"))
	require.Equal(t, aws.Lookup("S3", ""), merged.Lookup("S3", ""))
	require.True(t, merged.KnowsService("BILLING"))
	require.True(t, merged.KnowsRegion("dublin"))
	require.Equal(t, "billing", merged.NearestService("biling"))
	require.Nil(t, aws.Lookup("BILLING", ""), "a table is immutable")
	require.Same(t, aws, Merge(aws))
	require.Nil(t, Merge(nil))
	require.False(t, Merge(nil, own).HasAWS())
	withToken, err := Parse([]byte(`{"syncToken": "1", "prefixes": [{"ip_prefix": "10.0.0.0/8", "service": "OWN", "region": "x"}]}`))
	require.NoError(t, err)
	require.False(t, Merge(nil, withToken).HasAWS(), "a custom document does not replace AWS's")
}

func TestParseRefuses(t *testing.T) {
	for _, test := range []struct{ name, document, want string }{
		{"empty file", ``, "not an ip-ranges document: unexpected EOF"},
		{"HTML", `<html>`, "not an ip-ranges document: invalid character '<' looking for beginning of value"},
		{"truncated", `{"syncToken": "1", "prefixes": [{"ip_prefix": "10.0.0.0/8",`, "not an ip-ranges document: unexpected EOF"},
		{"nested", strings.Repeat("[", 20000), "not an ip-ranges document: found [, expected {"},
		{"empty object", `{}`, `not an ip-ranges document: no rows in "prefixes" or "ipv6_prefixes"`},
		{"null", `null`, "not an ip-ranges document: found null, expected {"},
		{"two documents", `{} {}`, "not an ip-ranges document: extra data after the document"},
		{"deeply nested", `{"x": ` + strings.Repeat("[", 20000), "not an ip-ranges document: invalid character '[' exceeded max depth"},
		{"negative removed", `{"prefixes": [{"ip_prefix": "10.0.0.0/8", "service": "S3", "region": "x", "removed": -1}]}`, "prefixes[0]: removed is not a time in epoch seconds"},
		{"object for a list", `{"prefixes": {}}`, "not an ip-ranges document: found {, expected ["},
		{"null row", `{"prefixes": [null]}`, "prefixes[0]: service is missing"},
		{"no region", `{"prefixes": [{"ip_prefix": "10.0.0.0/8", "service": "S3"}]}`, "prefixes[0]: region is missing"},
		{"no prefix", `{"prefixes": [{"service": "S3", "region": "x"}]}`, `prefixes[0]: netip.ParsePrefix(""): no '/'`},
		{"bad prefix", `{"prefixes": [{"ip_prefix": "10.0.0.0/33", "service": "S3", "region": "x"}]}`, `prefixes[0]: netip.ParsePrefix("10.0.0.0/33"): prefix length out of range`},
		{"IPv6 among IPv4", `{"prefixes": [{"ip_prefix": "::/0", "service": "S3", "region": "x"}]}`, "prefixes[0]: ::/0 has the wrong address family"},
		{"IPv4 among IPv6", `{"ipv6_prefixes": [{"ipv6_prefix": "10.0.0.0/8", "service": "S3", "region": "x"}]}`, "ipv6_prefixes[0]: 10.0.0.0/8 has the wrong address family"},
		{"IPv4-mapped", `{"ipv6_prefixes": [{"ipv6_prefix": "::ffff:10.0.0.0/104", "service": "S3", "region": "x"}]}`, "ipv6_prefixes[0]: ::ffff:10.0.0.0/104 has the wrong address family"},
	} {
		t.Run(test.name, func(t *testing.T) {
			table, err := Parse([]byte(test.document))
			require.EqualError(t, err, test.want)
			require.Nil(t, table)
		})
	}
}

func TestReadFiles(t *testing.T) {
	plain, err := os.ReadFile(sample)
	require.NoError(t, err)
	var zipped bytes.Buffer
	writer := gzip.NewWriter(&zipped)
	_, err = writer.Write(plain)
	require.NoError(t, err)
	require.NoError(t, writer.Close())
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, data, 0o600))
		return path
	}
	table, err := ReadFiles(write("ranges.json.gz", zipped.Bytes()), CustomFiles{Files: []string{custom}})
	require.NoError(t, err)
	require.Len(t, table.Rows(), 18+3)

	table, err = ReadFiles("", CustomFiles{})
	require.NoError(t, err)
	require.Nil(t, table)
	_, err = ReadFiles(custom, CustomFiles{})
	require.EqualError(t, err, custom+": no syncToken, so this is not AWS's document; pass an organisation's own document with --custom-ranges")
	_, err = ReadFiles(filepath.Join(dir, "none"), CustomFiles{})
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = ReadFiles(write("cut.gz", zipped.Bytes()[:100]), CustomFiles{})
	require.ErrorContains(t, err, "cut.gz: not an ip-ranges document: unexpected EOF")

	var bomb bytes.Buffer
	writer = gzip.NewWriter(&bomb)
	_, err = writer.Write(bytes.Repeat([]byte{' '}, maxBytes+1))
	require.NoError(t, err)
	require.NoError(t, writer.Close())
	_, err = ReadFiles(write("bomb.gz", bomb.Bytes()), CustomFiles{})
	require.ErrorContains(t, err, "bomb.gz: not an ip-ranges document: the document is larger than 16 MiB")
}

// TestCustomFileFormat checks that a typo cannot empty a custom file, and that an empty file has no services.
func TestCustomFileFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "own.json")
	for _, empty := range []string{"", " \n", "{}", `{"prefixes": []}`, `{"syncToken": "1", "prefixes": [], "ipv6_prefixes": []}`} {
		require.NoError(t, os.WriteFile(path, []byte(empty), 0o600))
		table, err := ReadFiles(sample, CustomFiles{Files: []string{path, custom}})
		require.NoError(t, err, empty)
		require.Equal(t, 18+3, len(table.Rows()), empty)
		table, err = ReadFiles("", CustomFiles{Files: []string{path}})
		require.NoError(t, err, empty)
		require.Empty(t, table.Services(), empty)
	}
	const row = `"ip_prefix": "10.0.0.0/16", "service": "OWN", "region": "x"`
	for _, test := range []struct{ document, want string }{
		{"]", "not an ip-ranges document: invalid character ']' looking for beginning of value"},
		{"null", "not an ip-ranges document: found null, expected {"},
		{"{", "not an ip-ranges document: unexpected EOF"},
		{`{"prefix": [{` + row + `}]}`, `not an ip-ranges document: unknown field "prefix"; the fields are syncToken, createDate, prefixes and ipv6_prefixes`},
		{`{"prefixes": [{` + row + `, "removed": 5}]}`, `prefixes[0]: unknown field "removed"; a row has ip_prefix or ipv6_prefix, region, service and network_border_group`},
	} {
		require.NoError(t, os.WriteFile(path, []byte(test.document), 0o600))
		_, err := ReadFiles("", CustomFiles{Files: []string{path}})
		require.EqualError(t, err, path+": "+test.want)
	}
	_, err := Parse([]byte(`{"version": 2, "prefixes": [{` + row + `, "removed": 5, "note": "x"}]}`))
	require.NoError(t, err, "other versions of the agent can read the stored document")
}

func TestCatalogue(t *testing.T) {
	var none *Table
	require.True(t, none.KnowsService("S3"))
	require.True(t, none.KnowsRegion("GLOBAL"))
	require.False(t, none.KnowsRegion(""))
	require.False(t, none.HasAWS())
	require.Equal(t, "ROUTE53_HEALTHCHECKS", Canonical("route53-HealthChecks"))
	require.Equal(t, "dynamodb", none.NearestService("dynamo-db"))
	for _, s := range services {
		got, ok := LookupService(s.Name)
		require.True(t, ok, "%s not found: the list must be sorted", s.Name)
		require.Equal(t, s, got)
		require.Equal(t, s.Name, Canonical(s.Name))
	}
}

// FuzzParse checks that an error means no table, and that Parse of the result of Encode returns an equal table. It also
// checks that the strict formats accept no held rows and parse to the same table.
func FuzzParse(f *testing.F) {
	data, err := os.ReadFile(sample)
	require.NoError(f, err)
	f.Add(data)
	f.Add([]byte(`{"x": 1, "prefixes": [{"ip_prefix": "10.0.0.0/8", "service": "S3", "region": "x", "removed": 1}]}`))
	f.Add([]byte(`{"ipv6_prefixes": [{"ipv6_prefix": "::/0", "service": "a-b", "region": "x"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		table, err := Parse(data)
		for _, f := range []format{sourceFormat, customFormat} {
			if d, strictErr := parse(bytes.NewReader(data), f); strictErr == nil && len(d.rows) > 0 {
				require.NoError(t, err)
				require.Equal(t, table, newTable(d, nil))
				require.Nil(t, table.Held())
			}
		}
		if err != nil {
			require.Nil(t, table)
			return
		}
		again, err := Parse(plainJSON(t, table))
		require.NoError(t, err)
		require.Equal(t, table, again)
		for _, service := range table.Services() {
			for _, region := range append([]string{""}, table.Regions(service)...) {
				require.NotEmpty(t, table.Lookup(service, region))
			}
		}
	})
}

// BenchmarkLookup reports that Lookup allocates nothing.
func BenchmarkLookup(b *testing.B) {
	table, err := Parse(readReal(b))
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		table.Lookup("S3", "us-east-1")
	}
}
