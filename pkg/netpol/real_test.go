package netpol

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/policy"
)

// TestRealDocument compiles policies of one destination with AWS's real document of 2026-08-22, in the folder that
// IP_RANGES_DATA names. The NetworkPolicy must have the fewest possible CIDRs.
func TestRealDocument(t *testing.T) {
	dir := os.Getenv("IP_RANGES_DATA")
	if dir == "" {
		t.Skipf("IP_RANGES_DATA is not set: it names a folder with AWS's ip-ranges.json of 2026-08-22")
	}
	table, err := awsranges.ReadFile(filepath.Join(dir, "ip-ranges.json"))
	require.NoError(t, err)
	for _, test := range []struct {
		service string
		regions []string
		family  Family
		want    int
	}{
		{"s3", []string{"us-east-1"}, IPv4, 15},
		{"s3", nil, IPv4, 175},
		{"dynamodb", []string{"us-east-1"}, IPv4, 5},
		{"ec2", []string{"us-east-1"}, IPv4, 232},
		{"ec2", nil, IPv4, 726},
		{"amazon", []string{"us-east-1"}, IPv4, 509},
		{"amazon", nil, IPv4, 1753},
		{"amazon", nil, IPv6, 2107},
		{"amazon", nil, Dual, 1753 + 2107},
		{"iot_core", nil, IPv4, 0},
	} {
		ports := []policy.Port{{Protocol: policy.TCP, First: 443, Last: 443}}
		p := &policy.Policy{Destinations: []policy.Destination{{Name: "x", Service: test.service, Regions: test.regions, Ports: ports}}}
		result, problems := compile(p, table, Options{Family: test.family, MaxPortSlots: DefaultPortSlots})
		require.Empty(t, problems)
		checkShape(t, result.Spec)
		got := 0
		for _, rule := range result.Spec.Egress {
			got += len(rule.To)
		}
		require.Equal(t, test.want, got, "%s in %v", test.service, test.regions)
	}
}
