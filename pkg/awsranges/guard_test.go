package awsranges

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"egress-agent/pkg/internal/prefixes"
	"egress-agent/pkg/internal/prefixtest"
)

func TestValidateDocument(t *testing.T) {
	row := func(prefix string) string {
		family, field := "prefixes", "ip_prefix"
		if strings.Contains(prefix, ":") {
			family, field = "ipv6_prefixes", "ipv6_prefix"
		}
		return fmt.Sprintf(`{"syncToken": "1", "%s": [{"%s": "%s", "region": "us-east-1", "service": "S3"}]}`, family, field, prefix)
	}
	for _, good := range []string{"3.0.0.0/10", "198.18.0.0/15", "2600::/24", "11.0.0.0/10", "172.32.0.0/16", "223.192.0.0/10"} {
		require.NoError(t, validateDocument(nil, &mustParse(t, row(good)).document), good)
	}
	for _, test := range []struct{ document, want string }{
		{row("0.0.0.0/0"), "0.0.0.0/0 (S3, us-east-1) is wider than /10"},
		{row("3.0.0.0/8"), "3.0.0.0/8 (S3, us-east-1) is wider than /10"},
		{row("3.0.0.0/9"), "3.0.0.0/9 (S3, us-east-1) is wider than /10"},
		{row("::/0"), "::/0 (S3, us-east-1) is wider than /24"},
		{row("2600::/23"), "2600::/23 (S3, us-east-1) is wider than /24"},
		{row("10.0.0.0/10"), "10.0.0.0/10 (S3, us-east-1) is in reserved space, 10.0.0.0/8"},
		{row("10.200.1.0/24"), "10.200.1.0/24 (S3, us-east-1) is in reserved space, 10.0.0.0/8"},
		{row("172.0.0.0/10"), "172.0.0.0/10 (S3, us-east-1) is in reserved space, 172.16.0.0/12"},
		{row("192.168.1.1/32"), "192.168.1.1/32 (S3, us-east-1) is in reserved space, 192.168.0.0/16"},
		{row("127.0.0.1/32"), "127.0.0.1/32 (S3, us-east-1) is in reserved space, 127.0.0.0/8"},
		{row("169.254.169.254/32"), "169.254.169.254/32 (S3, us-east-1) is in reserved space, 169.254.0.0/16"},
		{row("203.0.113.0/25"), "203.0.113.0/25 (S3, us-east-1) is in reserved space, 203.0.113.0/24"},
		{row("::1/128"), "::1/128 (S3, us-east-1) is in reserved space, ::/8"},
		{row("2001:db8:1::/48"), "2001:db8:1::/48 (S3, us-east-1) is in reserved space, 2001:db8::/32"},
		{row("fd00::/24"), "fd00::/24 (S3, us-east-1) is in reserved space, fc00::/7"},
		{row("fe80::/64"), "fe80::/64 (S3, us-east-1) is in reserved space, fe80::/10"},
		{`{"syncToken": "soon", "prefixes": [{"ip_prefix": "3.0.0.0/15", "region": "x", "service": "S3"}]}`, `syncToken "soon" is not a time in epoch seconds`},
		{`{"syncToken": "-1", "prefixes": [{"ip_prefix": "3.0.0.0/15", "region": "x", "service": "S3"}]}`, `syncToken "-1" is not a time in epoch seconds`},
		{`{"prefixes": [{"ip_prefix": "3.0.0.0/15", "region": "x", "service": "S3"}]}`, `syncToken "" is not a time in epoch seconds`},
	} {
		require.EqualError(t, validateDocument(nil, &mustParse(t, test.document).document), test.want)
	}
}

func TestValidateSuccessor(t *testing.T) {
	accepted := mustParse(t, documentWith(100, evenNumbers(20)...))
	for _, test := range []struct {
		name, document, want string
	}{
		{"the same document", documentWith(100, evenNumbers(20)...), ""},
		{"15 % more", documentWith(200, evenNumbers(23)...), ""},
		{"more in a day", documentWith(100+24*60*60, evenNumbers(23)...), ""},
		{"over 15 % more", documentWith(200, evenNumbers(24)...), "the document opens 20.00 % more IPv4 addresses; the maximum is 15.00 %"},
		{"over 15 % more and as many removed", documentWith(200, append(evenNumbers(24)[4:], 0)...), "the document opens 20.00 % more IPv4 addresses; the maximum is 15.00 %"},
		{"over 15 % more in five days", documentWith(100+5*24*60*60, evenNumbers(24)...), ""},
		{"the same addresses in other rows", strings.Replace(documentWith(200, evenNumbers(20)...), "[", `[{"ip_prefix": "198.18.0.0/25", "region": "x", "service": "EC2"}, `, 1), ""},
		{"85 %", documentWith(200, evenNumbers(17)...), ""},
		{"80 %", documentWith(200, evenNumbers(16)...), "the document has only 16 of the accepted 20 IPv4 rows; the minimum is 85 %"},
		{"as many other rows", documentWith(200, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 33, 35, 37, 39), "the document has only 0 of the accepted 20 IPv4 rows; the minimum is 85 %; the document opens 100.00 % more IPv4 addresses; the maximum is 15.00 %"},
		{"older", documentWith(99, evenNumbers(20)...), "syncToken 99 is older than the accepted 100"},
	} {
		err := validateSuccessor(accepted, coveredPrefixes(accepted), &mustParse(t, test.document).document, time.Unix(100, 0))
		if test.want == "" {
			require.NoError(t, err, test.name)
		} else {
			require.EqualError(t, err, test.want, test.name)
		}
	}
	both, err := ReadFile(sample)
	require.NoError(t, err)
	onlyIPv4 := *both
	onlyIPv4.rows = slices.DeleteFunc(slices.Clone(both.rows), func(r Row) bool { return r.Prefix.Addr().Is6() })
	require.EqualError(t, validateSuccessor(both, coveredPrefixes(both), &onlyIPv4.document, time.Unix(1_700_000_000, 0)), "the document has only 0 of the accepted 5 IPv6 rows; the minimum is 85 %")
	require.EqualError(t, validateSuccessor(&onlyIPv4, coveredPrefixes(&onlyIPv4), &both.document, time.Unix(1_700_000_000, 0)), "the document opens IPv6 addresses; the accepted document has no IPv6 addresses")
	require.NoError(t, validateSuccessor(nil, nil, &both.document, time.Unix(1_700_000_000, 0)))
	held := applyHolds(accepted, &mustParse(t, documentWith(200, evenNumbers(17)...)).document, time.Unix(200, 0), time.Hour)
	require.NoError(t, validateSuccessor(held, coveredPrefixes(held), &mustParse(t, documentWith(300, evenNumbers(15)...)).document, time.Unix(300, 0)), "a held row does not count as lost")
	require.NoError(t, validateSuccessor(held, coveredPrefixes(held), &mustParse(t, documentWith(300, evenNumbers(20)...)).document, time.Unix(300, 0)), "a held row that returns does not count as opened")
}

// TestFeedRefusesAdditions covers additions that AWS cannot have intended, and documents from the future.
func TestFeedRefusesAdditions(t *testing.T) {
	const day = 24 * 60 * 60
	now := time.Unix(1_700_000_000, 0)
	var accepted, wide, spread []string // 4 million accepted addresses, and the additions
	for i := range 64 {
		accepted = append(accepted, fmt.Sprintf("3.%d.0.0/16", i))
	}
	for i := range 215 {
		wide = append(wide, fmt.Sprintf("%d.0.0.0/8", i+11))
	}
	for i := range 26 {
		spread = append(spread, fmt.Sprintf("13.%d.0.0/16", 2*i))
	}
	document := func(token int64, prefixes ...string) string {
		var rows []string
		for _, prefix := range append(slices.Clone(accepted), prefixes...) {
			rows = append(rows, fmt.Sprintf(`{"ip_prefix": %q, "region": "us-east-1", "service": "EC2", "network_border_group": "us-east-1"}`, prefix))
		}
		return fmt.Sprintf(`{"syncToken": "%d", "createDate": "x", "prefixes": [%s], "ipv6_prefixes": []}`, token, strings.Join(rows, ","))
	}
	token := now.Unix()
	for _, test := range []struct{ name, document, want string }{
		{"215 rows of /8", document(token, wide...), "11.0.0.0/8 (EC2, us-east-1) is wider than /10"},
		{"a row of /8", document(token, "11.0.0.0/8"), "11.0.0.0/8 (EC2, us-east-1) is wider than /10"},
		{"40 % more in rows of /16", document(token, spread...),
			"the document opens 40.63 % more IPv4 addresses; the maximum is 15.00 %; to accept the document anyway, start with --accept-ranges 1700000000"},
		{"next year", document(token + 365*day), "syncToken 1731536000, 2024-11-13T22:13:20Z, is more than a day ahead of the clock, 2023-11-14T22:13:20Z"},
		{"a second over a day ahead", document(token + day + 1), "syncToken 1700086401, 2023-11-15T22:13:21Z, is more than a day ahead of the clock, 2023-11-14T22:13:20Z"},
		{"tomorrow", document(token + day), ""},
		{"12.5 % more", document(token, spread[:8]...), ""},
	} {
		path := filepath.Join(t.TempDir(), "ip-ranges.json")
		f := &Feed{File: path, RemovalHold: time.Hour}
		require.NoError(t, f.Resume(mustParse(t, document(token-1))))
		before := f.Table()
		require.NoError(t, os.WriteFile(path, []byte(test.document), 0o600))
		f.AcceptToken = "1731536000"
		_, err := fetchAt(t, f, now)
		if test.want == "" {
			require.NoError(t, err, test.name)
			continue
		}
		require.EqualError(t, err, test.want, test.name)
		require.Same(t, before, f.Table(), test.name)
		if strings.Contains(test.want, "--accept-ranges") {
			f.AcceptToken = "1700000000"
			_, err = fetchAt(t, f, now)
			require.NoError(t, err, test.name)
		}
	}

	// An earlier version accepted and stored a document from next year. The feed accepts AWS's current document after
	// it, if that passes the other checks.
	path := filepath.Join(t.TempDir(), "ip-ranges.json")
	f := &Feed{File: path, RemovalHold: time.Hour}
	require.NoError(t, f.Resume(mustParse(t, document(token+365*day, "13.0.0.0/16"))))
	require.NoError(t, os.WriteFile(path, []byte(document(token, spread...)), 0o600))
	_, err := fetchAt(t, f, now)
	require.EqualError(t, err, "the document opens 38.46 % more IPv4 addresses; the maximum is 15.00 %; to accept the document anyway, start with --accept-ranges 1700000000")
	require.NoError(t, os.WriteFile(path, []byte(document(token)), 0o600))
	table, err := fetchAt(t, f, now)
	require.NoError(t, err)
	require.Equal(t, "1700000000", table.SyncToken())
	require.Len(t, table.Held(), 1, "the feed holds the stored row")
}

// FuzzCheckGrowth compares checkGrowth with a bitmap.
func FuzzCheckGrowth(f *testing.F) {
	f.Add([]byte{0, 24, 128, 25, 7, 32}, []byte{1, 32}, uint32(0))
	f.Add([]byte{0, 16}, []byte{128, 14, 130, 15}, uint32(86400*20))
	f.Fuzz(func(t *testing.T, acceptedData, addedData []byte, seconds uint32) {
		rows := func(prefixes []netip.Prefix) (rows []Row) {
			for _, prefix := range prefixes {
				rows = append(rows, Row{Prefix: prefix.Masked()})
			}
			return rows
		}
		acceptedPrefixes, acceptedBits := prefixtest.FromBytes(acceptedData)
		addedPrefixes, addedBits := prefixtest.FromBytes(addedData)
		tooMuch := false
		for space := range acceptedBits {
			covered, opened := 0.0, 0.0
			for i := range acceptedBits[space] {
				if acceptedBits[space][i] {
					covered++
				} else if addedBits[space][i] {
					opened++
				}
			}
			tooMuch = tooMuch || opened*100*secondsPerDay > covered*(maxGrowthPercent*secondsPerDay+float64(seconds))
		}
		require.Equal(t, tooMuch, checkGrowth(prefixes.Aggregate(acceptedPrefixes), rows(addedPrefixes), int64(seconds)) != nil)
	})
}
