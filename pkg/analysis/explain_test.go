package analysis

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

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
					e := Explain(p, netpol.Inputs{Table: table, Options: netpol.Options{Family: family}}, Target{Address: address, Port: port, Protocol: protocol})
					require.Equal(t, policytest.Allows(blocks, address, protocol, port), e.Allowed, "%s %d under %+v", address, port, p.Destinations)
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
	p, problems := policy.Validate(parsed, policy.Names{AWS: netpol.NameCheck(custom)})
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
			e := Explain(p, netpol.Inputs{Table: test.table, Options: dns}, target)
			var reasons []string
			for _, reason := range e.Reasons {
				reasons = append(reasons, reason.String())
			}
			require.Equal(t, test.reasons, reasons)
			require.ElementsMatch(t, test.nearest, e.Nearest)
			require.Equal(t, test.reasons != nil, e.Allowed)
		})
	}
	e := Explain(&policy.Policy{DefaultAction: policy.Allow}, netpol.Inputs{Table: nil, Options: netpol.Options{Family: netpol.IPv4}}, Target{Address: netip.MustParseAddr("::1"), Port: 1, Protocol: policy.TCP})
	require.Equal(t, "defaultAction", e.Reasons[0].String())
	e = Explain(&policy.Policy{}, netpol.Inputs{Table: custom, Options: netpol.Options{Family: netpol.IPv4}}, Target{Address: netip.MustParseAddr("198.18.7.7"), Port: 1, Protocol: policy.TCP})
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
		e := Explain(p, netpol.Inputs{Table: nil, Options: netpol.Options{Family: family}}, target)
		require.False(t, e.Allowed)
		require.Len(t, e.Nearest, 2, to)
		require.Equal(t, serviceHint(target), e.Nearest[1])
	}
	for to, family := range map[string]netpol.Family{
		"10.101.0.10:80": netpol.IPv4, "172.21.0.1:80": netpol.IPv4, "[fd00:ec2::254]:80": netpol.IPv6, "[fd8e:5fa6:1e4d::10:0]:80": netpol.IPv6, "[2001:db8::1]:80": netpol.IPv6, "[fd8e::1]:80": netpol.IPv4,
	} {
		target, err := ParseTarget(to)
		require.NoError(t, err)
		require.Len(t, Explain(p, netpol.Inputs{Table: nil, Options: netpol.Options{Family: family}}, target).Nearest, 1, to)
	}
	require.True(t, Explain(p, netpol.Inputs{Table: nil, Options: netpol.Options{Family: netpol.IPv4}}, Target{Address: netip.MustParseAddr("172.20.0.1"), Port: 443, Protocol: policy.TCP}).Allowed)
	require.Equal(t, "if 10.100.0.10 is the cluster IP of a Service, open its pods with pods and namespace, and with the port of the pods; "+
		"AWS VPC CNI then opens the cluster IP too, if the Service's own selector has these labels", serviceHint(Target{Address: netip.MustParseAddr("10.100.0.10"), Port: 80, Protocol: policy.TCP}))
}

func TestParseTarget(t *testing.T) {
	for _, bad := range []string{"", "10.0.0.1", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:70000", "db.example.com", "db.example.com:0", "-db.example.com:443", "300.1.2.3:443", "db..example.com:443", "2001:db8::1:443", "[fe80::1%eth0]:443", "10.0.0.1:443/", "10.0.0.1:443/ICMP", "10.0.0.1:443/TCP/UDP"} {
		_, err := ParseTarget(bad)
		require.Error(t, err, bad)
	}
	for text, name := range map[string]string{"db.example.com:443": "db.example.com", "localhost:1/UDP": "localhost", "X1.example.com.:53": "x1.example.com"} {
		target, err := ParseTarget(text)
		require.NoError(t, err)
		require.Equal(t, name, target.Host)
		require.False(t, target.Address.IsValid())
	}
	target, err := ParseTarget("[2001:db8::1]:53/udp")
	require.NoError(t, err)
	require.Equal(t, "[2001:db8::1]:53/UDP", target.String())
}

// TestExplainEachField explains a denial, or an allowed connection, by each field of a destination.
func TestExplainEachField(t *testing.T) {
	table, err := awsranges.Parse([]byte(`{"syncToken": "1", "prefixes": [
		{"ip_prefix": "13.40.0.0/14", "service": "AMAZON", "region": "eu-west-2"}, {"ip_prefix": "13.40.0.0/14", "service": "EC2", "region": "eu-west-2"},
		{"ip_prefix": "13.43.48.0/23", "service": "AMAZON", "region": "eu-west-2"}]}`))
	require.NoError(t, err)
	const document = `{"podSelector": {"matchLabels": {"app": "web"}}, "allowedDestinations": [
		{"name": "sts", "awsService": "amazon", "without": ["ec2"], "regions": ["eu-west-2"], "ports": [443]},
		{"name": "net", "cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"], "ports": [443]},
		{"name": "old", "cidr": "192.168.0.0/24", "ports": [443], "expires": "2027-03-31"},
		{"name": "backend", "pods": {"app": "backend"}, "ports": [8080]},
		{"name": "api", "entity": "kube-apiserver"}]}`
	parsed, problems := policy.Parse([]byte(document))
	require.Empty(t, problems)
	p, problems := policy.Validate(parsed, policy.Names{AWS: netpol.NameCheck(table)})
	require.Empty(t, problems)
	in := netpol.Inputs{Table: table, Options: netpol.Options{Family: netpol.IPv4}, Now: time.Date(2027, 4, 1, 0, 0, 0, 0, time.UTC)}
	known := in
	known.APIServer = []netip.AddrPort{netip.MustParseAddrPort("172.20.0.1:443")}
	for _, test := range []struct {
		to      string
		in      netpol.Inputs
		allowed bool
		line    string
	}{
		{"13.43.48.9:443", in, true, "sts (allowedDestinations[0]): AMAZON eu-west-2: 13.43.48.0/23, syncToken 1"},
		{"13.40.0.9:443", in, false, "sts (allowedDestinations[0]) leaves out EC2, and 13.40.0.9 is in its row 13.40.0.0/14"},
		{"10.0.0.1:443", in, true, "net (allowedDestinations[1]): 10.0.0.0/8"},
		{"10.1.0.1:443", in, false, "net (allowedDestinations[1]) covers 10.1.0.1, but excepts 10.1.0.0/16"},
		{"192.168.0.1:443", in, false, "old (allowedDestinations[2]) covers 192.168.0.1, but opens nothing since 2027-04-01T00:00:00Z, when it expired"},
		{"10.1.0.1:8080", in, false, "backend (allowedDestinations[3]) opens pods app=backend of the policy's namespace: it allows 10.1.0.1 if that is the address of such a pod or, on AWS VPC CNI, the cluster IP of a Service whose own selector has these labels"},
		{"172.20.0.1:443", in, false, "api (allowedDestinations[4]) opens the API server, whose addresses only the cluster knows: kubectl get endpointslices,services -n default shows them"},
		{"172.20.0.1:443", known, true, "api (allowedDestinations[4]): 172.20.0.1/32"},
	} {
		target, err := ParseTarget(test.to)
		require.NoError(t, err)
		e := Explain(p, test.in, target)
		require.Equal(t, test.allowed, e.Allowed, "%s: %v", test.to, e)
		require.Equal(t, "app=web", e.PodSelector)
		lines := e.Nearest
		for _, reason := range e.Reasons {
			lines = append(lines, reason.String())
		}
		require.Contains(t, lines, test.line)
	}
}

// TestCompareEachField compares policies that differ in one field.
func TestCompareEachField(t *testing.T) {
	parse := func(entry string) PolicyVersion {
		parsed, problems := policy.Parse([]byte(`{"allowedDestinations": [` + entry + `]}`))
		require.Empty(t, problems)
		p, problems := policy.Validate(parsed, policy.Names{})
		require.Empty(t, problems)
		return PolicyVersion{Policy: p, Now: time.Date(2027, 4, 1, 0, 0, 0, 0, time.UTC)}
	}
	for _, test := range []struct{ before, after, opens, closes string }{
		{`{"name": "a", "cidr": "10.0.0.0/24", "ports": [443]}`, `{"name": "a", "cidr": "10.0.0.0/24", "except": ["10.0.0.0/25"], "ports": [443]}`, "", "10.0.0.0/25"},
		{`{"name": "a", "pods": {"app": "x"}, "ports": [443]}`, `{"name": "a", "pods": {"app": "y"}, "ports": [443]}`, "pods app=y of the policy's namespace", "pods app=x of the policy's namespace"},
		{`{"name": "a", "pods": {}, "ports": [443]}`, `{"name": "b", "pods": {}, "ports": [443]}`, "", ""},
		{`{"name": "a", "namespace": "x", "ports": [443]}`, ``, "", "every pod of namespace x"},
		{``, `{"name": "a", "entity": "kube-apiserver"}`, "kube-apiserver", ""},
		{`{"name": "a", "cidr": "10.0.0.0/24", "expires": "2027-06-30"}`, `{"name": "a", "cidr": "10.0.0.0/24", "expires": "2027-03-31"}`, "", "10.0.0.0/24"},
	} {
		c := Compare(parse(test.before), parse(test.after), netpol.IPv4)
		textOf := func(differences []Difference) string {
			text := ""
			for _, d := range differences {
				text += d.Peer
				for _, prefix := range d.Prefixes {
					text += prefix.String()
				}
			}
			return text
		}
		require.Equal(t, test.opens, textOf(c.Opens), test.after)
		require.Equal(t, test.closes, textOf(c.Closes), test.after)
	}
}

// TestExplainDomains explains targets with a name, with and without an address.
func TestExplainDomains(t *testing.T) {
	parsed, problems := policy.Parse([]byte(`{"allowedDestinations": [
		{"name": "net", "cidr": "198.51.100.0/24", "ports": [443]},
		{"name": "api", "domain": "api.example.com", "ports": [443]},
		{"name": "org", "domain": "*.example.org", "ports": [443], "expires": "2027-03-31"}]}`))
	require.Empty(t, problems)
	p, problems := policy.Validate(parsed, policy.Names{})
	require.Empty(t, problems)
	in := netpol.Inputs{Options: netpol.Options{Family: netpol.IPv4}, Now: time.Date(2027, 4, 1, 0, 0, 0, 0, time.UTC)}
	early := in
	early.Now = early.Now.AddDate(0, 0, -1)
	baseline := []netpol.PlatformDocument{platformDocument(t, "baseline", `"guardrails": {"denied": [{"name": "metadata", "cidr": "169.254.169.254/32"}]}`)}
	trusting := []netpol.PlatformDocument{platformDocument(t, "baseline", `"guardrails": {"denied": [{"name": "metadata", "cidr": "169.254.169.254/32"}], "within": [{"name": "own", "domain": "*.example.com"}]}`)}
	wide := []netpol.PlatformDocument{platformDocument(t, "baseline", `"guardrails": {"within": [{"name": "all", "cidr": "0.0.0.0/0"}]}`)}
	narrow := []netpol.PlatformDocument{platformDocument(t, "baseline", `"guardrails": {"within": [{"name": "net", "cidr": "198.51.100.0/24"}]}`)}
	for _, test := range []struct {
		to, address string
		in          netpol.Inputs
		documents   []netpol.PlatformDocument
		want        string
	}{
		{"API.example.com.:443", "", in, nil, "api (allowedDestinations[1]): api.example.com"},
		{"api.example.com:443", "203.0.113.9", in, nil, "api (allowedDestinations[1]): api.example.com"},
		{"api.example.com:443", "198.51.100.7", in, nil, "net (allowedDestinations[0]): 198.51.100.0/24; api (allowedDestinations[1]): api.example.com"},
		{"api.example.com:80", "", in, nil, "api (allowedDestinations[1]) covers api.example.com, but opens TCP 443 only"},
		{"x.y.example.org:443", "", early, nil, "org (allowedDestinations[2]): *.example.org"},
		{"x.y.example.org:443", "", in, nil, "org (allowedDestinations[2]) covers x.y.example.org, but opens nothing since 2027-04-01T00:00:00Z, when it expired"},
		{"example.net:443", "", in, nil, "no destination has a domain for example.net"},
		{"203.0.113.9:443", "", in, nil, "api (allowedDestinations[1]) opens api.example.com: it allows 203.0.113.9 to a pod that has looked up such a name and got this address"},
		{"api.example.com:443", "198.51.100.7", in, baseline, "net (allowedDestinations[0]): 198.51.100.0/24"},
		{"api.example.com:443", "", in, baseline, "closed by guardrail metadata of platform document baseline, because the owner of a name can lead it to any address"},
		{"api.example.com:443", "", in, trusting, "api (allowedDestinations[1]): api.example.com"},
		{"x.example.org:443", "", early, trusting, "closed by guardrail metadata of platform document baseline, because the owner of a name can lead it to any address"},
		{"api.example.com:443", "", in, wide, "api (allowedDestinations[1]): api.example.com"},
		{"api.example.com:443", "", in, narrow, "outside of what platform document baseline permits: its within has no domain for api.example.com"},
	} {
		target, err := ParseTarget(test.to)
		require.NoError(t, err)
		if test.address != "" {
			target.Address = netip.MustParseAddr(test.address)
		}
		e := ExplainPlatform(Explain(p, test.in, target), test.documents, test.in, target)
		lines := slices.Clone(e.Nearest)
		for _, reason := range e.Reasons {
			lines = append(lines, reason.String())
		}
		require.Equal(t, test.want, strings.Join(lines, "; "), test.to)
		require.Equal(t, len(e.Reasons) > 0, e.Allowed)
	}
}
