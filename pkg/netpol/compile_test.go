package netpol

import (
	"encoding/json"
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
	"egress-agent/pkg/internal/policytest"
	"egress-agent/pkg/policy"
)

// TestCompileAgreesWithOracles also requires that a few of the random policies exceed the port slots of a CIDR, and
// that most do not.
func TestCompileAgreesWithOracles(t *testing.T) {
	table := testTable(t)
	refused := 0
	for seed := range uint64(500) {
		random := rand.New(rand.NewPCG(seed, 0))
		p, family := policytest.RandomPolicy(random), randomFamily(random)
		if _, problems := compile(p, table, Options{Family: family, MaxPortSlots: DefaultPortSlots}); problems != nil {
			refused++
		}
		checkCompile(t, p, table, family, random)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	require.Positive(t, refused)
	require.Less(t, refused, 250)
}

func FuzzCompile(f *testing.F) {
	table := testTable(f)
	f.Add(uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, a, b uint64) {
		random := rand.New(rand.NewPCG(a, b))
		checkCompile(t, policytest.RandomPolicy(random), table, randomFamily(random), random)
	})
}

func randomFamily(random *rand.Rand) Family { return []Family{IPv4, IPv6, Dual}[random.IntN(3)] }

func testTable(tb testing.TB) *awsranges.Table {
	table, err := awsranges.ReadFile("../../testdata/ranges/ip-ranges.json")
	require.NoError(tb, err)
	return table
}

// TestEmptyDestinationOpensNothing compiles destinations without a CIDR, a service or ports. No policy.json can contain
// them.
func TestEmptyDestinationOpensNothing(t *testing.T) {
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
	custom, err := awsranges.ReadFiles("", awsranges.CustomFiles{Files: []string{"../../testdata/ranges/custom.json"}})
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

func TestNetworkPolicyForSetsMetadata(t *testing.T) {
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
	require.Equal(t, object.Annotations[SpecDigestAnnotation], SpecDigestOf(decoded.Spec), "the API server does not change the digest")
}

// TestCompileAllocations requires at most 100 allocations for the seed policy.
func TestCompileAllocations(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(corpus, "valid", "seed.json"))
	require.NoError(t, err)
	document, problems := policy.Parse(data)
	require.Empty(t, problems)
	p, problems := policy.Validate(document, policy.Names{})
	require.Empty(t, problems)
	table := testTable(t)
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() {
		compile(p, table, Options{Family: IPv4, AllowDNS: true, MaxPortSlots: DefaultPortSlots})
	}), 100.0)
}

func TestDefaultActionAllowOpensEverything(t *testing.T) {
	result, problems := evaluate(`{"defaultAction": "allow", "allowedDestinations": []}`)
	require.Empty(t, problems)
	require.Equal(t, []networkingv1.NetworkPolicyEgressRule{{}}, result.Spec.Egress)
}

func TestNetworkPolicyNameFitsLimit(t *testing.T) {
	for _, test := range []struct{ configMap, want string }{
		{"egress", "egress"},
		{strings.Repeat("x", 57), strings.Repeat("x", 57)},
		{strings.Repeat("x", 58), strings.Repeat("x", 46) + "-5ef8b2e5e7"},
		{strings.Repeat("x", 45) + "." + strings.Repeat("y", 20), ""}, // cut behind the dot
		{strings.Repeat("x", 45) + "-" + strings.Repeat("y", 20), ""},
		{strings.Repeat("x", 46) + "." + strings.Repeat("y", 20), ""},
	} {
		got := NetworkPolicyName(test.configMap)
		require.LessOrEqual(t, len(got), maxNameLength)
		require.Regexp(t, `^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`, got)
		if test.want != "" {
			require.Equal(t, test.want, got)
		}
	}
	require.NotEqual(t, NetworkPolicyName(strings.Repeat("x", 99)+"a"), NetworkPolicyName(strings.Repeat("x", 99)+"b"))
}
