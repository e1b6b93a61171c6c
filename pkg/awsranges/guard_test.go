package awsranges

import (
	"fmt"
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
	for _, good := range []string{"3.0.0.0/8", "198.18.0.0/15", "2600::/16", "11.0.0.0/8", "172.32.0.0/16", "223.0.0.0/8"} {
		require.NoError(t, sound(nil, &parsed(t, row(good)).document), good)
	}
	for _, test := range []struct{ document, want string }{
		{row("0.0.0.0/0"), "0.0.0.0/0 (S3, us-east-1) is wider than /8"},
		{row("2.0.0.0/7"), "2.0.0.0/7 (S3, us-east-1) is wider than /8"},
		{row("::/0"), "::/0 (S3, us-east-1) is wider than /16"},
		{row("2600::/15"), "2600::/15 (S3, us-east-1) is wider than /16"},
		{row("10.0.0.0/8"), "10.0.0.0/8 (S3, us-east-1) is in reserved space, 10.0.0.0/8"},
		{row("10.200.1.0/24"), "10.200.1.0/24 (S3, us-east-1) is in reserved space, 10.0.0.0/8"},
		{row("172.0.0.0/8"), "172.0.0.0/8 (S3, us-east-1) is in reserved space, 172.16.0.0/12"},
		{row("192.168.1.1/32"), "192.168.1.1/32 (S3, us-east-1) is in reserved space, 192.168.0.0/16"},
		{row("127.0.0.1/32"), "127.0.0.1/32 (S3, us-east-1) is in reserved space, 127.0.0.0/8"},
		{row("169.254.169.254/32"), "169.254.169.254/32 (S3, us-east-1) is in reserved space, 169.254.0.0/16"},
		{row("203.0.113.0/25"), "203.0.113.0/25 (S3, us-east-1) is in reserved space, 203.0.113.0/24"},
		{row("::1/128"), "::1/128 (S3, us-east-1) is in reserved space, ::/8"},
		{row("2001:db8:1::/48"), "2001:db8:1::/48 (S3, us-east-1) is in reserved space, 2001:db8::/32"},
		{row("fd00::/16"), "fd00::/16 (S3, us-east-1) is in reserved space, fc00::/7"},
		{row("fe80::/64"), "fe80::/64 (S3, us-east-1) is in reserved space, fe80::/10"},
		{`{"syncToken": "soon", "prefixes": [{"ip_prefix": "3.0.0.0/15", "region": "x", "service": "S3"}]}`, `syncToken "soon" is no time in epoch seconds`},
		{`{"syncToken": "-1", "prefixes": [{"ip_prefix": "3.0.0.0/15", "region": "x", "service": "S3"}]}`, `syncToken "-1" is no time in epoch seconds`},
		{`{"prefixes": [{"ip_prefix": "3.0.0.0/15", "region": "x", "service": "S3"}]}`, `syncToken "" is no time in epoch seconds`},
	} {
		require.EqualError(t, sound(nil, &parsed(t, test.document).document), test.want)
	}
}

func TestFollows(t *testing.T) {
	accepted := parsed(t, made(100, upTo(20)...))
	for _, test := range []struct {
		name, document, want string
	}{
		{"the same", made(100, upTo(20)...), ""},
		{"more", made(200, upTo(30)...), ""},
		{"85 %", made(200, upTo(17)...), ""},
		{"80 %", made(200, upTo(16)...), "it keeps 16 of 20 IPv4 rows, less than 85 %"},
		{"as many, but others", made(200, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 33, 35, 37, 39), "it keeps 0 of 20 IPv4 rows, less than 85 %"},
		{"older", made(99, upTo(20)...), "syncToken 99 is older than the accepted 100"},
	} {
		err := follows(accepted, &parsed(t, test.document).document)
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
	require.EqualError(t, follows(both, &onlyIPv4.document), "it keeps 0 of 5 IPv6 rows, less than 85 %")
	require.NoError(t, follows(nil, &both.document))
	held := withHeld(accepted, &parsed(t, made(200, upTo(17)...)).document, time.Unix(200, 0), time.Hour)
	require.NoError(t, follows(held, &parsed(t, made(300, upTo(15)...)).document), "what is held already is not counted as lost again")
}
