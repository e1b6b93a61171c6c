package analysis

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// TestCompareAgreesWithExplain compares random pairs of versions at each address and port. Opens must have what Explain
// allows in the new version and not in the old version, with the same entries. Every second pair is one policy with two
// tables.
func TestCompareAgreesWithExplain(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	opened := 0
	for i := range 140 {
		oldVersion, newVersion := randomVersion(t, random), randomVersion(t, random)
		if i%2 == 0 {
			newVersion.Policy = oldVersion.Policy
		}
		comparison := Compare(oldVersion, newVersion, netpol.IPv4)
		opened += len(comparison.Opens)
		for address := range byte(17) {
			for port := range uint16(9) {
				for _, protocol := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP} {
					target := Target{Address: netip.AddrFrom4([4]byte{10, 0, 0, address}), Port: port + 1, Protocol: protocol}
					oldPaths, newPaths := allowing(oldVersion, target), allowing(newVersion, target)
					opens, closes := newPaths, oldPaths
					if len(oldPaths) > 0 {
						opens = nil
					}
					if len(newPaths) > 0 {
						closes = nil
					}
					require.Equal(t, opens, pathsOpening(comparison.Opens, target), "%s: %+v to %+v: %+v", target, oldVersion, newVersion, comparison)
					require.Equal(t, closes, pathsOpening(comparison.Closes, target), "%s: %+v to %+v: %+v", target, oldVersion, newVersion, comparison)
				}
			}
		}
	}
	require.Greater(t, opened, 100)
}

// randomVersion uses few addresses and ports, so entries overlap. The table may be nil.
func randomVersion(t *testing.T, random *rand.Rand) PolicyVersion {
	number := func(n int) uint16 { return uint16(1 + random.IntN(n)) }
	prefix := func() netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(random.IntN(16))}), 28+random.IntN(5)).Masked()
	}
	v := PolicyVersion{Policy: &policy.Policy{DefaultAction: policy.Deny}}
	if random.IntN(10) == 0 {
		v.Policy.DefaultAction = policy.Allow
	}
	for i := range random.IntN(4) {
		d := policy.Destination{Name: fmt.Sprint(i)}
		if random.IntN(2) == 0 {
			d.CIDR = prefix()
		} else {
			d.Service = []string{"S3", "EC2"}[random.IntN(2)]
			d.Regions = [][]string{nil, {"us-east-1"}, {"us-east-1", "us-west-2"}}[random.IntN(3)]
		}
		for range random.IntN(3) {
			first := number(6)
			d.Ports = append(d.Ports, policy.Port{Protocol: []policy.Protocol{policy.TCP, policy.UDP}[random.IntN(2)], First: first, Last: first + number(3) - 1})
		}
		v.Policy.Destinations = append(v.Policy.Destinations, d)
	}
	if random.IntN(10) == 0 {
		return v
	}
	var rows []string
	for range 1 + random.IntN(5) {
		rows = append(rows, row(prefix().String(), []string{"S3", "EC2"}[random.IntN(2)], []string{"us-east-1", "us-west-2"}[random.IntN(2)]))
	}
	v.Table = tableOf(t, rows...)
	return v
}

func row(prefix, service, region string) string {
	return fmt.Sprintf(`{"ip_prefix": %q, "service": %q, "region": %q}`, prefix, service, region)
}

func tableOf(t *testing.T, rows ...string) *awsranges.Table {
	table, err := awsranges.Parse([]byte(`{"syncToken": "1", "prefixes": [` + strings.Join(rows, ", ") + `]}`))
	require.NoError(t, err)
	return table
}

// allowing returns the paths of the destinations that allow a target, in the policy's order, or nil.
func allowing(v PolicyVersion, target Target) []string {
	var paths []string
	for _, reason := range Explain(v.Policy, netpol.Inputs{Table: v.Table, Options: netpol.Options{Family: netpol.IPv4}}, target).Reasons {
		paths = append(paths, reason.Path)
	}
	return slices.Compact(paths) // an entry has a reason for each published prefix
}

// pathsOpening returns the paths of the differences that contain a target, or nil.
func pathsOpening(differences []Difference, target Target) []string {
	var paths []string
	for _, o := range differences {
		if slices.ContainsFunc(o.Prefixes, func(p netip.Prefix) bool { return p.Contains(target.Address) }) &&
			slices.ContainsFunc(o.Ports, func(ports string) bool {
				var protocol string
				var first, last uint16
				if ports == "every port" {
					return true
				}
				if n, _ := fmt.Sscanf(ports, "%s %d-%d", &protocol, &first, &last); n == 2 {
					last = first
				}
				return protocol == string(target.Protocol) && first <= target.Port && target.Port <= last
			}) {
			paths = append(paths, o.Path)
		}
	}
	return paths
}

func tcp(port uint16) policy.Port {
	return policy.Port{Protocol: policy.TCP, First: port, Last: port}
}

func TestCompareEveryPort(t *testing.T) {
	cidr := netip.MustParsePrefix("10.0.0.0/24")
	https := &policy.Policy{Destinations: []policy.Destination{{Name: "web", CIDR: cidr, Ports: []policy.Port{{Protocol: policy.TCP, First: 443, Last: 443}}}}}
	every := &policy.Policy{Destinations: []policy.Destination{{Name: "all", CIDR: cidr}}}
	require.Equal(t, Comparison{
		Opens: []Difference{{"all", "allowedDestinations[0]",
			[]string{"protocols without ports", "SCTP 1-65535", "TCP 1-442", "TCP 444-65535", "UDP 1-65535"}, []netip.Prefix{cidr}, ""}},
		Closes: []Difference{},
	}, Compare(PolicyVersion{Policy: https, Table: nil}, PolicyVersion{Policy: every, Table: nil}, netpol.IPv4))
	require.Equal(t, Comparison{
		Opens: []Difference{}, Closes: []Difference{{"all", "allowedDestinations[0]", []string{"every port"}, []netip.Prefix{cidr}, ""}},
	}, Compare(PolicyVersion{Policy: every, Table: nil}, PolicyVersion{Policy: &policy.Policy{}, Table: nil}, netpol.IPv4))
}

// TestCompareTables compares a policy under two tables. If one destination no longer opens an address, but another
// destination does, the address is not closed. The second destination of the policy is S3 in us-east-1.
func TestCompareTables(t *testing.T) {
	ec2 := row("10.9.0.0/24", "EC2", "us-east-1")
	oldTable := tableOf(t, ec2, row("10.0.0.0/24", "S3", "us-east-1"))
	newTable := tableOf(t, ec2, row("10.0.0.0/25", "S3", "us-east-1"), row("10.0.1.0/24", "S3", "us-east-1"))
	movedTable := tableOf(t, ec2, row("10.0.0.0/24", "S3", "us-west-2"))
	service := func(name, region string) policy.Destination {
		return policy.Destination{Name: "first", Service: name, Regions: []string{region}, Ports: []policy.Port{tcp(443)}}
	}
	cidr := func(cidr string, ports ...policy.Port) policy.Destination {
		return policy.Destination{Name: "first", CIDR: netip.MustParsePrefix(cidr), Ports: ports}
	}
	s3 := service("s3", "us-east-1")
	s3.Name = "s3"
	opening := func(prefix string) []Difference {
		if prefix == "" {
			return []Difference{}
		}
		return []Difference{{"s3", "allowedDestinations[1]", []string{"TCP 443"}, []netip.Prefix{netip.MustParsePrefix(prefix)}, ""}}
	}
	for _, test := range []struct {
		name               string
		first              policy.Destination
		oldTable, newTable *awsranges.Table
		family             netpol.Family
		opens, closes      string
	}{
		{"another entry elsewhere", service("ec2", "us-east-1"), oldTable, newTable, netpol.IPv4, "10.0.1.0/24", "10.0.0.128/25"},
		{"the same table", service("ec2", "us-east-1"), oldTable, oldTable, netpol.IPv4, "", ""},
		{"no address of the family", service("ec2", "us-east-1"), oldTable, newTable, netpol.IPv6, "", ""},
		{"no old table", cidr("10.9.0.0/24"), nil, oldTable, netpol.IPv4, "10.0.0.0/24", ""},
		{"another entry still opens the addresses", cidr("10.0.0.0/8"), oldTable, newTable, netpol.IPv4, "", ""},
		{"another entry still opens some addresses", cidr("10.0.0.192/26", tcp(443)), oldTable, newTable, netpol.IPv4, "10.0.1.0/24", "10.0.0.128/26"},
		{"another entry still opens other ports", cidr("10.0.0.0/8", tcp(80)), oldTable, newTable, netpol.IPv4, "10.0.1.0/24", "10.0.0.128/25"},
		{"from one entry to another", service("s3", "us-west-2"), oldTable, movedTable, netpol.IPv4, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := &policy.Policy{Destinations: []policy.Destination{test.first, s3}}
			require.Equal(t, Comparison{Opens: opening(test.opens), Closes: opening(test.closes)},
				Compare(PolicyVersion{Policy: p, Table: test.oldTable}, PolicyVersion{Policy: p, Table: test.newTable}, test.family))
			p.DefaultAction = policy.Allow
			require.Equal(t, Comparison{Opens: []Difference{}, Closes: []Difference{}}, Compare(PolicyVersion{Policy: p, Table: test.oldTable}, PolicyVersion{Policy: p, Table: test.newTable}, test.family))
		})
	}
}
