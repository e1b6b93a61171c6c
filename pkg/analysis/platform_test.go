package analysis

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"egress-agent/pkg/internal/policytest"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/platform"
	"egress-agent/pkg/policy"
)

func platformDocument(t testing.TB, name, fields string) netpol.PlatformDocument {
	t.Helper()
	document, problems := platform.Parse([]byte(`{"namespaces": {}, `+fields+`}`), policy.Names{})
	require.Empty(t, problems)
	return netpol.PlatformDocument{Name: name, Document: document}
}

func TestExplainPlatform(t *testing.T) {
	documents := []netpol.PlatformDocument{
		platformDocument(t, "baseline", `"allowedDestinations": [{"name": "logs", "cidr": "10.200.0.0/24", "ports": [443]}],
			"guardrails": {"denied": [{"name": "smtp", "cidr": "0.0.0.0/0", "ports": [25], "reason": "no mail"}]}`),
		platformDocument(t, "region", `"guardrails": {"within": [{"name": "corporate", "cidr": "10.0.0.0/8"}, {"name": "office", "cidr": "192.0.2.0/24"}]}`),
		platformDocument(t, "warns", `"guardrails": {"mode": "warn", "denied": [{"name": "all", "cidr": "0.0.0.0/0"}]}`),
	}
	p := &policy.Policy{Destinations: []policy.Destination{{Name: "web", CIDR: netip.MustParsePrefix("0.0.0.0/0")}}}
	for target, want := range map[string]Explanation{
		"10.1.0.1:443":   {Allowed: true, Reasons: []Reason{{Name: "web", Path: "allowedDestinations[0]", Prefix: "0.0.0.0/0"}}, Nearest: []string{}},
		"10.1.0.1:25":    {Reasons: []Reason{}, Nearest: []string{"closed by guardrail smtp of platform document baseline: no mail"}},
		"8.8.8.8:25":     {Reasons: []Reason{}, Nearest: []string{"closed by guardrail smtp of platform document baseline: no mail", "outside of what platform document region permits: corporate, office"}},
		"10.200.0.1:443": {Allowed: true, Reasons: []Reason{{Name: "web", Path: "allowedDestinations[0]", Prefix: "0.0.0.0/0"}, {Name: "logs", Path: "platform document baseline, allowedDestinations[0]", Prefix: "10.200.0.0/24"}}, Nearest: []string{}},
	} {
		parsed, err := ParseTarget(target)
		require.NoError(t, err)
		options := netpol.Options{Family: netpol.IPv4}
		require.Equal(t, want, ExplainPlatform(Explain(p, netpol.Inputs{Options: options}, parsed), documents, netpol.Inputs{Options: options}, parsed), target)
	}
}

// TestExplainPlatformAgreesWithCompiler compares explanations with the NetworkPolicies of a namespace.
func TestExplainPlatformAgreesWithCompiler(t *testing.T) {
	table := testTable(t)
	random, options := rand.New(rand.NewPCG(3, 3)), netpol.Options{Family: netpol.IPv4}
	for range 300 {
		var documents []netpol.PlatformDocument
		for i := range random.IntN(3) {
			d := &platform.Document{Guardrails: platform.Guardrails{Mode: platform.Enforce, Denied: policytest.RandomPolicy(random).Destinations}}
			if random.IntN(2) == 0 {
				d.Guardrails.Within = append([]policy.Destination{}, policytest.RandomPolicy(random).Destinations...)
			}
			documents = append(documents, netpol.PlatformDocument{Name: fmt.Sprint(i), Document: d})
		}
		p := policytest.RandomPolicy(random)
		compiled := netpol.CompileConfigMap(policytest.ConfigMap(p), netpol.Inputs{
			Table: table, Options: options, Guardrails: netpol.NewGuardrails(documents, table, netpol.IPv4),
		})
		require.Empty(t, compiled.Problems)
		blocks := policytest.BlocksOf(compiled.Spec())
		for _, address := range policytest.ProbeAddresses(p, table, random) {
			for _, port := range []uint16{1, 53, 80, 443, 65535} {
				target := Target{Address: address, Port: port, Protocol: policy.TCP}
				e := ExplainPlatform(Explain(compiled.Policy, netpol.Inputs{Table: table, Options: options}, target), documents, netpol.Inputs{Table: table, Options: options}, target)
				require.Equal(t, policytest.Allows(blocks, address, policy.TCP, port), e.Allowed, "%s: %+v", target, e)
			}
		}
	}
}
