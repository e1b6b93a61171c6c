package netpol

import (
	"testing"

	"github.com/stretchr/testify/require"

	"egress-agent/pkg/policy"
)

// BenchmarkGuardrails compiles AMAZON of every region within two regions and without five guardrails. The floor compiles
// it without guardrails.
func BenchmarkGuardrails(b *testing.B) {
	table, options := realTable(b), Options{Family: IPv4, AllowDNS: true, MaxPortSlots: DefaultPortSlots}
	document := platformDocument(b, "baseline", `"guardrails": {
		"within": [{"name": "eu", "awsService": "amazon", "regions": ["eu-west-1", "eu-central-1"]}],
		"denied": [{"name": "metadata", "cidr": "169.254.169.254/32"}, {"name": "smtp", "cidr": "0.0.0.0/0", "ports": [25]},
			{"name": "s3", "awsService": "s3", "regions": ["eu-west-1"]}, {"name": "dynamodb", "awsService": "dynamodb"}, {"name": "ssh", "cidr": "0.0.0.0/0", "ports": [22]}]}`)
	guardrails := NewGuardrails([]PlatformDocument{document}, table, IPv4)
	configMap := tenantPolicy(`{"allowedDestinations": [{"name": "aws", "awsService": "amazon", "ports": [443]}]}`)
	for _, test := range []struct {
		name       string
		guardrails *Guardrails
	}{{"floor", nil}, {"guarded", guardrails}} {
		b.Run(test.name, func(b *testing.B) {
			in := Inputs{Table: table, Options: options, Guardrails: test.guardrails}
			for b.Loop() {
				compiled := CompileConfigMap(configMap, in)
				require.Equal(b, policy.Problems(nil), compiled.Problems)
				compiled.Spec()
			}
		})
	}
	b.Run("resolving", func(b *testing.B) {
		for b.Loop() {
			NewGuardrails([]PlatformDocument{document}, table, IPv4)
		}
	})
}
