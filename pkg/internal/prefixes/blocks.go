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

// Blocks are the prefixes of a Set, sorted by Compare. Each prefix occurs once, with its ports in merged ranges. It
// lacks the ranges that the containing prefixes have. No two siblings have equal ports. The zero Blocks are empty.
type Blocks struct {
	blocks []prefixPorts
	ports  []PortSet // by PortSetID
}

// Blocks returns the part of s that a NetworkPolicy can list. A NetworkPolicy opens protocols without ports, such as
// ICMP, only together with every port, so a prefix without every port loses them. An error means that s exceeds
// MaxPortRanges or another bound; the Blocks are then empty.
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

// Group is all prefixes of some Blocks that have the same ports.
type Group struct {
	Ports    PortSet        // never empty
	Prefixes []netip.Prefix // sorted by Compare, never empty
}

// ByPorts returns the blocks grouped by their ports: every port first, then in the order of the ranges.
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
	groups, groupOf := make([]Group, len(ids)), make([]int, len(b.ports))
	prefixes := make([]netip.Prefix, len(b.blocks))
	for i, id := range ids {
		groups[i], groupOf[id] = Group{b.ports[id], prefixes[:0:counts[id]]}, i
		prefixes = prefixes[counts[id]:]
	}
	for _, block := range b.blocks {
		g := &groups[groupOf[block.ports]]
		g.Prefixes = append(g.Prefixes, block.prefix)
	}
	return groups
}

// Slots yields each prefix, in order, with the number of its port slots: one for each port range of the prefix and of
// the prefixes that contain it. The set of every port takes one slot.
func (b Blocks) Slots() iter.Seq2[netip.Prefix, int] {
	// A range never repeats inside a prefix that has it, so whole port sets are the keys.
	ids := make([]PortSetID, len(b.ports))
	for id := range ids {
		ids[id] = PortSetID(id)
	}
	return CountSlots(len(b.blocks), func(i int) (netip.Prefix, []PortSetID) {
		id := b.blocks[i].ports
		return b.blocks[i].prefix, ids[id : id+1]
	}, func(id PortSetID) int { return b.ports[id].slots() })
}
