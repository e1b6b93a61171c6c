package netpol

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/internal/prefixes"
	"egress-agent/pkg/policy"
)

// realTable is AWS's real document of 2026-08-22.
func realTable(b *testing.B) *awsranges.Table {
	dir := os.Getenv("IP_RANGES_DATA")
	if dir == "" {
		b.Skipf("IP_RANGES_DATA is not set: it names a folder with AWS's ip-ranges.json of 2026-08-22")
	}
	table, err := awsranges.ReadFile(filepath.Join(dir, "ip-ranges.json"))
	require.NoError(b, err)
	return table
}

func parsed(b *testing.B, document string) *policy.Policy {
	parsed, problems := policy.Parse([]byte(document))
	require.Empty(b, problems)
	p, problems := policy.Validate(parsed, policy.Names{AWS: NameCheck(nil)})
	require.Empty(b, problems)
	return p
}

// compileOrFail uses the result, so that the compiler cannot remove the measured call.
func compileOrFail(b *testing.B, p *policy.Policy, table *awsranges.Table, options Options) {
	result, problems := compile(p, table, options)
	if problems != nil || len(result.Spec.Egress) == 0 {
		b.Fatal("not compiled: ", problems)
	}
}

// BenchmarkCompileSeed must take at most 20 µs and 100 allocations.
func BenchmarkCompileSeed(b *testing.B) {
	data, err := os.ReadFile(filepath.Join(corpus, "valid", "seed.json"))
	require.NoError(b, err)
	p, table := parsed(b, string(data)), realTable(b)
	b.ReportAllocs()
	for b.Loop() {
		compileOrFail(b, p, table, Options{Family: IPv4, AllowDNS: true, MaxPortSlots: DefaultPortSlots})
	}
}

// BenchmarkEvaluateSeed measures parsing, validation and compilation together.
func BenchmarkEvaluateSeed(b *testing.B) {
	data, err := os.ReadFile(filepath.Join(corpus, "valid", "seed.json"))
	require.NoError(b, err)
	configMap, table := &corev1.ConfigMap{Data: map[string]string{policy.Key: string(data)}}, realTable(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, problems := compileDocument(configMap, table, Options{Family: IPv4, AllowDNS: true, MaxPortSlots: DefaultPortSlots}); problems != nil {
			b.Fatal(problems)
		}
	}
}

// BenchmarkCompileAmazon compiles AMAZON in every region and both families. The floor is one sort of the service's
// rows. The benchmark must take at most three times as long.
func BenchmarkCompileAmazon(b *testing.B) {
	table := realTable(b)
	p := parsed(b, `{"allowedDestinations": [{"name": "aws", "awsService": "amazon", "ports": [443]}]}`)
	var rows []netip.Prefix
	for _, row := range table.Rows() {
		if row.Service == "AMAZON" {
			rows = append(rows, row.Prefix)
		}
	}
	var floor, whole time.Duration
	for b.Loop() {
		floor += elapsed(func() { slices.SortFunc(slices.Clone(rows), prefixes.Compare) })
		whole += elapsed(func() {
			compileOrFail(b, p, table, Options{Family: Dual, AllowDNS: true, MaxPortSlots: DefaultPortSlots})
		})
	}
	b.ReportMetric(float64(len(rows)), "rows")
	b.ReportMetric(float64(floor.Microseconds())/float64(b.N), "µs-floor")
	b.ReportMetric(float64(whole)/float64(floor), "x-floor(at-most-3)")
}

func elapsed(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

// BenchmarkTableMemory measures the live heap of a table of the real document. It must be at most 3 MB.
func BenchmarkTableMemory(b *testing.B) {
	realTable(b)
	var before, after runtime.MemStats
	var total uint64
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		table := realTable(b)
		runtime.GC()
		runtime.ReadMemStats(&after)
		total += after.HeapAlloc - before.HeapAlloc
		runtime.KeepAlive(table)
	}
	b.ReportMetric(float64(total)/float64(b.N)/1e6, "MB-live(at-most-3)")
}

// BenchmarkCompileGrowth compiles policies of growing size. One kind has CIDRs that cannot merge, half of them IPv6.
// The other kind has nested CIDRs. The benchmark reports the time for n CIDRs, divided by n log n, as a ratio to the
// smallest policy. The ratio must stay near 1.
func BenchmarkCompileGrowth(b *testing.B) {
	sizes := []int{100, 1000, 10000, 30000}
	for _, shape := range []struct {
		name string
		make func(n int) *policy.Policy
	}{{"flat", flatPolicy}, {"nested-22", nestedPolicy}} {
		b.Run(shape.name, func(b *testing.B) {
			policies := make([]*policy.Policy, len(sizes))
			for i, n := range sizes {
				policies[i] = shape.make(n)
			}
			times := make([]time.Duration, len(sizes))
			for b.Loop() {
				for i, p := range policies {
					times[i] += elapsed(func() { compileOrFail(b, p, nil, Options{Family: Dual}) })
				}
			}
			for i, n := range sizes {
				b.ReportMetric(perSort(times[i], n)/perSort(times[0], sizes[0]), fmt.Sprintf("x-n·log(n)-at-%d", n))
			}
		})
	}
}

// perSort returns total divided by n log n, the number of steps of a sort.
func perSort(total time.Duration, n int) float64 {
	log := 0
	for m := n; m > 1; m /= 2 {
		log++
	}
	return float64(total) / float64(n*log)
}

func flatPolicy(n int) *policy.Policy {
	random := rand.New(rand.NewPCG(uint64(n), 7))
	p := &policy.Policy{}
	for i := range n {
		address := netip.AddrFrom4([4]byte{10, byte(i >> 15), byte(i >> 7), byte(i << 1)})
		if i%2 == 1 {
			address = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 12: byte(i >> 15), 13: byte(i >> 7), 14: byte(i << 1)})
		}
		p.Destinations = append(p.Destinations, policy.Destination{Name: fmt.Sprint(i), CIDR: netip.PrefixFrom(address, address.BitLen()), Ports: []policy.Port{tcp(443)}})
	}
	random.Shuffle(n, func(i, j int) { p.Destinations[i], p.Destinations[j] = p.Destinations[j], p.Destinations[i] })
	return p
}

// nestedPolicy returns a policy with chains of 22 CIDRs. Each CIDR is inside the previous one and has another port.
func nestedPolicy(n int) *policy.Policy {
	p := flatPolicy(0)
	for i := range n {
		chain, depth := i/22, i%22
		address := netip.AddrFrom4([4]byte{byte(chain >> 3), byte(chain << 5), 0, 0})
		prefix := netip.PrefixFrom(address, 11+depth%22).Masked()
		p.Destinations = append(p.Destinations, policy.Destination{Name: fmt.Sprint(i), CIDR: prefix, Ports: []policy.Port{tcp(uint16(1000 + 2*depth))}})
	}
	return p
}
