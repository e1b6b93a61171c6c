package netpol

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/internal/liveheap"
	"egress-agent/pkg/policy"
)

// maxGrowth is the highest ratio of the cost of n entries to the cost of n/2: 2, and a little more for sorting.
const maxGrowth = 2.3

// costKinds are kinds of entries with a linear cost. document returns a policy document with n entries; n is at most
// 1,000, the maximum number of destinations.
var costKinds = []struct {
	name     string
	document func(n int) string
}{
	{"cidr", perDestination(`"cidr":"10.%d.0.0/16","ports":[443]`, func(i int) []any { return []any{i & 255} })},
	{"nested-cidrs", nestedDocument},
	{"service", perDestination(`"awsService":"amazon","ports":[443]`, nil)},
	{"service-ports", perDestination(`"awsService":"amazon","ports":[%d]`, func(i int) []any { return []any{443 + 2*(i%20)} })},
	{"service-in-one-region", perDestination(`"awsService":"s3","regions":["us-east-1"],"ports":[443]`, nil)},
	{"region-subsets", subsetsDocument},
	{"regions-repeated", func(n int) string {
		return `{"allowedDestinations":[{"name":"r","awsService":"amazon","ports":[443],"regions":[` + repeated(8*n, func(int) string { return `"us-east-1"` }) + `]}]}`
	}},
	{"ports", func(n int) string {
		return `{"allowedDestinations":[{"name":"p","cidr":"10.0.0.0/8","ports":[` + repeated(20*n, func(i int) string { return strconv.Itoa(1 + 2*i) }) + `]}]}`
	}},
	{"name-problems", perDestination(`"name":"%d","cidr":"10.0.0.0/99"`, func(i int) []any { return []any{i % 3} })},
	{"service-problems", perDestination(`"awsService":"route53_helthchecks_%d","ports":[443]`, func(i int) []any { return []any{i} })},
	{"region-problems", func(n int) string {
		return `{"allowedDestinations":[{"name":"r","awsService":"amazon","ports":[443],"regions":[` + repeated(n, func(i int) string { return fmt.Sprintf(`"us-esat-%d"`, i) }) + `]}]}`
	}},
	{"unknown-fields", func(n int) string {
		return `{"allowedDestinations":[{` + repeated(n, func(i int) string { return fmt.Sprintf(`"prots%d":1`, i) }) + `}]}`
	}},
	{"empty", func(n int) string {
		return `{"allowedDestinations":[` + repeated(n, func(int) string { return "{}" }) + `]}`
	}},
}

// perDestination returns a function for documents of n destinations. Each destination has a unique name and fields.
func perDestination(fields string, arguments func(i int) []any) func(n int) string {
	return func(n int) string {
		return `{"allowedDestinations":[` + repeated(n, func(i int) string {
			further := fields
			if arguments != nil {
				further = fmt.Sprintf(fields, arguments(i)...)
			}
			if !strings.HasPrefix(further, `"name"`) {
				further = fmt.Sprintf(`"name":"d%d",`, i) + further
			}
			return "{" + further + "}"
		}) + `]}`
	}
}

func nestedDocument(n int) string {
	return `{"allowedDestinations":[` + repeated(n, func(i int) string {
		chain, bits := i/22, 11+i%22
		return fmt.Sprintf(`{"name":"n%d","cidr":"%d.%d.0.0/%d","ports":[%d]}`, i, 1+chain>>3, chain<<5&255, bits, 1000+2*(i%22))
	}) + `]}`
}

var costRegions = []string{"us-east-1", "us-east-2", "us-west-1", "us-west-2", "eu-west-1", "eu-west-2", "eu-west-3", "eu-central-1", "ap-south-1", "sa-east-1"}

func subsetsDocument(n int) string {
	return `{"allowedDestinations":[` + repeated(n, func(i int) string {
		var chosen []string
		for bit, region := range costRegions {
			if (7*i%1023+1)>>bit&1 == 1 { // so that the first n are as long as the next
				chosen = append(chosen, strconv.Quote(region))
			}
		}
		return fmt.Sprintf(`{"name":"r%d","awsService":"amazon","regions":[%s],"ports":[443]}`, i, strings.Join(chosen, ","))
	}) + `]}`
}

func repeated(n int, item func(i int) string) string {
	items := make([]string, n)
	for i := range items {
		items[i] = item(i)
	}
	return strings.Join(items, ",")
}

// costTable returns the table of AWS's real document if IP_RANGES_DATA names its folder and rows is over 100. Otherwise
// it returns a table with rows rows of AMAZON and of S3 in each region.
func costTable(t testing.TB, rows int) *awsranges.Table {
	if dir := os.Getenv("IP_RANGES_DATA"); dir != "" && rows > 100 {
		table, err := awsranges.ReadFile(filepath.Join(dir, "ip-ranges.json"))
		require.NoError(t, err)
		return table
	}
	var prefixes []map[string]string
	for i, region := range costRegions {
		for j := range rows {
			for _, service := range []string{"AMAZON", "S3"} {
				prefixes = append(prefixes, map[string]string{"ip_prefix": fmt.Sprintf("%d.%d.%d.0/24", 3+i, j>>7, j<<1&255), "region": region, "service": service, "network_border_group": region})
			}
		}
	}
	data, err := json.Marshal(map[string]any{"syncToken": "1700000000", "createDate": "2023-11-14-22-13-20", "prefixes": prefixes, "ipv6_prefixes": []string{}})
	require.NoError(t, err)
	table, err := awsranges.Parse(data)
	require.NoError(t, err)
	return table
}

// costOf compiles a document n times and returns the mean time, bytes and allocations.
func costOf(document string, table *awsranges.Table, n int) (took time.Duration, bytes, allocations float64) {
	configMap := &corev1.ConfigMap{Data: map[string]string{policy.Key: document}}
	options := Options{Family: IPv4, AllowDNS: true, MaxPortSlots: DefaultPortSlots}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	started := time.Now()
	for range n {
		_ = CompileConfigMap(configMap, Inputs{Table: table, Options: options})
	}
	took = time.Since(started)
	runtime.ReadMemStats(&after)
	return took / time.Duration(n), float64(after.TotalAlloc-before.TotalAlloc) / float64(n), float64(after.Mallocs-before.Mallocs) / float64(n)
}

// TestCostIsLinear compares the allocations for 1,000 and for 500 entries of each kind. It ignores time, which depends
// on the machine.
func TestCostIsLinear(t *testing.T) {
	table := costTable(t, 20)
	for _, kind := range costKinds {
		t.Run(kind.name, func(t *testing.T) {
			const times = 3
			_, bytes, allocations := costOf(kind.document(1000), table, times)
			_, halfBytes, halfAllocations := costOf(kind.document(500), table, times)
			t.Logf("bytes %.0f and %.0f, allocations %.0f and %.0f", bytes, halfBytes, allocations, halfAllocations)
			require.LessOrEqual(t, bytes/halfBytes, maxGrowth, "bytes")
			require.LessOrEqual(t, allocations/halfAllocations, maxGrowth, "allocations")
		})
	}
}

// TestMemoryIsBoundedByInputAndTable requires that the live heap for 1,000 entries is linear in the sizes of the
// document and the table. The compiler must not copy a service's prefixes for each entry.
func TestMemoryIsBoundedByInputAndTable(t *testing.T) {
	const perByte, perRow = 64, 256 // several times the size of a JSON node, and of a prefix with its ports
	table := costTable(t, 100)
	for _, kind := range costKinds {
		t.Run(kind.name, func(t *testing.T) {
			document := kind.document(1000)
			live := liveheap.Peak(func() { costOf(document, table, 1) })
			bound := perByte*len(document) + perRow*len(table.Rows()) + 1<<20
			t.Logf("%.1f MB of at most %.1f MB", float64(live)/1e6, float64(bound)/1e6)
			require.LessOrEqual(t, live, bound)
		})
	}
}

// BenchmarkCost reports the cost of 1,000 and of 500 entries of each kind, and the exponent of the growth: 1 is linear.
func BenchmarkCost(b *testing.B) {
	table := costTable(b, 600)
	for _, kind := range costKinds {
		b.Run(kind.name, func(b *testing.B) {
			// A garbage collection may fall into the run of 1,000 and not into the run of 500, so one run of each is not enough.
			const times = 32
			whole, half := kind.document(1000), kind.document(500)
			var took, halfTook time.Duration
			var bytes, halfBytes float64
			for b.Loop() {
				t, n, _ := costOf(whole, table, times)
				took, bytes = took+t, bytes+n
				t, n, _ = costOf(half, table, times)
				halfTook, halfBytes = halfTook+t, halfBytes+n
			}
			ratio := float64(took) / float64(halfTook)
			b.ReportMetric(0, "ns/op") // the mean time of both sizes has no meaning
			b.ReportMetric(float64(took.Microseconds())/float64(b.N), "µs-of-1000")
			b.ReportMetric(bytes/float64(b.N)/1e6, "MB-of-1000")
			b.ReportMetric(ratio, fmt.Sprintf("x-time(at-most-%.1f)", maxGrowth))
			b.ReportMetric(bytes/halfBytes, fmt.Sprintf("x-bytes(at-most-%.1f)", maxGrowth))
			b.ReportMetric(math.Log2(ratio), "exponent-of-time")
			b.ReportMetric(math.Log2(bytes/halfBytes), "exponent-of-bytes")
		})
	}
}
