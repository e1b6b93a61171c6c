package policy

import (
	"net/netip"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
)

func TestCIDRHint(t *testing.T) {
	const (
		everyAddress = "to open every IPv4 address, write 0.0.0.0/0"
		hostName     = "it is a host name, but a NetworkPolicy takes only addresses: list the CIDRs of its addresses"
		awsHostName  = "it is an AWS host name: set awsService to its service, or list the subnets of its interface endpoint"
		singleWord   = "a CIDR is an address and a prefix length, such as 10.1.0.0/24; for an AWS service, use awsService"
		prefixList   = "it is a prefix list: set awsService to its service, such as s3 or dynamodb, or list its CIDRs"
		netmask      = "write the netmask as a prefix length; "
		port         = "put the port in ports; "
		leadingZeros = "remove the leading zeros; "
		fourNumbers  = "an IPv4 address has four numbers"
		cidrList     = "it is a list of CIDRs: write a destination for each"
	)
	for _, test := range []struct {
		want   string
		values []string
	}{
		{"did you mean 10.0.0.7/32?", []string{"10.0.0.7", " 10.0.0.7\n", "\"10.0.0.7\"", "(10.0.0.7)", "'10.0.0.7/32'"}},
		{"did you mean 2001:db8::1/128?", []string{"2001:db8::1", "[2001:db8::1]", "2001:DB8::1"}},
		{"did you mean 2001:db8::/32?", []string{"[2001:db8::]/32", "2001:db8:: /32"}},
		{"did you mean 2001:db8::5:443/128?", []string{"2001:db8::5:443"}},
		{"did you mean 10.0.0.0/8?", []string{" 10.0.0.0/8", "10.0.0.0 / 8", "10.0.0.0\\8", "10/8", "10.0.0.0-10.255.255.255", "10.*.*.*", "10.*"}},
		{"it contains the character U+00A0; did you mean 10.0.0.0/8?", []string{"10.0.0.0\u00a0/8"}},
		{"it contains the character U+200B; did you mean 10.0.0.0/8?", []string{"10.0.0.0/8\u200b", "\u200b10.0.0.0/8", "10.0\u200b.0.0/8"}},
		{"it contains the character U+FEFF; did you mean 10.0.0.0/8?", []string{"\ufeff10.0.0.0/8"}},
		{"it contains the character U+FF11; did you mean 10.0.0.0/8?", []string{"\uff11\uff10.0.0.0/8"}},
		{"it contains the character U+2044; did you mean 10.0.0.0/8?", []string{"10.0.0.0\u20448"}},
		{everyAddress, []string{"*", "any", "ANY", "all", "0.0.0.0", "0.0.0.0/", "0/0", "*.*.*.*", "internet", "0.0.0.0/0.0.0.0"}},
		{"to open every IPv6 address, write ::/0", []string{"::", "[::]"}},
		{prefixList, []string{"pl-6da54004", "pl-63a5400a", "PL-0123456789ABCDEF0"}},
		{"it is a security group: list the CIDRs of its members' subnets", []string{"sg-0123456789abcdef0"}},
		{"it is a VPC endpoint: list the CIDRs of its subnets", []string{"vpce-0123456789abcdef0"}},
		{"it is an ARN: set awsService to an AWS service, or list the CIDRs of the resource", []string{"arn:aws:s3:::bucket"}},
		{hostName, []string{"api.partner.example", "*.example.com", "db.example.com:5432", "db.example.com/24", "db.example.com.", "ip-10-0-0-1.ec2.internal", "my_host.example"}},
		{awsHostName, []string{"*.amazonaws.com", "s3.us-east-1.amazonaws.com", "sqs.eu-west-1.amazonaws.com:443"}},
		{"it is a URL; did you mean 10.0.0.7/32?", []string{"https://10.0.0.7", "http://10.0.0.7/", "https://user@10.0.0.7/8"}},
		{"it is a URL; did you mean 10.0.0.0/8?", []string{"https://10.0.0.0/8"}},
		{"it is a URL; " + port + "did you mean 10.0.0.7/32?", []string{"https://10.0.0.7:8443/x"}},
		{"it is a URL; " + hostName, []string{"https://api.partner.example/v1?x=1", "postgres://u:p@db.example.com:5432/d"}},
		{"it is a URL; " + awsHostName, []string{"https://sqs.us-east-1.amazonaws.com/1/q"}},
		{"it is a range: write a destination for each of 10.0.0.1/32, 10.0.0.2/31, 10.0.0.4/30, 10.0.0.8/31", []string{"10.0.0.1-10.0.0.9", "10.0.0.1 - 10.0.0.9", "10.0.0.1-9", "10.0.0.1\u201310.0.0.9",
			"10.0.0.1..10.0.0.9", "10.0.0.1 to 10.0.0.9"}},
		{"it is a range: write a destination for each of 2001:db8::1/128, 2001:db8::2/128", []string{"2001:db8::1-2001:db8::2"}},
		{"it is a range: write a destination for each of 0.0.0.1/32, 0.0.0.2/31, 0.0.0.4/30, 0.0.0.8/29, 0.0.0.16/28, 0.0.0.32/27, 0.0.0.64/26, 0.0.0.128/25 and more", []string{"0.0.0.1-255.255.255.254"}},
		{"did you mean 10.0.0.5/32?", []string{"10.0.0.5-10.0.0.5"}},
		{"the range ends before it begins", []string{"10.0.0.9-10.0.0.1"}},
		{"did you mean 10.0.0.0/24?", []string{"10.0.0.*", "10.0.0.x", "10.0.0/24", "10.0.0.0-255"}},
		{"did you mean 10.0.0.0/16?", []string{"10.0/16", "10.0.*.*", "10.0.*"}},
		{netmask + "did you mean 10.0.0.0/24?", []string{"10.0.0.0/255.255.255.0", "10.0.0.0 255.255.255.0", "10.0.0.0/0.0.0.255"}},
		{netmask + "did you mean 10.0.0.7/32?", []string{"10.0.0.7/255.255.255.255"}},
		{port + "did you mean 10.0.0.7/32?", []string{"10.0.0.7:443", "10.0.0.7/32:443"}},
		{port + "did you mean 2001:db8::1/128?", []string{"[2001:db8::1]:443"}},
		{cidrList, []string{"10.0.0.0/8,172.16.0.0/12", "10.0.0.0/8, 172.16.0.0/12", "10.0.0.0/8 172.16.0.0/12", "10.0.0.1;10.0.0.2", "10.0.0.0/8\n10.1.0.0/16", "[10.0.0.0/8, 10.1.0.0/16]",
			strings.Repeat("10.0.0.0/8,", 1000)}},
		{leadingZeros + "did you mean 10.1.0.0/24?", []string{"10.01.0.0/24", "010.1.0.0/24", "10.1.0.0/024"}},
		{leadingZeros + "did you mean 10.1.0.5/32?", []string{"10.1.0.05"}},
		{fourNumbers, []string{"10.0/24", "10.0.0", "10.0.0.0.0/24", "1.2.3.4.5"}},
		{"each number of an IPv4 address is at most 255", []string{"10.1.0.256/32", "300.1.1.1"}},
		{"the prefix length after the / is missing", []string{"10.1.0.0/"}},
		{"a CIDR cannot have a zone; did you mean fe80::/64?", []string{"fe80::%eth0/64"}},
		{singleWord, []string{"s3", "localhost", "my-db", "aws_s3"}},
		{"", []string{"", " ", "\u200b", "10.1.0.0/99", "10.1.0.0/-1", "10.1.0.0/x", "1::2::3/64", "2001:db8::/129", "10", "::ffff:10.0.0.1", "10.0.0.0/255.0.255.0", ":", "/", "%", ".", "-", "://",
			strings.Repeat("1", 1<<20), "\xff\xfe", "10.0.0.1-", "-10.0.0.1"}},
	} {
		for _, value := range test.values {
			got := cidrHint(value)
			if value == "://" {
				require.Equal(t, "it is a URL; list the CIDRs of its host's addresses", got)
				continue
			}
			require.Equal(t, test.want, got, "%q", value)
		}
	}
}

// FuzzCIDRHint checks that a hint is one short, printable line, and that Validate accepts the CIDR that it suggests.
func FuzzCIDRHint(f *testing.F) {
	for _, value := range []string{"10.0.0.1-10.0.0.9", "10.0.0.*", "10.0/16", "[::1]:80", "fe80::%e/64", "10.0.0.0/255.0.0.0", "https://10.0.0.7", "\ufeff10.0.0.0/8", "010.1.0.0/24"} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		hint := cidrHint(value)
		require.Less(t, len(hint), 600)
		for _, r := range hint {
			require.True(t, unicode.IsPrint(r), "%q", hint)
		}
		if _, suggestion, ok := strings.Cut(hint, "did you mean "); ok {
			prefix, err := netip.ParsePrefix(strings.TrimSuffix(suggestion, "?"))
			require.NoError(t, err)
			require.Empty(t, cidrProblem(prefix.String(), prefix, nil))
		}
	})
}

// FuzzRange checks that the CIDRs of a range cover exactly the addresses of the range.
func FuzzRange(f *testing.F) {
	f.Add([]byte{10, 0, 0, 1}, []byte{10, 0, 0, 9})
	f.Fuzz(func(t *testing.T, from, to []byte) {
		first, isFirstValid := netip.AddrFromSlice(from)
		last, isLastValid := netip.AddrFromSlice(to)
		if !isFirstValid || !isLastValid || first.BitLen() != last.BitLen() || last.Less(first) {
			return
		}
		prefixes, complete := rangePrefixes(first, last, 300)
		require.True(t, complete)
		next := first
		for i, prefix := range prefixes {
			require.Equal(t, prefix.Masked(), prefix)
			require.Equal(t, next, prefix.Addr())
			next = lastAddress(prefix).Next()
			if i == len(prefixes)-1 {
				require.Equal(t, last, lastAddress(prefix))
			}
		}
	})
}

func BenchmarkCIDRHint(b *testing.B) {
	for name, value := range map[string]string{"no hint": "10.1.0.0/99", "host": "api.partner.example", "range": "10.0.0.1-10.0.0.254", "long": strings.Repeat("1", 1<<20)} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				cidrHint(value)
			}
		})
	}
}
