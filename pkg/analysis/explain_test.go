package analysis

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/internal/policytest"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

func testTable(t *testing.T) *awsranges.Table {
	table, err := awsranges.ReadFile("../../testdata/ranges/ip-ranges.json")
	require.NoError(t, err)
	return table
}

// TestExplainAgreesWithNetworkPolicy compares the answers for random policies with the NetworkPolicies that they
// compile to.
func TestExplainAgreesWithNetworkPolicy(t *testing.T) {
	table := testTable(t)
	for seed := range uint64(100) {
		random := rand.New(rand.NewPCG(seed, 2))
		p, family := policytest.RandomPolicy(random), []netpol.Family{netpol.IPv4, netpol.IPv6, netpol.Dual}[random.IntN(3)]
		compiled := netpol.CompileConfigMap(policytest.ConfigMap(p), netpol.Inputs{Table: table, Options: netpol.Options{Family: family}})
		require.Empty(t, compiled.Problems)
		blocks := policytest.BlocksOf(compiled.Spec())
		for _, address := range policytest.ProbeAddresses(p, table, random) {
			for _, protocol := range []policy.Protocol{policy.TCP, policy.UDP} {
				for _, port := range []uint16{1, 53, 80, 443, 450} {
					e := Explain(p, table, netpol.Options{Family: family}, Target{address, port, protocol})
					require.Equal(t, policytest.Allows(blocks, address, protocol, port), e.Allowed)
					require.Equal(t, e.Allowed, len(e.Reasons) > 0)
					require.Equal(t, e.Allowed, len(e.Nearest) == 0, "only a denial has the nearest destinations")
					for _, reason := range e.Reasons {
						require.True(t, netip.MustParsePrefix(reason.Prefix).Contains(address))
					}
				}
			}
		}
	}
}

func TestExplain(t *testing.T) {
	custom, err := awsranges.ReadFiles("../../testdata/ranges/ip-ranges.json", awsranges.CustomFiles{Files: []string{"../../testdata/ranges/custom.json"}})
	require.NoError(t, err)
	document := `{"allowedDestinations": [
		{"name": "s3", "awsService": "s3", "regions": ["us-east-1"], "ports": [443]},
		{"name": "all", "awsService": "amazon", "regions": ["us-east-1"], "ports": [443]},
		{"name": "db", "cidr": "10.1.0.0/24", "ports": [5432, {"port": 8000, "endPort": 8100, "protocol": "UDP"}]},
		{"name": "bills", "awsService": "billing", "ports": [443]}]}`
	parsed, problems := policy.Parse([]byte(document))
	require.Empty(t, problems)
	p, problems := policy.Validate(parsed, netpol.NameCheck(custom))
	require.Empty(t, problems)
	dns := netpol.Options{Family: netpol.IPv4, AllowDNS: true, DNSCIDRs: []netip.Prefix{netip.MustParsePrefix("169.254.20.10/32")}}
	for _, test := range []struct {
		name, to string
		table    *awsranges.Table
		reasons  []string
		nearest  []string
	}{
		{"by two destinations, and each row", "198.18.4.9:443", custom, []string{
			"s3 (allowedDestinations[0]): S3 us-east-1: 198.18.4.0/24, syncToken 1700000000",
			"all (allowedDestinations[1]): AMAZON us-east-1: 198.18.4.0/22, syncToken 1700000000"}, nil},
		{"by a CIDR", "10.1.0.255:8100/udp", custom, []string{"db (allowedDestinations[2]): 10.1.0.0/24"}, nil},
		{"by a custom service", "10.20.1.1:443", custom, []string{"bills (allowedDestinations[3]): BILLING frankfurt: 10.20.1.0/24"}, nil},
		{"by a DNS CIDR", "169.254.20.10:53/UDP", custom, []string{"--dns-cidr: 169.254.20.10/32"}, nil},
		{"IPv4-mapped", "[::ffff:10.1.0.1]:5432", custom, []string{"db (allowedDestinations[2]): 10.1.0.0/24"}, nil},
		{"another port", "10.1.0.1:80", custom, nil, []string{"db (allowedDestinations[2]) covers 10.1.0.1, but opens TCP 5432, UDP 8000-8100 only"}},
		{"another protocol", "10.1.0.1:5432/UDP", custom, nil, []string{"db (allowedDestinations[2]) covers 10.1.0.1, but opens TCP 5432, UDP 8000-8100 only"}},
		{"another region", "198.18.8.1:443", custom, nil, []string{
			"s3 (allowedDestinations[0]) names S3 in us-east-1, but 198.18.8.1 is an address of S3 in us-west-2",
			"all (allowedDestinations[1]) names AMAZON in us-east-1, but 198.18.8.1 is an address of AMAZON in us-west-2"}},
		{"another service", "198.18.16.1:443", custom, nil, []string{"all (allowedDestinations[1]) names AMAZON in us-east-1, but 198.18.16.1 is an address of AMAZON in GLOBAL"}},
		{"nowhere", "192.0.2.1:443", custom, nil, []string{"no destination covers 192.0.2.1, and no published range contains it"}},
		{"another family", "[2001:db8::1]:443", custom, nil, []string{"2001:db8::1 is not in the cluster's address family, IPv4"}},
		{"without ranges", "198.18.4.9:443", nil, nil, []string{
			"s3 (allowedDestinations[0]) cannot be checked: no AWS ranges are loaded (give --ranges-file)",
			"all (allowedDestinations[1]) cannot be checked: no AWS ranges are loaded (give --ranges-file)",
			"bills (allowedDestinations[3]) cannot be checked: no AWS ranges are loaded (give --ranges-file)"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			target, err := ParseTarget(test.to)
			require.NoError(t, err)
			e := Explain(p, test.table, dns, target)
			var reasons []string
			for _, reason := range e.Reasons {
				reasons = append(reasons, reason.String())
			}
			require.Equal(t, test.reasons, reasons)
			require.ElementsMatch(t, test.nearest, e.Nearest)
			require.Equal(t, test.reasons != nil, e.Allowed)
		})
	}
	e := Explain(&policy.Policy{DefaultAction: policy.Allow}, nil, netpol.Options{Family: netpol.IPv4}, Target{netip.MustParseAddr("::1"), 1, policy.TCP})
	require.Equal(t, "defaultAction", e.Reasons[0].String())
	e = Explain(&policy.Policy{}, custom, netpol.Options{Family: netpol.IPv4}, Target{netip.MustParseAddr("198.18.7.7"), 1, policy.TCP})
	require.Equal(t, []string{"no destination covers 198.18.7.7, an address of AMAZON us-east-1, EC2 us-east-1"}, e.Nearest)
}

// TestExplainAddsHintForServices explains addresses inside and outside the ranges of cluster IPs.
func TestExplainAddsHintForServices(t *testing.T) {
	p := &policy.Policy{DefaultAction: policy.Deny, Destinations: []policy.Destination{
		{Name: "pods", CIDR: netip.MustParsePrefix("10.1.0.0/16")},
		{Name: "api", CIDR: netip.MustParsePrefix("172.20.0.1/32"), Ports: []policy.Port{{Protocol: policy.TCP, First: 443, Last: 443}}},
	}}
	for to, family := range map[string]netpol.Family{"10.100.0.10:80": netpol.IPv4, "172.20.255.255:80": netpol.IPv4, "172.20.0.1:6443": netpol.IPv4, "[fd8e:5fa6:1e4d::f:ffff]:80": netpol.IPv6} {
		target, err := ParseTarget(to)
		require.NoError(t, err)
		e := Explain(p, nil, netpol.Options{Family: family}, target)
		require.False(t, e.Allowed)
		require.Len(t, e.Nearest, 2, to)
		require.Equal(t, serviceHint(target), e.Nearest[1])
	}
	for to, family := range map[string]netpol.Family{
		"10.101.0.10:80": netpol.IPv4, "172.21.0.1:80": netpol.IPv4, "[fd00:ec2::254]:80": netpol.IPv6, "[fd8e:5fa6:1e4d::10:0]:80": netpol.IPv6, "[2001:db8::1]:80": netpol.IPv6, "[fd8e::1]:80": netpol.IPv4,
	} {
		target, err := ParseTarget(to)
		require.NoError(t, err)
		require.Len(t, Explain(p, nil, netpol.Options{Family: family}, target).Nearest, 1, to)
	}
	require.True(t, Explain(p, nil, netpol.Options{Family: netpol.IPv4}, Target{netip.MustParseAddr("172.20.0.1"), 443, policy.TCP}).Allowed)
	require.Equal(t, "if 10.100.0.10 is the cluster IP of a Service, VPC CNI checks this address and the Service's port, and other dataplanes check the addresses and ports of its pods: "+
		"allow 10.100.0.10/32 with port 80 as a cidr, and the pods' addresses and ports as another cidr", serviceHint(Target{netip.MustParseAddr("10.100.0.10"), 80, policy.TCP}))
}

func TestParseTarget(t *testing.T) {
	for _, bad := range []string{"", "10.0.0.1", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:70000", "db.example.com:443", "2001:db8::1:443", "[fe80::1%eth0]:443", "10.0.0.1:443/", "10.0.0.1:443/ICMP", "10.0.0.1:443/TCP/UDP"} {
		_, err := ParseTarget(bad)
		require.Error(t, err, bad)
	}
	target, err := ParseTarget("[2001:db8::1]:53/udp")
	require.NoError(t, err)
	require.Equal(t, "[2001:db8::1]:53/UDP", target.String())
}
