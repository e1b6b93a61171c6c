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
)

func TestSound(t *testing.T) {
	row := func(prefix string) string {
		family, field := "prefixes", "ip_prefix"
		if strings.Contains(prefix, ":") {
			family, field = "ipv6_prefixes", "ipv6_prefix"
		}
		return fmt.Sprintf(`{"syncToken": "1", "%s": [{"%s": "%s", "region": "us-east-1", "service": "S3"}]}`, family, field, prefix)
	}
	for _, good := range []string{"3.0.0.0/10", "198.18.0.0/15", "2600::/24", "11.0.0.0/10", "172.32.0.0/16", "223.192.0.0/10"} {
		require.NoError(t, validateDocument(nil, &parsed(t, row(good)).document), good)
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
		{`{"syncToken": "soon", "prefixes": [{"ip_prefix": "3.0.0.0/15", "region": "x", "service": "S3"}]}`, `syncToken "soon" is no time in epoch seconds`},
		{`{"syncToken": "-1", "prefixes": [{"ip_prefix": "3.0.0.0/15", "region": "x", "service": "S3"}]}`, `syncToken "-1" is no time in epoch seconds`},
		{`{"prefixes": [{"ip_prefix": "3.0.0.0/15", "region": "x", "service": "S3"}]}`, `syncToken "" is no time in epoch seconds`},
	} {
		require.EqualError(t, validateDocument(nil, &parsed(t, test.document).document), test.want)
	}
}

func TestFollows(t *testing.T) {
	accepted := parsed(t, made(100, upTo(20)...))
	for _, test := range []struct {
		name, document, want string
	}{
		{"the same", made(100, upTo(20)...), ""},
		{"15 % more", made(200, upTo(23)...), ""},
		{"more in a day", made(100+24*60*60, upTo(23)...), ""},
		{"over 15 % more", made(200, upTo(24)...), "it opens 20.00 % more IPv4 addresses, over 15.00 %"},
		{"over 15 % more, and as much less", made(200, append(upTo(24)[4:], 0)...), "it opens 20.00 % more IPv4 addresses, over 15.00 %"},
		{"over 15 % more in five days", made(100+5*24*60*60, upTo(24)...), ""},
		{"the same addresses in other rows", strings.Replace(made(200, upTo(20)...), "[", `[{"ip_prefix": "198.18.0.0/25", "region": "x", "service": "EC2"}, `, 1), ""},
		{"85 %", made(200, upTo(17)...), ""},
		{"80 %", made(200, upTo(16)...), "it keeps 16 of 20 IPv4 rows, less than 85 %"},
		{"as many, but others", made(200, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 33, 35, 37, 39), "it keeps 0 of 20 IPv4 rows, less than 85 %; it opens 100.00 % more IPv4 addresses, over 15.00 %"},
		{"older", made(99, upTo(20)...), "syncToken 99 is older than the accepted 100"},
	} {
		err := validateSuccessor(accepted, covered(accepted), &parsed(t, test.document).document, time.Unix(100, 0))
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
	require.EqualError(t, validateSuccessor(both, covered(both), &onlyIPv4.document, time.Unix(1_700_000_000, 0)), "it keeps 0 of 5 IPv6 rows, less than 85 %")
	require.EqualError(t, validateSuccessor(&onlyIPv4, covered(&onlyIPv4), &both.document, time.Unix(1_700_000_000, 0)), "it opens IPv6 addresses, of which there were none")
	require.NoError(t, validateSuccessor(nil, nil, &both.document, time.Unix(1_700_000_000, 0)))
	held := applyHolds(accepted, &parsed(t, made(200, upTo(17)...)).document, time.Unix(200, 0), time.Hour)
	require.NoError(t, validateSuccessor(held, covered(held), &parsed(t, made(300, upTo(15)...)).document, time.Unix(300, 0)), "what is held already is not counted as lost again")
	require.NoError(t, validateSuccessor(held, covered(held), &parsed(t, made(300, upTo(20)...)).document, time.Unix(300, 0)), "nor as opened, when it is back")
}

// TestFeedRefusesAdditions that AWS cannot have meant, and a document of a day that has not come.
func TestFeedRefusesAdditions(t *testing.T) {
	const day = 24 * 60 * 60
	now := time.Unix(1_700_000_000, 0)
	var accepted, wide, spread []string // 4 million addresses of AWS's, and what is added to them
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
			"it opens 40.63 % more IPv4 addresses, over 15.00 %; to accept it all the same, start with --accept-ranges 1700000000"},
		{"next year", document(token + 365*day), "syncToken 1731536000, 2024-11-13T22:13:20Z, is more than a day ahead of the clock, 2023-11-14T22:13:20Z"},
		{"a second too early", document(token + day + 1), "syncToken 1700086401, 2023-11-15T22:13:21Z, is more than a day ahead of the clock, 2023-11-14T22:13:20Z"},
		{"tomorrow", document(token + day), ""},
		{"12.5 % more", document(token, spread[:8]...), ""},
	} {
		path := filepath.Join(t.TempDir(), "ip-ranges.json")
		f := &Feed{File: path, RemovalHold: time.Hour}
		require.NoError(t, f.Resume(parsed(t, document(token-1))))
		before := f.Table()
		require.NoError(t, os.WriteFile(path, []byte(test.document), 0o600))
		f.AcceptToken = "1731536000"
		_, err := lookAt(t, f, now)
		if test.want == "" {
			require.NoError(t, err, test.name)
			continue
		}
		require.EqualError(t, err, test.want, test.name)
		require.Same(t, before, f.Table(), test.name)
		if strings.Contains(test.want, "--accept-ranges") {
			f.AcceptToken = "1700000000"
			_, err = lookAt(t, f, now)
			require.NoError(t, err, test.name)
		}
	}

	// An earlier version took one of next year, and stored it. AWS's own follows it nevertheless, if it is otherwise
	// such a document as can follow.
	path := filepath.Join(t.TempDir(), "ip-ranges.json")
	f := &Feed{File: path, RemovalHold: time.Hour}
	require.NoError(t, f.Resume(parsed(t, document(token+365*day, "13.0.0.0/16"))))
	require.NoError(t, os.WriteFile(path, []byte(document(token, spread...)), 0o600))
	_, err := lookAt(t, f, now)
	require.EqualError(t, err, "it opens 38.46 % more IPv4 addresses, over 15.00 %; to accept it all the same, start with --accept-ranges 1700000000")
	require.NoError(t, os.WriteFile(path, []byte(document(token)), 0o600))
	table, err := lookAt(t, f, now)
	require.NoError(t, err)
	require.Equal(t, "1700000000", table.SyncToken())
	require.Len(t, table.Held(), 1, "what was stored is held")
}

// FuzzGrows compares what is opened with a bitmap.
func FuzzGrows(f *testing.F) {
	f.Add([]byte{0, 24, 128, 25, 7, 32}, []byte{1, 32}, uint32(0))
	f.Add([]byte{0, 16}, []byte{128, 14, 130, 15}, uint32(86400*20))
	f.Fuzz(func(t *testing.T, data, more []byte, seconds uint32) {
		rows := func(prefixes []netip.Prefix) (rows []Row) {
			for _, prefix := range prefixes {
				rows = append(rows, Row{Prefix: prefix.Masked()})
			}
			return rows
		}
		before, then := spaceOf(data)
		added, now := spaceOf(more)
		tooMuch := false
		for space := range then {
			covered, opened := 0.0, 0.0
			for i := range then[space] {
				if then[space][i] {
					covered++
				} else if now[space][i] {
					opened++
				}
			}
			tooMuch = tooMuch || opened*100*secondsADay > covered*(mostGrowth*secondsADay+float64(seconds))
		}
		require.Equal(t, tooMuch, grows(Aggregate(before), rows(added), int64(seconds)) != nil)
	})
}
