package netpol

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"egress-agent/pkg/policy"
)

// BenchmarkLanguage compiles policies with the fields that few policies have. The floor of each is the same policy
// without the field, and the figure must be at most 1.2 times the floor. The floor of except, which gives many CIDRs, is
// a policy with these CIDRs.
func BenchmarkLanguage(b *testing.B) {
	table := realTable(b)
	const database = `, {"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]}]}`
	exceptFloor := `{"allowedDestinations": [`
	for i, prefix := range mustResolve(b, `{"allowedDestinations": [{"name": "web", "cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"], "ports": [443]}]}`) {
		if i > 0 {
			exceptFloor += ", "
		}
		exceptFloor += `{"name": "` + prefix + `", "cidr": "` + prefix + `", "ports": [443]}`
	}
	for _, test := range []struct{ name, floor, figure string }{
		{"without, one region", `{"allowedDestinations": [{"name": "a", "awsService": "amazon", "regions": ["us-east-1"], "ports": [443]}` + database,
			`{"allowedDestinations": [{"name": "a", "awsService": "amazon", "without": ["ec2"], "regions": ["us-east-1"], "ports": [443]}` + database},
		{"without, every region", `{"allowedDestinations": [{"name": "a", "awsService": "amazon", "ports": [443]}` + database,
			`{"allowedDestinations": [{"name": "a", "awsService": "amazon", "without": ["ec2"], "ports": [443]}` + database},
		{"except", exceptFloor + database, `{"allowedDestinations": [{"name": "web", "cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"], "ports": [443]}` + database},
		{"podSelector, expires, reason", `{"allowedDestinations": [{"name": "s3", "awsService": "s3", "regions": ["us-east-1"], "ports": [443]}` + database,
			`{"podSelector": {"matchLabels": {"app": "web"}}, "allowedDestinations": [{"name": "s3", "awsService": "s3", "regions": ["us-east-1"], "ports": [443], "expires": "2099-01-01", "reason": "x"}` + database},
	} {
		for _, variant := range []struct{ name, document string }{{"floor", test.floor}, {"figure", test.figure}} {
			b.Run(test.name+"/"+variant.name, func(b *testing.B) {
				p := parsed(b, variant.document)
				in := Inputs{Table: table, Options: Options{Family: Dual, AllowDNS: true, MaxPortSlots: DefaultPortSlots}, Now: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)}
				b.ReportAllocs()
				for b.Loop() {
					c := &Compiled{Policy: p, options: in.Options}
					var warnings policy.Warnings
					c.compile(in, &warnings)
					if c.Problems != nil || len(c.Spec().Egress) == 0 {
						b.Fatal("not compiled: ", c.Problems)
					}
				}
			})
		}
	}
}

// mustResolve returns the CIDRs of the first destination of a policy.
func mustResolve(b *testing.B, document string) []string {
	found, ok := Resolve(parsed(b, document).Destinations[0], nil)
	require.True(b, ok)
	var texts []string
	for _, prefix := range found {
		texts = append(texts, prefix.String())
	}
	return texts
}
