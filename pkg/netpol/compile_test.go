package netpol

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/policy"
)

// TestCompileAgreesWithOracles also requires that the random policies reach the dataplane's limit: some
// have more port slots than there are, and most have not.
func TestCompileAgreesWithOracles(t *testing.T) {
	table := testTable(t)
	refused := 0
	for seed := range uint64(2000) {
		random := rand.New(rand.NewPCG(seed, 0))
		p, family := randomPolicy(random), randomFamily(random)
		if _, problems := compile(p, table, Options{Family: family, MaxPortSlots: DefaultPortSlots}); problems != nil {
			refused++
		}
		checkCompile(t, p, table, family, random)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	require.Greater(t, refused, 10)
	require.Less(t, refused, 1000)
}

func FuzzCompile(f *testing.F) {
	table := testTable(f)
	f.Add(uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, a, b uint64) {
		random := rand.New(rand.NewPCG(a, b))
		checkCompile(t, randomPolicy(random), table, randomFamily(random), random)
	})
}

// points are the edges of every prefix in play, the addresses one beyond, and a few random ones.
func points(p *policy.Policy, table *awsranges.Table, random *rand.Rand) []netip.Addr {
	var prefixes []netip.Prefix
	for _, d := range p.Destinations {
		if d.Service == "" {
			prefixes = append(prefixes, d.CIDR)
		}
	}
	for range 4 {
		prefixes = append(prefixes, table.Rows()[random.IntN(len(table.Rows()))].Prefix, randomPrefix(random))
	}
	var all []netip.Addr
	for _, prefix := range prefixes {
		first, final := prefix.Addr(), lastAddress(prefix)
		for _, address := range []netip.Addr{first, first.Prev(), final, final.Next()} {
			if address.IsValid() {
				all = append(all, address)
			}
		}
	}
	return all
}

func lastAddress(prefix netip.Prefix) netip.Addr {
	bytes := prefix.Addr().AsSlice()
	for bit := prefix.Bits(); bit < len(bytes)*8; bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	address, _ := netip.AddrFromSlice(bytes)
	return address
}

// randomPolicy keeps to few addresses and ports, so that entries overlap, nest and touch.
func randomPolicy(random *rand.Rand) *policy.Policy {
	p := &policy.Policy{DefaultAction: policy.Deny}
	for i := range random.IntN(12) {
		d := policy.Destination{Name: fmt.Sprint(i)}
		if random.IntN(4) == 0 {
			d.Service = []string{"S3", "DYNAMODB", "AMAZON", "IOT_CORE"}[random.IntN(4)]
			if random.IntN(3) > 0 {
				d.Regions = [][]string{{"us-east-1"}, {"us-west-2"}, {"us-west-2", "us-east-1"}}[random.IntN(3)]
			}
		} else {
			d.CIDR = randomPrefix(random)
		}
		for range random.IntN(4) {
			first := []uint16{1, 53, 80, 443, 444, 445}[random.IntN(6)]
			port := policy.Port{Protocol: []policy.Protocol{policy.TCP, policy.TCP, policy.UDP, policy.SCTP}[random.IntN(4)], First: first, Last: first}
			if random.IntN(3) == 0 {
				port.Last = []uint16{first, first + 1, 450, 65535}[random.IntN(4)]
				port.Last = max(port.Last, port.First)
			}
			d.Ports = append(d.Ports, port)
		}
		if random.IntN(8) == 0 { // enough for a few entries to take more slots than there are
			for port := uint16(1001); port < 1021; port += 2 {
				d.Ports = append(d.Ports, policy.Port{Protocol: policy.TCP, First: port + uint16(i%2)*100, Last: port + uint16(i%2)*100})
			}
		}
		p.Destinations = append(p.Destinations, d)
	}
	return p
}

func randomPrefix(random *rand.Rand) netip.Prefix {
	if random.IntN(3) == 0 {
		address := netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0x10, 15: byte(random.IntN(8))})
		return netip.PrefixFrom(address, []int{0, 36, 48, 124, 125, 126, 127, 128}[random.IntN(8)]).Masked()
	}
	address := netip.AddrFrom4([4]byte{198, 18, byte(random.IntN(4)), byte(random.IntN(4) * 64)})
	return netip.PrefixFrom(address, []int{0, 15, 21, 22, 23, 24, 25, 26, 27, 32}[random.IntN(10)]).Masked()
}

func randomFamily(random *rand.Rand) Family { return []Family{IPv4, IPv6, Dual}[random.IntN(3)] }

func testTable(tb testing.TB) *awsranges.Table {
	table, err := awsranges.ReadFile("../../testdata/ranges/ip-ranges.json")
	require.NoError(tb, err)
	return table
}

// TestNothingOpensNothing builds what no document can: entries without a destination or ports.
func TestNothingOpensNothing(t *testing.T) {
	for _, d := range []policy.Destination{
		{Name: "no destination"},
		{Name: "no ports", CIDR: netip.MustParsePrefix("10.0.0.0/8"), Ports: []policy.Port{}},
		{Name: "no prefixes", Service: "S3", Regions: []string{"mars-1"}},
	} {
		for _, family := range []Family{IPv4, IPv6, Dual, ""} {
			result, problems := compile(&policy.Policy{Destinations: []policy.Destination{d}}, testTable(t), Options{Family: family})
			require.Empty(t, problems)
			require.Empty(t, result.Spec.Egress, d.Name)
			require.Equal(t, []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}, result.Spec.PolicyTypes)
		}
	}
}

func TestCompileWithoutTable(t *testing.T) {
	document := `{"allowedDestinations": [{"name": "s3", "awsService": "s3", "ports": [443]}, {"name": "db", "cidr": "10.1.0.0/24", "ports": [443]},
		{"name": "bills", "awsService": "billing", "ports": [443]}]}`
	custom, err := awsranges.ReadFiles("", awsranges.Custom{Files: []string{"../../testdata/ranges/custom.json"}})
	require.NoError(t, err)
	configMap := &corev1.ConfigMap{Data: map[string]string{policy.Key: document}}
	_, problems := compileDocument(configMap, nil, Options{})
	require.Equal(t, "Policy validation failed: Invalid service: billing (allowedDestinations[2].awsService)", problems.Error())
	result, problems := compileDocument(configMap, custom, Options{})
	require.Empty(t, problems)
	require.Equal(t, []string{"s3"}, result.Unresolved)
	require.Equal(t, []Count{{"db", 1}, {"bills", 2}}, result.Counts)
	require.Len(t, result.Spec.Egress, 1)
}

func TestObject(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(corpus, "valid", "seed.json"))
	require.NoError(t, err)
	configMap := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "egress", Namespace: "tenant-a", UID: "1"},
		Data:       map[string]string{policy.Key: string(data)},
	}
	compiled := CompileConfigMap(configMap, Inputs{Table: testTable(t), Options: Options{Family: IPv4, AllowDNS: true, DNSCIDRs: []netip.Prefix{netip.MustParsePrefix("169.254.20.10/32")}}})
	require.Empty(t, compiled.Problems)
	object := NetworkPolicyFor(configMap, compiled)
	require.Equal(t, map[string]string{ManagedByLabel: ManagedBy}, object.Labels)
	require.Equal(t, "s3=2 db=1", object.Annotations[DestinationsAnnotation])
	require.Equal(t, "169.254.20.10/32", object.Spec.Egress[0].To[1].IPBlock.CIDR)
	encoded, err := json.Marshal(object)
	require.NoError(t, err)
	var decoded networkingv1.NetworkPolicy
	require.NoError(t, json.Unmarshal(encoded, &decoded))
	require.Equal(t, object.Annotations[SpecDigestAnnotation], SpecDigestOf(decoded.Spec), "a digest survives the API server")
}

// TestCompileAllocations holds the seed policy to 100 allocations.
func TestCompileAllocations(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(corpus, "valid", "seed.json"))
	require.NoError(t, err)
	document, problems := policy.Parse(data)
	require.Empty(t, problems)
	p, problems := policy.Validate(document, nil)
	require.Empty(t, problems)
	table := testTable(t)
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() {
		compile(p, table, Options{Family: IPv4, AllowDNS: true, MaxPortSlots: DefaultPortSlots})
	}), 100.0)
}

func TestAllow(t *testing.T) {
	result, problems := evaluate(`{"defaultAction": "allow", "allowedDestinations": []}`)
	require.Empty(t, problems)
	require.Equal(t, []networkingv1.NetworkPolicyEgressRule{{}}, result.Spec.Egress)
}

func TestName(t *testing.T) {
	for _, test := range []struct{ configMap, want string }{
		{"egress", "egress"},
		{strings.Repeat("x", 57), strings.Repeat("x", 57)},
		{strings.Repeat("x", 58), strings.Repeat("x", 46) + "-5ef8b2e5e7"},
		{strings.Repeat("x", 45) + "." + strings.Repeat("y", 20), ""}, // cut behind the dot
		{strings.Repeat("x", 45) + "-" + strings.Repeat("y", 20), ""},
		{strings.Repeat("x", 46) + "." + strings.Repeat("y", 20), ""},
	} {
		got := NetworkPolicyName(test.configMap)
		require.LessOrEqual(t, len(got), longestName)
		require.Regexp(t, `^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`, got)
		if test.want != "" {
			require.Equal(t, test.want, got)
		}
	}
	require.NotEqual(t, NetworkPolicyName(strings.Repeat("x", 99)+"a"), NetworkPolicyName(strings.Repeat("x", 99)+"b"))
}
