package prefixes

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// tcp returns single TCP ports as ranges.
func tcp(ports ...uint16) []PortRange {
	var ranges []PortRange
	for _, port := range ports {
		ranges = append(ranges, PortRange{"TCP", port, port})
	}
	return ranges
}

// openedCIDR is a CIDR with its ports as text: "TCP 443-443;" or "every".
type openedCIDR struct{ cidr, ports string }

// setOf returns the set of all CIDRs with their ports. Nil ports mean every port.
func setOf(entries map[string][]PortRange) Set {
	builder := NewBuilder(0)
	for cidr, ports := range entries {
		builder.Add(builder.Ports(slices.Clone(ports)), netip.MustParsePrefix(cidr))
	}
	return builder.Set()
}

func openedBy(t *testing.T, s Set) []openedCIDR {
	blocks, err := s.Blocks()
	require.NoError(t, err)
	var all []openedCIDR
	for b := range blocks.All() {
		text := "every"
		if !b.Ports.IsEveryPort() {
			text = ""
			for _, r := range b.Ports.Ranges() {
				text += fmt.Sprintf("%s %d-%d;", r.Protocol, r.First, r.Last)
			}
		}
		all = append(all, openedCIDR{b.Prefix.String(), text})
	}
	return all
}

func TestSetOperations(t *testing.T) {
	const https, http = "TCP 443-443;", "TCP 80-80;"
	type entries = map[string][]PortRange
	web := setOf(entries{"10.0.0.0/22": tcp(443, 5432)})
	everything := setOf(entries{"0.0.0.0/0": nil, "::/0": nil})
	for _, test := range []struct {
		name string
		got  Set
		want []openedCIDR
	}{
		{"union in the documented example", setOf(entries{"10.0.0.0/24": tcp(443)}).Union(setOf(entries{"10.0.0.0/23": tcp(80)})),
			[]openedCIDR{{"10.0.0.0/23", http}, {"10.0.0.0/24", https}}},
		{"intersection in the documented example", setOf(entries{"10.0.0.0/23": tcp(443, 5432)}).Intersect(setOf(entries{"10.0.1.0/24": tcp(443)})),
			[]openedCIDR{{"10.0.1.0/24", https}}},
		{"difference in the documented example", web.Subtract(setOf(entries{"10.0.1.0/24": tcp(443)})),
			[]openedCIDR{{"10.0.0.0/24", "TCP 443-443;TCP 5432-5432;"}, {"10.0.1.0/24", "TCP 5432-5432;"}, {"10.0.2.0/23", "TCP 443-443;TCP 5432-5432;"}}},
		{"with nothing", web.Union(Set{}).Subtract(Set{}), openedBy(t, web)},
		{"nothing", web.Intersect(Set{}).Union(Set{}.Subtract(web)), nil},
		{"a port that the set lacks", web.Subtract(setOf(entries{"10.0.1.0/24": tcp(80)})), openedBy(t, web)},
		{"a port of everything", everything.Subtract(setOf(entries{"0.0.0.0/0": tcp(25)})),
			[]openedCIDR{{"0.0.0.0/0", "SCTP 1-65535;TCP 1-24;TCP 26-65535;UDP 1-65535;"}, {"::/0", "every"}}},
		{"the last port", everything.Subtract(setOf(entries{"::/0": nil, "0.0.0.0/0": {{"TCP", 2, 65535}, {"UDP", 1, 65535}}})),
			[]openedCIDR{{"0.0.0.0/0", "SCTP 1-65535;TCP 1-1;"}}},
		{"a port and back", everything.Subtract(setOf(entries{"::/0": tcp(25)})).Union(setOf(entries{"::/0": tcp(25)})), openedBy(t, everything)},
		{"only the protocols without ports are left", everything.Subtract(setOf(entries{"::/0": nil,
			"0.0.0.0/0": {{"TCP", 1, 65535}, {"UDP", 1, 65535}, {"SCTP", 1, 65535}}})), nil},
		{"an address of two", setOf(entries{"10.0.0.0/31": nil}).Subtract(setOf(entries{"10.0.0.0/32": nil})), []openedCIDR{{"10.0.0.1/32", "every"}}},
		{"nested prefixes stay nested", setOf(entries{"10.0.0.0/22": tcp(443), "10.0.0.0/24": tcp(80)}).Subtract(setOf(entries{"10.0.2.0/23": nil})),
			[]openedCIDR{{"10.0.0.0/23", https}, {"10.0.0.0/24", http}}},
		{"guardrails", setOf(entries{"10.0.0.0/8": tcp(443), "8.8.8.0/24": nil, "169.254.169.254/32": nil}).
			Intersect(setOf(entries{"10.0.0.0/9": nil, "169.254.0.0/16": nil})).Subtract(setOf(entries{"169.254.169.254/32": nil})),
			[]openedCIDR{{"10.0.0.0/9", https}}},
		{"families do not mix", setOf(entries{"0.0.0.0/0": nil}).Intersect(setOf(entries{"::/0": nil})), nil},
	} {
		t.Run(test.name, func(t *testing.T) { require.Equal(t, test.want, openedBy(t, test.got)) })
	}
}

// TestSetsAreImmutable uses one set in every place of every operation.
func TestSetsAreImmutable(t *testing.T) {
	a := setOf(map[string][]PortRange{"10.0.0.0/24": tcp(443), "10.0.0.0/25": tcp(80), "2001:db8::/32": nil})
	b := setOf(map[string][]PortRange{"10.0.0.128/25": tcp(443, 80), "2001:db8::/33": tcp(1)})
	beforeA, beforeB := openedBy(t, a), openedBy(t, b)
	for _, operation := range []func(Set, Set) Set{Set.Union, Set.Intersect, Set.Subtract} {
		for _, got := range []Set{operation(a, b), operation(b, a), operation(a, a)} {
			blocks, err := got.Blocks()
			require.NoError(t, err)
			blocks.ByPorts()
		}
		require.Equal(t, beforeA, openedBy(t, a))
		require.Equal(t, beforeB, openedBy(t, b))
	}
}

// separatePorts returns n TCP ports that MergePorts does not join.
func separatePorts(first, n int) []PortRange {
	var ranges []PortRange
	for i := range n {
		ranges = append(ranges, tcp(uint16(first+2*i))...)
	}
	return ranges
}

func TestSetsAreBounded(t *testing.T) {
	t.Run("port ranges of a builder", func(t *testing.T) {
		for _, test := range []struct {
			sets int
			want string
		}{{32, ""}, {33, "more than 32768 port ranges"}} {
			builder := NewBuilder(0)
			for i := range test.sets {
				builder.Add(builder.Ports(separatePorts(1+2*i, 1024)), netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(2 * i)}), 24))
			}
			set := builder.Set()
			_, err := set.Blocks()
			require.Equal(t, test.want, errorText(err))
			_, err = Set{}.Union(set).Intersect(set).Blocks()
			require.Equal(t, test.want, errorText(err), "the result of an operation has the same error")
		}
	})
	t.Run("port ranges of a result", func(t *testing.T) {
		a, b := NewBuilder(0), NewBuilder(0)
		for i := range 30 {
			address := netip.AddrFrom4([4]byte{10, 0, byte(2 * i)})
			a.Add(a.Ports(separatePorts(1+2*i, 1024)), netip.PrefixFrom(address, 24))
			b.Add(b.Ports(separatePorts(30001+2*i, 1024)), netip.PrefixFrom(address, 24))
		}
		_, err := a.Set().Union(b.Set()).Blocks()
		require.EqualError(t, err, "more than 32768 port ranges")
	})
	t.Run("prefixes", func(t *testing.T) {
		a, b := NewBuilder(0), NewBuilder(0)
		for length := range 33 { // each with its own port, so no prefix covers another
			a.Add(a.Ports(tcp(uint16(1+2*length))), netip.PrefixFrom(netip.IPv6Unspecified(), length))
		}
		for i := range 1000 { // inside all prefixes of a
			address := netip.AddrFrom16([16]byte{4: byte(i >> 8), 6: byte(i), 15: 1})
			b.Add(b.Ports(nil), netip.PrefixFrom(address, 128))
		}
		_, err := a.Set().Subtract(b.Set()).Blocks()
		require.EqualError(t, err, "more than 262144 prefixes")
	})
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// The small universe of the fuzz targets: 32 addresses of each family, and these ports of each protocol.
var (
	smallSpaces = [2]netip.Prefix{netip.MustParsePrefix("10.0.0.0/27"), netip.MustParsePrefix("2001:db8::/123")}
	smallPorts  = [7]uint16{1, 2, 3, 50, 100, 1000, 65535}
	protocols   = [4]string{OtherProtocols, "SCTP", "TCP", "UDP"}
)

// bitmap is a set in the small universe: for each address of each space, a bit for each port of each protocol, and the
// lowest bit for the protocols without ports.
type bitmap [2][32]uint32

const otherBit = 1

// bitsOf returns the bits of a port set. Nil means every port.
func bitsOf(ranges []PortRange) uint32 {
	if ranges == nil {
		return 1<<(1+3*len(smallPorts)) - 1
	}
	var bits uint32
	for _, r := range ranges {
		if r.Protocol == OtherProtocols {
			bits |= otherBit
			continue
		}
		protocol := slices.Index(protocols[1:], r.Protocol)
		for k, port := range smallPorts {
			if r.First <= port && port <= r.Last {
				bits |= 1 << (1 + protocol*len(smallPorts) + k)
			}
		}
	}
	return bits
}

// add adds a prefix with ports. Nil ports mean every port.
func (m *bitmap) add(prefix netip.Prefix, ports []PortRange) {
	bits := bitsOf(ports)
	for space := range m {
		for i, address := 0, smallSpaces[space].Addr(); i < len(m[space]); i, address = i+1, address.Next() {
			if prefix.Contains(address) {
				m[space][i] |= bits
			}
		}
	}
}

// combine returns the bitmap in which f combines the bits of each address in both bitmaps.
func (m *bitmap) combine(other *bitmap, f func(a, b uint32) uint32) *bitmap {
	var result bitmap
	for space := range m {
		for i := range m[space] {
			result[space][i] = f(m[space][i], other[space][i])
		}
	}
	return &result
}

// smallEntry is a prefix with ports. Nil ports mean every port.
type smallEntry struct {
	prefix netip.Prefix
	ports  []PortRange
}

// smallEntries reads every three bytes as an entry in the small universe.
func smallEntries(data []byte) []smallEntry {
	var entries []smallEntry
	for ; len(data) >= 3; data = data[3:] {
		space := smallSpaces[data[0]%2]
		address := space.Addr().AsSlice()
		address[len(address)-1] = data[0] >> 1 % 32
		from, _ := netip.AddrFromSlice(address)
		e := smallEntry{prefix: netip.PrefixFrom(from, space.Bits()+int(data[1]%6)).Masked()}
		for mask, port := data[2], 0; mask != 0; mask, port = mask>>1, port+1 {
			if mask&1 == 1 { // each bit is a range; all eight touch, overlap and nest
				ends := [8][2]uint16{{1, 1}, {2, 3}, {3, 50}, {1, 65535}, {1, 65535}, {50, 1000}, {100, 100}, {1000, 65535}}[port]
				e.ports = append(e.ports, PortRange{protocols[1+(port+int(data[1]/6))%3], ends[0], ends[1]})
			}
		}
		entries = append(entries, e)
	}
	return entries
}

// smallSet returns entries as a set and as a bitmap.
func smallSet(entries []smallEntry) (Set, *bitmap) {
	builder, bits := NewBuilder(0), &bitmap{}
	for _, e := range entries {
		builder.Add(builder.Ports(slices.Clone(e.ports)), e.prefix)
		bits.add(e.prefix, e.ports)
	}
	return builder.Set(), bits
}

// FuzzSet compares the operations on two sets with the same operations on bitmaps of a small universe, and the results'
// Blocks with what their documentation promises.
func FuzzSet(f *testing.F) {
	f.Add([]byte{0, 0, 0, 8, 3, 2, 1, 0, 8}, []byte{2, 5, 0, 9, 2, 3})
	f.Add([]byte{0, 0, 0}, []byte{62, 5, 0xff, 8, 12, 0x18})
	f.Fuzz(checkOperations)
}

// TestSetAgreesWithBitmap is FuzzSet with random bytes.
func TestSetAgreesWithBitmap(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 0))
		var data [2][]byte
		for i := range data {
			for range 3 * random.IntN(12) {
				data[i] = append(data[i], byte(random.Uint32()))
			}
		}
		checkOperations(t, data[0], data[1])
	}
}

func checkOperations(t *testing.T, first, second []byte) {
	const most = 16 * 3
	a, bitsOfA := smallSet(smallEntries(first[:min(most, len(first))]))
	b, bitsOfB := smallSet(smallEntries(second[:min(most, len(second))]))
	union := bitsOfA.combine(bitsOfB, func(a, b uint32) uint32 { return a | b })
	both := bitsOfA.combine(bitsOfB, func(a, b uint32) uint32 { return a & b })
	rest := bitsOfA.combine(bitsOfB, func(a, b uint32) uint32 { return a &^ b })
	for _, test := range []struct {
		name string
		set  Set
		want *bitmap
	}{
		{"a", a, bitsOfA},
		{"a ∪ b", a.Union(b), union},
		{"a ∩ b", a.Intersect(b), both},
		{"a − b", a.Subtract(b), rest},
		{"(a − b) ∪ b", a.Subtract(b).Union(b), union},
		{"(a ∪ b) ∩ a − b", a.Union(b).Intersect(a).Subtract(b), rest},
		{"a − (a − b)", a.Subtract(a.Subtract(b)), both},
		{"a − b − a", a.Subtract(b).Subtract(a), &bitmap{}},
	} {
		require.NoError(t, test.set.err)
		got := &bitmap{}
		for _, block := range test.set.blocks {
			got.add(block.prefix, append([]PortRange{}, test.set.ports[block.ports].ranges...))
		}
		require.Equal(t, test.want, got, test.name)
		checkBlocks(t, test.name, test.set, test.want)
	}
}

// checkBlocks requires that the Blocks of s open exactly the ports in want, and that they are minimal.
func checkBlocks(t *testing.T, name string, s Set, want *bitmap) {
	blocks, err := s.Blocks()
	require.NoError(t, err, name)
	all := slices.Collect(blocks.All())
	require.Len(t, all, blocks.Len(), name)
	got := &bitmap{}
	byPrefix := make(map[netip.Prefix]PortSet)
	for i, b := range all {
		require.True(t, i == 0 || Compare(all[i-1].Prefix, b.Prefix) < 0, "%s: %v is sorted", name, all)
		require.Equal(t, b.Prefix.Masked(), b.Prefix, name)
		ranges := b.Ports.Ranges()
		require.NotEmpty(t, ranges, name)
		require.Equal(t, MergePorts(slices.Clone(ranges)), ranges, "%s: ranges are merged", name)
		require.True(t, b.Ports.IsEveryPort() || ranges[0].Protocol != OtherProtocols, "%s: %v can be listed", name, b)
		got.add(b.Prefix, append([]PortRange{}, ranges...))
		byPrefix[b.Prefix] = b.Ports
	}
	require.Equal(t, bitmap{}, *want.combine(got, func(want, got uint32) uint32 { return want &^ got &^ otherBit }), "%s: opens too little", name)
	require.Equal(t, bitmap{}, *want.combine(got, func(want, got uint32) uint32 { return got &^ want }), "%s: opens too much", name)
	slots := make(map[netip.Prefix]int)
	for prefix, n := range blocks.Slots() {
		slots[prefix] = n
	}
	for _, b := range all {
		var outerRanges []PortRange // of the prefixes that contain b
		isInsideEveryPort := false
		distinct := make(map[PortRange]bool)
		for _, outer := range all {
			if !Contains(outer.Prefix, b.Prefix) {
				continue
			}
			if outer.Prefix != b.Prefix {
				outerRanges, isInsideEveryPort = append(outerRanges, outer.Ports.Ranges()...), isInsideEveryPort || outer.Ports.IsEveryPort()
			}
			if outer.Ports.IsEveryPort() {
				distinct[PortRange{}] = true
				continue
			}
			for _, r := range outer.Ports.Ranges() {
				distinct[r] = true
			}
		}
		require.Equal(t, len(distinct), slots[b.Prefix], "%s: slots of %v", name, b)
		require.False(t, isInsideEveryPort, "%s: %v is inside every port", name, b)
		if !b.Ports.IsEveryPort() {
			left := PortSet{b.Ports.Ranges()}.subtract(PortSet{MergePorts(outerRanges)}).Ranges()
			for _, r := range b.Ports.Ranges() {
				isLeft := func(l PortRange) bool { return l.Protocol == r.Protocol && r.First <= l.Last && l.First <= r.Last }
				require.True(t, slices.ContainsFunc(left, isLeft), "%s: %v is covered in %v", name, r, b)
			}
		}
		if other, ok := byPrefix[sibling(b.Prefix)]; ok {
			require.NotEqual(t, other, b.Ports, "%s: siblings", name)
		}
	}
	var grouped []netip.Prefix
	groups := blocks.ByPorts()
	for i, group := range groups {
		require.True(t, i == 0 || groups[i-1].Ports.compare(group.Ports) < 0, name)
		require.True(t, slices.IsSortedFunc(group.Prefixes, Compare), name)
		for _, prefix := range group.Prefixes {
			require.Equal(t, byPrefix[prefix], group.Ports, name)
		}
		grouped = append(grouped, group.Prefixes...)
	}
	require.Len(t, grouped, len(all), name)
}
