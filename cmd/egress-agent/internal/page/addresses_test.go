package page

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/awsranges"
)

func TestExtent(t *testing.T) {
	block := func(cidr string, except ...string) networkingv1.NetworkPolicyPeer {
		return networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: cidr, Except: except}}
	}
	for _, test := range []struct {
		name       string
		peers      []networkingv1.NetworkPolicyPeer
		ipv4, ipv6 string
	}{
		{"one address", []networkingv1.NetworkPolicyPeer{block("10.1.0.5/32"), block("2001:db8::1/128")}, "1", "1"},
		{"a CIDR inside another", []networkingv1.NetworkPolicyPeer{block("10.1.0.0/24"), block("10.0.0.0/8"), block("10.1.0.0/16")}, "16,777,216", "0"},
		{"neighbours", []networkingv1.NetworkPolicyPeer{block("10.1.1.0/24"), block("10.1.0.0/24"), block("2001:db8::/32"), block("2001:db9::/48")}, "512", "over 2^96"},
		{"both halves", []networkingv1.NetworkPolicyPeer{block("0.0.0.0/1"), block("128.0.0.0/1")}, "every", "0"},
		{"with exceptions", []networkingv1.NetworkPolicyPeer{block("0.0.0.0/0", "10.0.0.0/8", "169.254.169.254/32", "10.1.0.0/16")}, "4,278,190,079", "0"},
		{"an exception that another peer opens", []networkingv1.NetworkPolicyPeer{block("10.0.0.0/8", "10.1.0.0/16"), block("10.1.0.0/24")}, "16,711,936", "0"},
		{"exceptions of everything", []networkingv1.NetworkPolicyPeer{block("10.0.0.0/8", "10.0.0.0/8")}, "0", "0"},
		{"an exception in the other family", []networkingv1.NetworkPolicyPeer{block("10.0.0.0/31", "::/0")}, "2", "0"},
		{"host bits", []networkingv1.NetworkPolicyPeer{block("10.1.0.5/24"), block("10.1.0.9/24")}, "256", "0"},
		{"no CIDR", []networkingv1.NetworkPolicyPeer{block("text", "text"), {}}, "0", "0"},
	} {
		count := extentOf(networkingv1.NetworkPolicyEgressRule{To: test.peers}).count()
		require.Equal(t, [2]string{test.ipv4, test.ipv6}, [2]string{count.ipv4, count.ipv6}, test.name)
	}
	require.Equal(t, everyAddress, extentOf(opens("10.0.0.0/8"), networkingv1.NetworkPolicyEgressRule{}), "a rule without peers opens every address")
}

// TestWithoutMatchesNaive compares without with a check of each address.
func TestWithoutMatchesNaive(t *testing.T) {
	outer := netip.MustParsePrefix("10.0.0.16/28")
	holes := []netip.Prefix{netip.MustParsePrefix("10.0.0.18/31"), netip.MustParsePrefix("10.0.0.29/32"), netip.MustParsePrefix("10.0.0.24/30"), netip.MustParsePrefix("10.0.0.0/28")}
	parts := without(outer, holes)
	in := func(prefixes []netip.Prefix, address netip.Addr) bool {
		for _, prefix := range prefixes {
			if prefix.Contains(address) {
				return true
			}
		}
		return false
	}
	for address := netip.MustParseAddr("10.0.0.0"); address.Less(netip.MustParseAddr("10.0.0.64")); address = address.Next() {
		require.Equal(t, outer.Contains(address) && !in(holes, address), in(parts, address), address)
	}
}

func TestOwnersDescribe(t *testing.T) {
	table, err := awsranges.Parse([]byte(`{"syncToken": "1700000000", "createDate": "2023-11-14-22-13-20", "prefixes": [
		{"ip_prefix": "52.216.0.0/16", "region": "us-east-1", "service": "AMAZON", "network_border_group": "us-east-1"},
		{"ip_prefix": "52.216.0.0/16", "region": "us-east-1", "service": "S3", "network_border_group": "us-east-1"},
		{"ip_prefix": "52.217.0.0/16", "region": "us-east-1", "service": "S3", "network_border_group": "us-east-1"},
		{"ip_prefix": "52.216.8.0/24", "region": "GLOBAL", "service": "CLOUDFRONT", "network_border_group": "GLOBAL"},
		{"ip_prefix": "3.5.0.0/16", "region": "eu-west-1", "service": "AMAZON", "network_border_group": "eu-west-1"}
	], "ipv6_prefixes": [{"ipv6_prefix": "2600:1fa0::/32", "region": "us-east-1", "service": "EC2", "network_border_group": "us-east-1"}]}`))
	require.NoError(t, err)
	o := newOwners(table)
	for cidr, want := range map[string]string{
		"52.216.0.0/20":       "S3 us-east-1",
		"52.216.0.0/15":       "S3 us-east-1",
		"52.216.8.4/32":       "CLOUDFRONT GLOBAL, S3 us-east-1",
		"52.0.0.0/8":          "contains addresses of CLOUDFRONT, S3",
		"3.5.1.0/24":          "AMAZON eu-west-1",
		"3.0.0.0/8":           "contains addresses of AMAZON",
		"0.0.0.0/0":           "contains addresses of CLOUDFRONT, S3",
		"2600:1fa0:8000::/48": "EC2 us-east-1",
		"2000::/3":            "contains addresses of EC2",
		"10.1.0.0/16":         "private",
		"10.0.0.0/7":          "not in AWS's list",
		"169.254.169.254/32":  "link-local",
		"fd00::/8":            "private",
		"9.9.9.9/32":          "not in AWS's list",
	} {
		require.Equal(t, want, o.describe(netip.MustParsePrefix(cidr)), cidr)
	}
	unknown := newOwners(nil)
	require.Equal(t, "private", unknown.describe(netip.MustParsePrefix("10.1.0.0/16")))
	require.Empty(t, unknown.describe(netip.MustParsePrefix("9.9.9.9/32")), "without AWS's list nothing can be said")
	custom, err := awsranges.Parse([]byte(`{"prefixes": [{"ip_prefix": "10.1.0.0/16", "region": "dc-1", "service": "DATABASES", "network_border_group": "dc-1"}]}`))
	require.NoError(t, err)
	require.Equal(t, "private; DATABASES dc-1", newOwners(custom).describe(netip.MustParsePrefix("10.1.2.0/24")))
	require.Empty(t, newOwners(custom).describe(netip.MustParsePrefix("9.9.9.9/32")))
}
