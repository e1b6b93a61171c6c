package recommend

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/analysis/flows"
	"egress-agent/pkg/analysis/traffic"
	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

func flow(destination string, port uint16) flows.Flow {
	return flows.Flow{Source: netip.MustParseAddr("10.0.1.5"), Destination: netip.MustParseAddr(destination), Port: port, Protocol: policy.TCP, Accepted: 1}
}

func sampleTable(t testing.TB) *awsranges.Table {
	table, err := awsranges.ReadFile("../../../testdata/ranges/ip-ranges.json")
	require.NoError(t, err)
	return table
}

// textOf returns the entries of a proposal in one line each.
func textOf(p Proposal) string {
	var lines []string
	for _, e := range p.Entries {
		lines = append(lines, marshal(e.Destination))
	}
	return strings.Join(lines, "\n")
}

func TestPropose(t *testing.T) {
	cluster := flows.NewCluster()
	cluster.AddPod(netip.MustParseAddr("10.0.1.5"), flows.Pod{Namespace: "shop", Name: "web-1", Labels: map[string]string{"app": "web", "pod-template-hash": "1"}})
	cluster.AddPod(netip.MustParseAddr("10.0.1.6"), flows.Pod{Namespace: "shop", Name: "db-0", Labels: map[string]string{"app": "db"}})
	cluster.AddPod(netip.MustParseAddr("10.0.2.7"), flows.Pod{Namespace: "monitoring", Name: "x", Labels: map[string]string{"zone": "a"}})
	cluster.AddService(netip.MustParseAddr("172.20.0.9"), flows.Service{Namespace: "shop", Name: "db", Selector: map[string]string{"app": "db"}, TargetPorts: map[uint16]uint16{80: 5432}})
	cluster.AddService(netip.MustParseAddr("172.20.0.10"), flows.Service{Namespace: "kube-system", Name: "kube-dns", Selector: map[string]string{"k8s-app": "kube-dns"}})
	denied := flow("203.0.113.9", 443)
	denied.Accepted, denied.Denied = 0, 5
	dns := flow("172.20.0.10", 53)
	for _, test := range []struct {
		name    string
		cluster *flows.Cluster
		cost    int64
		flows   []flows.Flow
		want    string
	}{
		{"a service", nil, 64, []flows.Flow{flow("198.18.0.9", 443)}, `{"name": "s3-us-east-1", "awsService": "s3", "regions": ["us-east-1"], "ports": [443]}`},
		{"an address that only AMAZON has", nil, 64, []flows.Flow{flow("198.18.5.9", 443)}, `{"name": "198-18-5-9", "cidr": "198.18.5.9/32", "ports": [443]}`},
		{"one address, two ports", nil, 64, []flows.Flow{flow("203.0.113.9", 443), flow("203.0.113.9", 8443)}, `{"name": "203-0-113-9", "cidr": "203.0.113.9/32", "ports": [443,8443]}`},
		{"neighbours", nil, 64, []flows.Flow{flow("10.9.0.4", 5432), flow("10.9.0.5", 5432), flow("10.9.0.6", 5432), flow("10.9.0.7", 5432)}, `{"name": "10-9-0-4-30", "cidr": "10.9.0.4/30", "ports": [5432]}`},
		{"far addresses", nil, 64, []flows.Flow{flow("10.9.0.4", 5432), flow("10.200.0.5", 5432)}, "{\"name\": \"10-9-0-4\", \"cidr\": \"10.9.0.4/32\", \"ports\": [5432]}\n{\"name\": \"10-200-0-5\", \"cidr\": \"10.200.0.5/32\", \"ports\": [5432]}"},
		{"only what was seen", nil, 0, []flows.Flow{flow("10.9.0.4", 5432), flow("10.9.0.6", 5432), flow("10.9.0.7", 5432)}, "{\"name\": \"10-9-0-4\", \"cidr\": \"10.9.0.4/32\", \"ports\": [5432]}\n{\"name\": \"10-9-0-6-31\", \"cidr\": \"10.9.0.6/31\", \"ports\": [5432]}"},
		{"denied, and DNS", nil, 64, []flows.Flow{denied, dns}, ""},
		{"pods", cluster, 64, []flows.Flow{flow("10.0.1.6", 5432), flow("172.20.0.9", 80), flow("10.0.2.7", 9090), dns},
			"{\"name\": \"db\", \"pods\": {\"app\":\"db\"}, \"ports\": [5432]}\n{\"name\": \"pods-monitoring\", \"namespace\": \"monitoring\", \"ports\": [9090]}"},
	} {
		t.Run(test.name, func(t *testing.T) {
			proposals := Propose(test.flows, Options{Table: sampleTable(t), Family: netpol.IPv4, Cluster: test.cluster, EntryCost: test.cost})
			require.Len(t, proposals, 1)
			require.Equal(t, test.want, textOf(proposals[0]))
			checkProposal(t, proposals[0], test.flows, sampleTable(t), test.cluster)
		})
	}
	closed := Propose([]flows.Flow{flow("203.0.113.9", 25), flow("203.0.113.9", 443)}, Options{Family: netpol.IPv4, Closed: func(f flows.Flow) string {
		if f.Port == 25 {
			return "closed by guardrail smtp"
		}
		return ""
	}})
	require.Equal(t, []ClosedFlows{{"closed by guardrail smtp", 1}}, closed[0].Closed)
	require.Len(t, closed[0].Entries, 1)
	require.Equal(t, "seen: 1 flow from 1 source to 1 address; it opens 1 address, 0 without a flow", closed[0].Entries[0].Evidence.String())
}

// checkProposal requires that a proposal is a valid policy that allows every accepted flow.
func checkProposal(t testing.TB, p Proposal, all []flows.Flow, table *awsranges.Table, cluster *flows.Cluster) {
	t.Helper()
	spec := specOf(t, p, table)
	namespace := traffic.NewNamespace(p.Namespace, []networkingv1.NetworkPolicySpec{spec}, cluster)
	for _, f := range all {
		if f.Accepted > 0 && cluster.NamespaceOf(f.Source) == p.Namespace && f.Destination.Is4() {
			require.True(t, namespace.Allows(f), "%s %d under %s", f.Destination, f.Port, textOf(p))
		}
	}
}

func specOf(t testing.TB, p Proposal, table *awsranges.Table) networkingv1.NetworkPolicySpec {
	t.Helper()
	var destinations []policy.Destination
	for _, e := range p.Entries {
		e.Reason = e.Evidence.Reason()
		destinations = append(destinations, e.Destination)
	}
	configMap := &corev1.ConfigMap{Data: map[string]string{policy.Key: Document(nil, destinations)}}
	compiled := netpol.CompileConfigMap(configMap, netpol.Inputs{Table: table, Options: netpol.Options{Family: netpol.IPv4, AllowDNS: true}})
	require.Empty(t, compiled.Problems)
	return compiled.Spec()
}

// TestProposalAllowsWhatWasSeen proposes policies for random flows. Each must allow every flow, and be the same for the
// flows in another order.
func TestProposalAllowsWhatWasSeen(t *testing.T) {
	table := sampleTable(t)
	for seed := range uint64(15) {
		random := rand.New(rand.NewPCG(seed, 22))
		var all []flows.Flow
		for range random.IntN(200) {
			address := netip.AddrFrom4([4]byte{byte(10 + random.IntN(2)), byte(random.IntN(2)), byte(random.IntN(4)), byte(random.IntN(256))})
			if random.IntN(3) == 0 {
				address = netip.AddrFrom4([4]byte{198, 18, byte(random.IntN(10)), byte(random.IntN(256))})
			}
			f := flow(address.String(), []uint16{443, 443, 5432, uint16(1000 + random.IntN(3000))}[random.IntN(4)])
			f.Protocol = []policy.Protocol{policy.TCP, policy.TCP, policy.UDP}[random.IntN(3)]
			all = append(all, f)
		}
		for _, entryCost := range []int64{0, 64, 4096} {
			proposals := Propose(all, Options{Table: table, Family: netpol.IPv4, EntryCost: entryCost})
			if len(all) == 0 {
				require.Empty(t, proposals)
				continue
			}
			checkProposal(t, proposals[0], all, table, nil)
			random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			require.Equal(t, proposals, Propose(all, Options{Table: table, Family: netpol.IPv4, EntryCost: entryCost}))
			if entryCost == 0 {
				for _, e := range proposals[0].Entries {
					require.True(t, e.Service != "" || e.Evidence.Opens <= int64(e.Evidence.Addresses), "nothing without a flow")
				}
			}
		}
	}
}

// TestCoverIsExact compares the cost of the cover with that of all covers of few addresses.
func TestCoverIsExact(t *testing.T) {
	var best func(addresses []netip.Addr, entryCost int64) int64
	best = func(addresses []netip.Addr, entryCost int64) int64 { // tries every prefix with the first address
		if len(addresses) == 0 {
			return 0
		}
		least := int64(math.MaxInt64)
		for bits := 32; bits >= 16; bits-- {
			prefix := netip.PrefixFrom(addresses[0], bits).Masked()
			rest := slices.DeleteFunc(slices.Clone(addresses), prefix.Contains)
			least = min(least, entryCost+addressCount(prefix)-int64(len(addresses)-len(rest))+best(rest, entryCost))
		}
		return least
	}
	for seed := range uint64(150) {
		random := rand.New(rand.NewPCG(seed, 23))
		var addresses []netip.Addr
		for range 1 + random.IntN(5) {
			addresses = append(addresses, netip.AddrFrom4([4]byte{10, 0, byte(random.IntN(2)), byte(random.IntN(1 << (1 + random.IntN(8))))}))
		}
		slices.SortFunc(addresses, netip.Addr.Compare)
		addresses = slices.Compact(addresses)
		entryCost := []int64{0, 1, 8, 64, 4096}[random.IntN(5)]
		var cost int64
		parts := partsOf(addresses)
		if random.IntN(2) == 0 {
			parts = cover(parts, entryCost/4) // the cover of a cover is as good
		}
		for _, c := range cover(parts, entryCost) {
			cost += entryCost + addressCount(c.prefix)
		}
		require.Equal(t, best(addresses, entryCost), cost-int64(len(addresses)), "%v", addresses)
	}
}

// TestQuality makes tenants of known policies, draws flows from them, proposes a policy from 70 % of the flows, and
// compares it with the known policy and the other flows, by the number of flows an address. It prints a table.
func TestQuality(t *testing.T) {
	dir := os.Getenv("IP_RANGES_DATA")
	if dir == "" {
		t.Skip("IP_RANGES_DATA is not set: it names a folder with AWS's ip-ranges.json of 2026-08-22")
	}
	table, err := awsranges.ReadFile(filepath.Join(dir, "ip-ranges.json"))
	require.NoError(t, err)
	t.Log("flows an address   tenants   held-out allowed   true entries   unneeded, of the true policy's")
	for _, density := range []float64{0.1, 0.3, 1, 10, 100} {
		var total, allowed, entries, right, opened, openedTrue float64
		const tenants = 60
		for seed := range uint64(tenants) {
			random := rand.New(rand.NewPCG(seed, 24))
			truth, all := tenant(random, table, density)
			random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			cut := len(all) * 7 / 10
			proposal := Propose(all[:cut], Options{Table: table, Family: netpol.IPv4, EntryCost: DefaultEntryCost})[0]
			namespace := traffic.NewNamespace("", []networkingv1.NetworkPolicySpec{specOf(t, proposal, table)}, nil)
			for _, f := range all[cut:] {
				total++
				if namespace.Allows(f) {
					allowed++
				}
			}
			for _, e := range proposal.Entries {
				entries++
				if slices.ContainsFunc(truth, func(d policy.Destination) bool { return isSame(d, e.Destination) }) {
					right++
				}
				opened += float64(e.Evidence.Opens)
			}
			for _, d := range truth {
				found, _ := netpol.Resolve(d, table)
				for _, prefix := range found {
					if prefix.Addr().Is4() {
						openedTrue += float64(addressCount(prefix))
					}
				}
			}
		}
		require.GreaterOrEqual(t, allowed/total, 0.98)
		require.GreaterOrEqual(t, right/entries, 0.95)
		require.LessOrEqual(t, opened/openedTrue, 1.1)
		t.Logf("%15g %9d %17.1f%% %13.1f%% %11.3f", density, tenants, 100*allowed/total, 100*right/entries, opened/openedTrue)
	}
}

// isSame reports whether a proposed entry opens the same addresses as a true one.
func isSame(truth, proposed policy.Destination) bool {
	if truth.Service != "" {
		return strings.EqualFold(truth.Service, proposed.Service) && slices.Equal(truth.Regions, proposed.Regions)
	}
	return truth.CIDR == proposed.CIDR
}

// tenant returns a random policy and flows that it allows: density flows for each address of a CIDR, and at least 5 for
// an entry. The addresses have Zipf weights.
func tenant(random *rand.Rand, table *awsranges.Table, density float64) ([]policy.Destination, []flows.Flow) {
	services := []string{"S3", "DYNAMODB", "CLOUDFRONT", "ROUTE53", "GLOBALACCELERATOR", "EBS", "KINESIS_VIDEO_STREAMS"}
	var truth []policy.Destination
	var all []flows.Flow
	for i := range 3 + random.IntN(8) {
		d := policy.Destination{Name: fmt.Sprint(i), Ports: []policy.Port{{Protocol: policy.TCP, First: []uint16{443, 443, 5432, 8080}[random.IntN(4)]}}}
		d.Ports[0].Last = d.Ports[0].First
		var prefixes []netip.Prefix
		if random.IntN(2) == 0 {
			d.Service = services[random.IntN(len(services))]
			regions := table.Regions(d.Service)
			d.Regions = []string{regions[random.IntN(len(regions))]}
			for _, prefix := range table.Lookup(d.Service, d.Regions[0]) {
				if prefix.Addr().Is4() {
					prefixes = append(prefixes, prefix)
				}
			}
			d.Ports[0].First, d.Ports[0].Last = 443, 443
		} else {
			bits := []int{32, 32, 28, 26, 24, 24, 22, 20}[random.IntN(8)]
			d.CIDR = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(random.IntN(256)), byte(random.IntN(256)), byte(random.IntN(256))}), bits).Masked()
			prefixes = []netip.Prefix{d.CIDR}
		}
		if len(prefixes) == 0 || slices.ContainsFunc(truth, func(other policy.Destination) bool {
			return isSame(other, d) || d.Service == "" && other.CIDR.Overlaps(d.CIDR)
		}) {
			continue
		}
		truth = append(truth, d)
		var size int64
		for _, prefix := range prefixes {
			size += addressCount(prefix)
		}
		count := max(5, min(8192, int(density*float64(min(size, 4096)))))
		zipf := rand.NewZipf(random, 1.1, 8, uint64(size-1))
		for range count {
			k := int64(zipf.Uint64()*2654435761+uint64(size)/3) % size // the most frequent addresses are anywhere
			for _, prefix := range prefixes {
				if n := addressCount(prefix); k >= n {
					k -= n
					continue
				}
				bytes := prefix.Addr().As4()
				value := uint32(bytes[0])<<24 | uint32(bytes[1])<<16 | uint32(bytes[2])<<8 | uint32(bytes[3])
				value += uint32(k)
				f := flow(netip.AddrFrom4([4]byte{byte(value >> 24), byte(value >> 16), byte(value >> 8), byte(value)}).String(), d.Ports[0].First)
				all = append(all, f)
				break
			}
		}
	}
	return truth, all
}

// BenchmarkPropose proposes a policy from a million distinct flows, which must take at most 2 s.
func BenchmarkPropose(b *testing.B) {
	dir := os.Getenv("IP_RANGES_DATA")
	if dir == "" {
		b.Skip("IP_RANGES_DATA is not set: it names a folder with AWS's ip-ranges.json of 2026-08-22")
	}
	table, err := awsranges.ReadFile(filepath.Join(dir, "ip-ranges.json"))
	require.NoError(b, err)
	random := rand.New(rand.NewPCG(1, 25))
	var all []flows.Flow
	for i := range 1_000_000 {
		f := flow(netip.AddrFrom4([4]byte{byte(3 + random.IntN(200)), byte(random.IntN(256)), byte(random.IntN(256)), byte(random.IntN(256))}).String(), 443)
		f.First, f.Last = int64(i), int64(i+1)
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b flows.Flow) int {
		return cmp.Or(a.Destination.Compare(b.Destination), int(a.Port)-int(b.Port))
	})
	for b.Loop() {
		Propose(all, Options{Table: table, Family: netpol.IPv4, EntryCost: DefaultEntryCost})
	}
}
