package admission

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/runtime"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/internal/liveheap"
)

var hostileRegions = []string{"us-east-1", "us-west-2", "eu-west-1", "eu-central-1", "ap-south-1", "ap-northeast-1", "sa-east-1", "ca-central-1"}

// hostileTable returns a table of two thousand rows that do not aggregate.
func hostileTable(t testing.TB) *awsranges.Table {
	var prefixes []map[string]string
	for i := range 1000 {
		region := hostileRegions[i%len(hostileRegions)]
		for _, service := range []string{"AMAZON", "S3"} {
			prefixes = append(prefixes, map[string]string{"ip_prefix": fmt.Sprintf("3.%d.%d.0/24", i>>7, i<<1&255), "region": region, "service": service, "network_border_group": region})
		}
	}
	data, err := json.Marshal(map[string]any{"syncToken": "1700000000", "createDate": "2023-11-14-22-13-20", "prefixes": prefixes, "ipv6_prefixes": []string{}})
	require.NoError(t, err)
	table, err := awsranges.Parse(data)
	require.NoError(t, err)
	return table
}

// hostileDestinations are functions that each write the i-th destination in a different way.
var hostileDestinations = []func(random *rand.Rand, i int) string{
	func(_ *rand.Rand, i int) string {
		return fmt.Sprintf(`{"name":"d%d","awsService":"amazon","ports":[443]}`, i)
	},
	func(random *rand.Rand, i int) string {
		return fmt.Sprintf(`{"name":"d%d","awsService":"Amazon","ports":[%d]}`, i, 1+random.IntN(65535))
	},
	func(random *rand.Rand, i int) string {
		regions := make([]string, 1+random.IntN(len(hostileRegions)))
		for j, k := range random.Perm(len(hostileRegions))[:len(regions)] {
			regions[j] = hostileRegions[k]
		}
		return fmt.Sprintf(`{"name":"d%d","awsService":"s3","regions":["%s"],"ports":[%d]}`, i, strings.Join(regions, `","`), 443+random.IntN(20))
	},
	func(_ *rand.Rand, i int) string {
		return fmt.Sprintf(`{"name":"d%d","awsService":"amazon","regions":["us-east-1"%s]}`, i, strings.Repeat(`,"us-east-1"`, 40))
	},
	func(random *rand.Rand, i int) string {
		return fmt.Sprintf(`{"name":"d%d","cidr":"10.%d.%d.0/24","ports":[443]}`, i, random.IntN(256), random.IntN(256))
	},
	func(random *rand.Rand, i int) string {
		return fmt.Sprintf(`{"name":"d%d","cidr":"10.0.0.0/%d","ports":[%d%s]}`, i, 8+random.IntN(25), 1+random.IntN(65535), strings.Repeat(",7", 30))
	},
	func(random *rand.Rand, i int) string {
		return fmt.Sprintf(`{"name":"d","cidr":"10.0.0.%d/24","prots":[443],"awsService":"sss%d","regions":["us-esat-%d"]}`, 1+random.IntN(255), i, i)
	},
	func(*rand.Rand, int) string { return "{}" },
	func(*rand.Rand, int) string { return "[]" },
	func(*rand.Rand, int) string { return strings.Repeat("[", 50) + strings.Repeat("]", 50) },
}

// hostilePolicy returns a policy with n destinations of the kinds in a bit mask.
func hostilePolicy(n int, kinds uint16, seed uint64) string {
	random := rand.New(rand.NewPCG(seed, uint64(n)))
	var chosen []func(*rand.Rand, int) string
	for i, write := range hostileDestinations {
		if kinds>>i&1 == 1 {
			chosen = append(chosen, write)
		}
	}
	destinations := make([]string, n)
	for i := range destinations {
		destinations[i] = "null"
		if len(chosen) > 0 {
			destinations[i] = chosen[random.IntN(len(chosen))](random, i)
		}
	}
	return `{"allowedDestinations":[` + strings.Join(destinations, ",") + `]}`
}

// FuzzReviewMemory checks that a review of any policy uses a bounded amount of live memory. The bound is linear in the
// size of the review and of the table.
func FuzzReviewMemory(f *testing.F) {
	for i := range hostileDestinations {
		f.Add(uint16(1000), uint16(1)<<i, uint64(1))
	}
	f.Add(uint16(1000), uint16(0xffff), uint64(2))
	f.Add(uint16(20_000), uint16(1)<<7, uint64(3))
	const perByte, perRow, constant = 64, 256, 1 << 20
	table := hostileTable(f)
	bound := func(body []byte) int { return perByte*len(body) + perRow*len(table.Rows()) + constant }
	f.Fuzz(func(t *testing.T, n, kinds uint16, seed uint64) {
		body := review(t, request("CREATE", runtime.RawExtension{}, object(t, hostilePolicy(int(n%30_000), kinds, seed))))
		if len(body) > 3<<20 {
			t.Skip("larger than the server accepts")
		}
		live := liveheap.Peak(func() {
			request, err := readReview(body)
			if err == nil {
				_, err = Review(request, Rules{Table: table, Options: options})
			}
			if err != nil {
				t.Error(err)
			}
		})
		require.LessOrEqual(t, live, bound(body), "live bytes during a review of %d bytes", len(body))
	})
}
