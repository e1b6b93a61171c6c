package status

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"egress-agent/pkg/awsranges"
)

func TestReportAgesRanges(t *testing.T) {
	table, err := awsranges.Parse([]byte(`{"syncToken": "1700000000", "createDate": "2023-11-14-22-13-20", "ipv6_prefixes": [], "prefixes": [
		{"ip_prefix": "198.18.0.0/24", "region": "us-east-1", "service": "AMAZON", "network_border_group": "us-east-1"}]}`))
	require.NoError(t, err)
	published := time.Unix(1700000000, 0).UTC()
	confirmed := published.Add(time.Hour)
	fromFile := NewRanges("ip-ranges.json", table)
	fromAgent := NewRanges("ConfigMap egress-system/egress-ranges", table)
	fromAgent.Confirmed = &confirmed
	for _, test := range []struct {
		name   string
		ranges *Ranges
		madeAt time.Time
		age    time.Duration
	}{
		{"a file since publication", fromFile, published.Add(3 * time.Hour), 3 * time.Hour},
		{"the agent's since confirmation", fromAgent, published.Add(3 * time.Hour), 2 * time.Hour},
		{"a clock that runs behind", fromFile, published.Add(-time.Hour), 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			report := NewReport("https://10.0.0.1:6443", test.madeAt, test.ranges, Cluster{})
			require.Equal(t, test.age, report.Ranges.Age())
			require.Equal(t, published, report.Ranges.Published)
			require.Zero(t, test.ranges.AgeSeconds, "NewReport must not change its argument")
			require.Equal(t, []Policy{}, report.Policies)
		})
	}
	require.Nil(t, NewReport("", published, nil, Cluster{}).Ranges)
}
