package prefixes

import (
	"fmt"
	"slices"
	"strings"
)

// MaxPortRanges bounds the total number of port ranges in the distinct port sets of a Set. An API server stores no
// object of more than 1.5 MiB (https://etcd.io/docs/v3.6/dev-guide/limit/), and each range takes at least 24 bytes.
const MaxPortRanges = 32 << 10

// PortSetID identifies a port set of one Builder. Two port sets of a Builder are equal if and only if their IDs are
// equal.
type PortSetID int

const (
	noPorts     PortSetID = 0
	everyPortID PortSetID = 1
)

// pool stores each distinct port set once, because a Set has many prefixes and few port sets.
type pool struct {
	sets []PortSet // by PortSetID
	ids  map[string]PortSetID
	// total is the number of ranges in all sets. Beyond limit, intern sets err and returns noPorts, which opens nothing.
	total, limit int
	err          error
	remainders   map[[2]int]PortSetID // results of withoutCovered, by port set and chain
	chains       map[[2]int]int       // results of chain, by its arguments
}

func newPool(limit int) *pool {
	return &pool{sets: []PortSet{noPorts: {}, everyPortID: everyPort}, ids: make(map[string]PortSetID), limit: limit}
}

// intern returns the ID of a set.
func (p *pool) intern(set PortSet) PortSetID {
	if len(set.ranges) == 0 {
		return noPorts
	}
	if set.IsEveryPort() {
		return everyPortID
	}
	var key strings.Builder
	for _, r := range set.ranges {
		key.WriteString(r.Protocol)
		key.Write([]byte{0, byte(r.First >> 8), byte(r.First), byte(r.Last >> 8), byte(r.Last)})
	}
	id, known := p.ids[key.String()]
	if !known {
		if p.total += len(set.ranges); p.total > p.limit {
			p.err = fmt.Errorf("more than %d port ranges", p.limit)
			return noPorts
		}
		id = PortSetID(len(p.sets))
		p.sets = append(p.sets, set)
		p.ids[key.String()] = id
	}
	return id
}

// union returns the union of port sets. It merges them in one step, because one step for each set would take quadratic
// time.
func (p *pool) union(ids ...PortSetID) PortSetID {
	ids = slices.Compact(ids)
	if len(ids) == 1 {
		return ids[0]
	}
	var all []PortRange
	for _, id := range ids {
		if id == everyPortID {
			return everyPortID
		}
		all = append(all, p.sets[id].ranges...)
	}
	return p.intern(PortSet{MergePorts(all)})
}

// chain returns a number for a chain of nested prefixes. Chains with the same port sets have the same number. innermost
// is the port set of the innermost prefix. outerChain is the number of the chain without this prefix, or 0 if no other
// prefix is in the chain.
func (p *pool) chain(outerChain int, innermost PortSetID) int {
	if p.chains == nil {
		p.chains, p.remainders = make(map[[2]int]int), make(map[[2]int]PortSetID)
	}
	key := [2]int{outerChain, int(innermost)}
	if p.chains[key] == 0 {
		p.chains[key] = len(p.chains) + 1
	}
	return p.chains[key]
}

// withoutCovered returns the port set id without the ranges that chainSets cover completely. chainSets are the port
// sets of the chain. A range that they cover in part stays complete: a cut could make two ranges of one, and each range
// takes a port slot. The set of every port, which takes one slot, stays complete as well.
func (p *pool) withoutCovered(id PortSetID, chain int, chainSets []PortSet) PortSetID {
	key := [2]int{int(id), chain}
	rest, known := p.remainders[key]
	if !known {
		rest = p.withoutCoveredRanges(id, chainSets)
		p.remainders[key] = rest
	}
	return rest
}

func (p *pool) withoutCoveredRanges(id PortSetID, chainSets []PortSet) PortSetID {
	ranges := p.sets[id].ranges
	rest := slices.DeleteFunc(slices.Clone(ranges), func(r PortRange) bool { return isCovered(r, chainSets) })
	switch {
	case len(rest) == 0:
		return noPorts
	case len(rest) == len(ranges) || id == everyPortID:
		return id
	}
	return p.intern(PortSet{rest})
}
