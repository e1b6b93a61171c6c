package netpol

import (
	"cmp"
	"net/netip"
	"slices"

	"egress-agent/pkg/awsranges"
)

// prefixPorts is a prefix with the ports that are open to all of it.
type prefixPorts struct {
	prefix netip.Prefix
	ports  setID
}

// normalize returns the same opening as blocks gives, in fewer blocks: each prefix once, none that only
// repeats what a containing one opens, no two halves with equal ports. Sorted by prefix, IPv4 first.
//
//	10.0.0.0/22 ├─────────────────┤ 443
//	10.0.1.0/24     ├───┤           443        repeats its container: dropped
//	10.0.2.0/24         ├───┤       443, 5432  ┐ repeats 443: lessened to 5432
//	10.0.3.0/24             ├─────┤ 5432       ┘ and then merged with its other half
//
//	10.0.0.0/22 ├─────────────────┤ 443
//	10.0.2.0/23         ├─────────┤ 5432
//
// It works in place, and leaves blocks in any order.
func normalize(blocks []prefixPorts, sets *portSets) []prefixPorts {
	slices.SortFunc(blocks, func(a, b prefixPorts) int { return awsranges.Compare(a.prefix, b.prefix) })
	blocks = dropCovered(blocks, sets)
	if nothingToJoin(blocks) {
		return blocks
	}
	return mergeSiblings(blocks, sets)
}

// nothingToJoin says, of sorted blocks, that none lies in another and no two are halves with equal ports:
// halves are neighbours then. It is so for most policies, and saves them mergeHalves.
func nothingToJoin(blocks []prefixPorts) bool {
	for i := 1; i < len(blocks); i++ {
		previous, b := blocks[i-1], blocks[i]
		if awsranges.Contains(previous.prefix, b.prefix) || previous.ports == b.ports && sibling(b.prefix) == previous.prefix {
			return false
		}
	}
	return true
}

// dropCovered takes sorted blocks, in which a prefix follows those that contain it, and leaves each
// the ports that none of those opens. It works in place.
func dropCovered(blocks []prefixPorts, sets *portSets) []prefixPorts {
	type container struct {
		netip.Prefix
		chain int // of it and those around it; 0 while nothing was seen in it
	}
	var containers []container // of the current block, the outermost first
	var inherited []portSet    // what each of them opens
	var owns []setID           // the same, by name
	var ids []setID
	kept := blocks[:0]
	for i := 0; i < len(blocks); {
		prefix := blocks[i].prefix
		for ids = ids[:0]; i < len(blocks) && blocks[i].prefix == prefix; i++ {
			ids = append(ids, blocks[i].ports)
		}
		for n := len(containers); n > 0 && !awsranges.Contains(containers[n-1].Prefix, prefix); n = len(containers) {
			containers, inherited, owns = containers[:n-1], inherited[:n-1], owns[:n-1]
		}
		own := sets.union(ids...)
		if n := len(containers); n > 0 {
			if innermost := &containers[n-1]; innermost.chain == 0 {
				outer := 0
				if n > 1 {
					outer = containers[n-2].chain
				}
				innermost.chain = sets.chain(outer, owns[n-1])
			}
			own = sets.withoutCovered(own, containers[n-1].chain, inherited)
		}
		if own == noPorts {
			continue
		}
		containers, inherited, owns = append(containers, container{Prefix: prefix}), append(inherited, sets.sets[own]), append(owns, own)
		kept = append(kept, prefixPorts{prefix, own})
	}
	return kept
}

// mergeSiblings joins halves with equal ports from the longest prefixes up, so that what is joined can
// be joined again. Their parent may already be there with other ports, and then gets theirs too. It
// leaves blocks in another order.
func mergeSiblings(blocks []prefixPorts, sets *portSets) []prefixPorts {
	const longest = 128
	ports := make(map[netip.Prefix]setID, len(blocks))
	for _, b := range blocks {
		ports[b.prefix] = b.ports
	}
	join := func(prefix netip.Prefix) (parent netip.Prefix, isNew bool) {
		own, here := ports[prefix]
		other := sibling(prefix)
		if others, there := ports[other]; !here || !there || own != others {
			return netip.Prefix{}, false
		}
		delete(ports, prefix)
		delete(ports, other)
		parent = netip.PrefixFrom(prefix.Addr(), prefix.Bits()-1).Masked()
		parents, there := ports[parent]
		ports[parent] = sets.union(own, parents)
		return parent, !there
	}
	slices.SortFunc(blocks, func(a, b prefixPorts) int { return cmp.Compare(b.prefix.Bits(), a.prefix.Bits()) })
	var joined []netip.Prefix // of the length before, and so of this one
	for length := longest; length > 0; length-- {
		var parents []netip.Prefix
		add := func(prefix netip.Prefix) {
			if parent, isNew := join(prefix); isNew {
				parents = append(parents, parent)
			}
		}
		for _, prefix := range joined {
			add(prefix)
		}
		for ; len(blocks) > 0 && blocks[0].prefix.Bits() == length; blocks = blocks[1:] {
			add(blocks[0].prefix)
		}
		joined = parents
	}
	merged := make([]prefixPorts, 0, len(ports))
	for prefix, own := range ports {
		if own != noPorts { // a rule without ports would open every port
			merged = append(merged, prefixPorts{prefix, own})
		}
	}
	slices.SortFunc(merged, func(a, b prefixPorts) int { return awsranges.Compare(a.prefix, b.prefix) })
	return merged
}

// sibling returns the prefix that together with this one makes a prefix one bit shorter; the zero
// Prefix where there is none shorter.
func sibling(prefix netip.Prefix) netip.Prefix {
	if prefix.Bits() == 0 {
		return netip.Prefix{}
	}
	bytes, bit := prefix.Addr().As16(), prefix.Bits()-1
	if prefix.Addr().Is4() {
		bit += 96
	}
	bytes[bit/8] ^= 0x80 >> (bit % 8)
	address := netip.AddrFrom16(bytes)
	if prefix.Addr().Is4() {
		address = address.Unmap()
	}
	return netip.PrefixFrom(address, prefix.Bits())
}
