package prefixes

import (
	"cmp"
	"net/netip"
	"slices"
)

// prefixPorts is a prefix and a port set. All addresses of the prefix have these ports.
type prefixPorts struct {
	prefix netip.Prefix
	ports  PortSetID
}

// normalize returns the same set in fewer blocks, sorted by prefix. Each prefix occurs once. No block has a range of
// ports that the containing prefixes have, and no two siblings have equal ports.
//
//	10.0.0.0/22 ├─────────────────┤ 443
//	10.0.1.0/24     ├───┤           443        covered by the /22: dropped
//	10.0.2.0/24         ├───┤       443, 5432  ┐ 443 is covered, which leaves 5432:
//	10.0.3.0/24             ├─────┤ 5432       ┘ merged with its sibling
//
//	10.0.0.0/22 ├─────────────────┤ 443
//	10.0.2.0/23         ├─────────┤ 5432
//
// normalize works in place.
func normalize(blocks []prefixPorts, p *pool) []prefixPorts {
	slices.SortFunc(blocks, func(a, b prefixPorts) int { return Compare(a.prefix, b.prefix) })
	blocks = dropCovered(blocks, p)
	if isNormal(blocks) {
		return blocks
	}
	return mergeSiblings(blocks, p)
}

// isNormal reports whether no block contains another block, and no two siblings have equal ports. Blocks are sorted, so
// such blocks would be neighbours. Most policies are normal and need no mergeSiblings.
func isNormal(blocks []prefixPorts) bool {
	for i := 1; i < len(blocks); i++ {
		previous, b := blocks[i-1], blocks[i]
		if Contains(previous.prefix, b.prefix) || previous.ports == b.ports && sibling(b.prefix) == previous.prefix {
			return false
		}
	}
	return true
}

// dropCovered removes from each block the port ranges that containing prefixes cover, and joins the blocks of one
// prefix. blocks must be sorted. dropCovered works in place.
func dropCovered(blocks []prefixPorts, p *pool) []prefixPorts {
	type container struct {
		netip.Prefix
		chain int // the chain from the outermost container to this container; 0 until a prefix inside it needs the chain
	}
	var containers []container   // the containers of the current block, the outermost first
	var containerSets []PortSet  // the port set of each container
	var containerIDs []PortSetID // the IDs of containerSets
	var ids []PortSetID
	result := blocks[:0]
	for i := 0; i < len(blocks); {
		prefix := blocks[i].prefix
		for ids = ids[:0]; i < len(blocks) && blocks[i].prefix == prefix; i++ {
			ids = append(ids, blocks[i].ports)
		}
		for n := len(containers); n > 0 && !Contains(containers[n-1].Prefix, prefix); n = len(containers) {
			containers, containerSets, containerIDs = containers[:n-1], containerSets[:n-1], containerIDs[:n-1]
		}
		id := p.union(ids...)
		if n := len(containers); n > 0 {
			if innermost := &containers[n-1]; innermost.chain == 0 {
				outer := 0
				if n > 1 {
					outer = containers[n-2].chain
				}
				innermost.chain = p.chain(outer, containerIDs[n-1])
			}
			id = p.withoutCovered(id, containers[n-1].chain, containerSets)
		}
		if id == noPorts {
			continue
		}
		containers, containerSets, containerIDs = append(containers, container{Prefix: prefix}), append(containerSets, p.sets[id]), append(containerIDs, id)
		result = append(result, prefixPorts{prefix, id})
	}
	return result
}

// mergeSiblings merges siblings with equal ports, from the longest prefixes to the shortest, so a merged prefix can
// merge again. If blocks already has their parent, with other ports, the parent gets the siblings' ports as well. The
// result is sorted. mergeSiblings changes the order of blocks.
func mergeSiblings(blocks []prefixPorts, p *pool) []prefixPorts {
	const longest = 128
	ports := make(map[netip.Prefix]PortSetID, len(blocks))
	for _, b := range blocks {
		ports[b.prefix] = b.ports
	}
	merge := func(prefix netip.Prefix) (parent netip.Prefix, isNew bool) {
		prefixID, ok := ports[prefix]
		siblingPrefix := sibling(prefix)
		siblingID, siblingOK := ports[siblingPrefix]
		if !ok || !siblingOK || prefixID != siblingID {
			return netip.Prefix{}, false
		}
		delete(ports, prefix)
		delete(ports, siblingPrefix)
		parent = netip.PrefixFrom(prefix.Addr(), prefix.Bits()-1).Masked()
		parentID, parentOK := ports[parent]
		ports[parent] = p.union(prefixID, parentID)
		return parent, !parentOK
	}
	slices.SortFunc(blocks, func(a, b prefixPorts) int { return cmp.Compare(b.prefix.Bits(), a.prefix.Bits()) })
	var merged []netip.Prefix // the new parents that have the current length
	for length := longest; length > 0; length-- {
		var parents []netip.Prefix
		add := func(prefix netip.Prefix) {
			if parent, isNew := merge(prefix); isNew {
				parents = append(parents, parent)
			}
		}
		for _, prefix := range merged {
			add(prefix)
		}
		for ; len(blocks) > 0 && blocks[0].prefix.Bits() == length; blocks = blocks[1:] {
			add(blocks[0].prefix)
		}
		merged = parents
	}
	result := make([]prefixPorts, 0, len(ports))
	for prefix, id := range ports {
		if id != noPorts { // a rule without ports would open every port
			result = append(result, prefixPorts{prefix, id})
		}
	}
	slices.SortFunc(result, func(a, b prefixPorts) int { return Compare(a.prefix, b.prefix) })
	return result
}
