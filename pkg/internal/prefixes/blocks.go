package prefixes

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
)

// Block is a prefix and a port set. All addresses of the prefix have these ports.
type Block struct {
	Prefix netip.Prefix
	Ports  PortSet // never empty
}

// Blocks are the prefixes of a Set, sorted by Compare. Each prefix occurs once, with merged port ranges. These do not
// include the ranges of the prefixes that contain it. No two siblings have equal ports. The zero Blocks are empty.
type Blocks struct {
	blocks []prefixPorts
	ports  []PortSet // by PortSetID
}

// Blocks returns the part of s that a NetworkPolicy can list. A NetworkPolicy opens protocols without ports, such as
// ICMP, only together with every port, so Blocks removes them from a prefix that lacks a port. An error means that s
// exceeds MaxPortRanges or another bound; the Blocks are then empty.
func (s Set) Blocks() (Blocks, error) {
	if s.err != nil {
		return Blocks{}, s.err
	}
	blocks, ports := s.blocks, s.ports
	if slices.ContainsFunc(ports, PortSet.isInexpressible) {
		p := newPool(4 * MaxPortRanges)
		blocks = make([]prefixPorts, 0, len(s.blocks))
		for _, b := range s.blocks {
			set := ports[b.ports]
			if set.isInexpressible() {
				set = PortSet{set.ranges[1:]}
			}
			blocks = append(blocks, prefixPorts{b.prefix, p.intern(set)})
		}
		blocks = normalize(blocks, p)
		if ports = p.sets; p.err != nil {
			return Blocks{}, p.err
		}
	}
	total, counted := 0, make([]bool, len(ports))
	for _, b := range blocks {
		if !counted[b.ports] {
			counted[b.ports] = true
			total += len(ports[b.ports].ranges)
		}
	}
	if total > MaxPortRanges {
		return Blocks{}, fmt.Errorf("more than %d port ranges", MaxPortRanges)
	}
	return Blocks{blocks, ports}, nil
}

// Len returns the number of prefixes.
func (b Blocks) Len() int { return len(b.blocks) }

// All yields the blocks in order.
func (b Blocks) All() iter.Seq[Block] {
	return func(yield func(Block) bool) {
		for _, block := range b.blocks {
			if !yield(Block{block.prefix, b.ports[block.ports]}) {
				return
			}
		}
	}
}

// Group is a port set and all prefixes of a Blocks that have exactly these ports.
type Group struct {
	Ports    PortSet        // never empty
	Prefixes []netip.Prefix // sorted by Compare, never empty
}

// ByPorts returns the blocks grouped by their ports. The group with every port comes first, and the other groups are in
// the order of their ranges.
func (b Blocks) ByPorts() []Group {
	counts := make([]int, len(b.ports))
	for _, block := range b.blocks {
		counts[block.ports]++
	}
	var ids []PortSetID
	for id, count := range counts {
		if count > 0 {
			ids = append(ids, PortSetID(id))
		}
	}
	slices.SortFunc(ids, func(x, y PortSetID) int { return b.ports[x].compare(b.ports[y]) })
	groups, groupIndex := make([]Group, len(ids)), make([]int, len(b.ports))
	prefixes := make([]netip.Prefix, len(b.blocks))
	for i, id := range ids {
		groups[i], groupIndex[id] = Group{b.ports[id], prefixes[:0:counts[id]]}, i
		prefixes = prefixes[counts[id]:]
	}
	for _, block := range b.blocks {
		g := &groups[groupIndex[block.ports]]
		g.Prefixes = append(g.Prefixes, block.prefix)
	}
	return groups
}

// Slots yields each prefix, in order, with the number of its port slots: one for each port range of the prefix and of
// the prefixes that contain it. The set of every port takes one slot.
func (b Blocks) Slots() iter.Seq2[netip.Prefix, int] {
	// A block never repeats a range of a block that contains it, so a whole port set can be a key.
	ids := make([]PortSetID, len(b.ports))
	for id := range ids {
		ids[id] = PortSetID(id)
	}
	return CountSlots(len(b.blocks), func(i int) (netip.Prefix, []PortSetID) {
		id := b.blocks[i].ports
		return b.blocks[i].prefix, ids[id : id+1]
	}, func(id PortSetID) int { return b.ports[id].slots() })
}
