package prefixes

import (
	"iter"
	"net/netip"
)

// CountSlots yields n prefixes, in order, each with its number of port slots. A key is a port, a port range, or a set
// of ports and port ranges. A prefix takes the slots of its keys and of the keys of the prefixes that contain it. Each
// distinct key counts once. AWS VPC CNI looks up only the longest prefix of an address, so it copies the ports of
// containing prefixes to that prefix.
//
//	10.0.0.0/8  ├─────────────────┤ 443, 80    2 slots
//	10.1.0.0/16     ├───────┤       443, 5432  3 slots: 443, 80, 5432
//
// prefixAt returns the i-th prefix and its distinct keys. slotsOf returns the number of slots of a key. The prefixes
// must be sorted by Compare, and each must occur once.
func CountSlots[K comparable](n int, prefixAt func(i int) (netip.Prefix, []K), slotsOf func(K) int) iter.Seq2[netip.Prefix, int] {
	type container struct {
		prefix    netip.Prefix
		keys      []K
		slots     int  // the number of slots of prefix
		isCounted bool // whether inherited includes keys; false until a prefix inside needs them
	}
	return func(yield func(netip.Prefix, int) bool) {
		var containers []container   // the containers of the current prefix, the outermost first
		inherited := make(map[K]int) // the number of containers that have each key
		for i := range n {
			prefix, keys := prefixAt(i)
			for n := len(containers); n > 0 && !Contains(containers[n-1].prefix, prefix); n = len(containers) {
				if containers[n-1].isCounted {
					for _, key := range containers[n-1].keys {
						if inherited[key]--; inherited[key] == 0 {
							delete(inherited, key)
						}
					}
				}
				containers = containers[:n-1]
			}
			total := 0
			if n := len(containers); n > 0 {
				innermost := &containers[n-1]
				if !innermost.isCounted {
					innermost.isCounted = true
					for _, key := range innermost.keys {
						inherited[key]++
					}
				}
				total = innermost.slots
			}
			for _, key := range keys {
				if len(inherited) == 0 || inherited[key] == 0 {
					total += slotsOf(key)
				}
			}
			containers = append(containers, container{prefix: prefix, keys: keys, slots: total})
			if !yield(prefix, total) {
				return
			}
		}
	}
}
