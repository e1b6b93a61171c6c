package prefixes

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
)

// Builder collects prefixes and their ports for a Set. Its zero value is not usable; see NewBuilder.
type Builder struct {
	pool   *pool
	blocks []prefixPorts
	unions map[string]PortSetID // results of Union
}

// NewBuilder returns an empty Builder with room for n prefixes.
func NewBuilder(n int) *Builder {
	return &Builder{newPool(MaxPortRanges), make([]prefixPorts, 0, n), make(map[string]PortSetID)}
}

// Ports returns the ID of a set of port ranges, which may overlap. Nil means every port of every protocol, and an empty
// slice that is not nil means no port. Ports modifies ranges, and the caller must not use them afterwards.
func (b *Builder) Ports(ranges []PortRange) PortSetID {
	if ranges == nil {
		return everyPortID
	}
	return b.pool.intern(PortSet{MergePorts(ranges)})
}

// Union returns the ID of the union of port sets. It sorts ids in place.
func (b *Builder) Union(ids []PortSetID) PortSetID {
	if len(ids) == 1 {
		return ids[0]
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	key := make([]byte, 0, 4*len(ids))
	for _, id := range ids {
		key = append(key, byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
	}
	union, known := b.unions[string(key)]
	if !known {
		union = b.pool.union(ids...)
		b.unions[string(key)] = union
	}
	return union
}

// Add adds the ports to every address of the prefixes. Ports from other calls stay.
func (b *Builder) Add(ports PortSetID, prefixes ...netip.Prefix) {
	for _, prefix := range prefixes {
		b.blocks = append(b.blocks, prefixPorts{prefix, ports})
	}
}

// Grow makes room for n more prefixes.
func (b *Builder) Grow(n int) { b.blocks = slices.Grow(b.blocks, n) }

// PortRanges returns the number of port ranges in all distinct port sets so far. A Set has at most MaxPortRanges.
func (b *Builder) PortRanges() int { return b.pool.total }

// Set returns the set of all added prefixes and ports. The caller must not use the Builder afterwards.
func (b *Builder) Set() Set { return newSet(b.blocks, b.pool) }

// Set is an immutable set of (address, protocol, port), and safe for concurrent use. The zero Set is empty.
//
// Prefixes of a Set may nest, and an address has the ports of every prefix that contains it. So a Set of port 443 on
// 10.0.0.0/8 and port 80 on 10.1.0.0/16 has two prefixes.
type Set struct {
	blocks []prefixPorts // as normalize returns them
	ports  []PortSet     // by PortSetID
	err    error         // says which bound the set exceeds; blocks are then incomplete
}

// IsEmpty reports whether s has nothing. It returns false for a set that exceeds a bound.
func (s Set) IsEmpty() bool { return s.err == nil && len(s.blocks) == 0 }

// First returns the first prefix of s with its ports, and the number of prefixes. It returns the zero Block and 0 for an
// empty set, and for a set that exceeds a bound.
func (s Set) First() (first Block, count int) {
	if s.err != nil || len(s.blocks) == 0 {
		return Block{}, 0
	}
	return Block{s.blocks[0].prefix, s.ports[s.blocks[0].ports]}, len(s.blocks)
}

// maxBlocks bounds the number of prefixes in a result of Union, Intersect or Subtract, and so its memory. It is four
// times the size of a pod's map in AWS VPC CNI.
const maxBlocks = 256 << 10

var errTooManyPrefixes = errors.New("more than 262144 prefixes")

// newSet returns the set of blocks, whose ports are in p. It modifies blocks and p.
func newSet(blocks []prefixPorts, p *pool) Set {
	blocks = normalize(blocks, p)
	return Set{blocks, p.sets, p.err}
}

// Union returns everything that s or t has.
//
//	s       10.0.0.0/24 ├───────┤         443
//	t       10.0.0.0/23 ├───────────────┤ 80
//	result  10.0.0.0/23 ├───────────────┤ 80
//	        10.0.0.0/24 ├───────┤         443
func (s Set) Union(t Set) Set {
	return combine(s, t, func(o *operation) {
		for _, set := range []Set{s, t} {
			imported := o.importer(set)
			for _, b := range set.blocks {
				o.add(b.prefix, imported(b.ports))
			}
		}
	})
}

// Intersect returns everything that both s and t have.
//
//	s       10.0.0.0/23 ├───────────────┤ 443, 5432
//	t       10.0.1.0/24         ├───────┤ 443
//	result  10.0.1.0/24         ├───────┤ 443
func (s Set) Intersect(t Set) Set {
	return combine(s, t, func(o *operation) {
		intersect := o.memoize(func(a, b PortSetID) PortSet { return s.ports[a].intersect(t.ports[b]) })
		eachOverlap(s.blocks, t.blocks, func(b prefixPorts, outer, inner []prefixPorts) {
			for _, container := range outer {
				o.add(b.prefix, intersect(b.ports, container.ports))
			}
			for _, part := range inner {
				o.add(part.prefix, intersect(b.ports, part.ports))
			}
		})
	})
}

// Subtract returns everything that s has and t lacks.
//
//	s       10.0.0.0/22 ├───────────────────────────────┤ 443, 5432
//	t       10.0.1.0/24         ├───────┤                 443
//	result  10.0.0.0/24 ├───────┤                         443, 5432
//	        10.0.1.0/24         ├───────┤                 5432
//	        10.0.2.0/23                 ├───────────────┤ 443, 5432
func (s Set) Subtract(t Set) Set {
	return combine(s, t, func(o *operation) {
		imported := o.importer(s)
		subtract := o.memoize(func(a, b PortSetID) PortSet { return o.pool.sets[a].subtract(t.ports[b]) })
		var holes []prefixPorts
		eachOverlap(s.blocks, t.blocks, func(b prefixPorts, outer, inner []prefixPorts) {
			ports := imported(b.ports)
			for _, container := range outer {
				ports = subtract(ports, container.ports)
			}
			holes = holes[:0]
			for _, hole := range inner {
				if subtract(ports, hole.ports) != ports {
					holes = append(holes, hole)
				}
			}
			o.cut(b.prefix, ports, holes, subtract)
		})
	})
}

// operation builds the result of an operation on two sets.
type operation struct {
	pool   *pool
	blocks []prefixPorts
}

// combine returns the set of everything that fill adds to the operation. If a or b has an error, the result has the
// same error. A pool counts intermediate port sets too, so its bound is four times MaxPortRanges here. Blocks checks
// the result.
func combine(a, b Set, fill func(*operation)) Set {
	if err := cmp.Or(a.err, b.err); err != nil {
		return Set{err: err}
	}
	o := &operation{pool: newPool(4 * MaxPortRanges)}
	fill(o)
	if o.pool.err != nil {
		return Set{err: o.pool.err}
	}
	return newSet(o.blocks, o.pool)
}

func (o *operation) add(prefix netip.Prefix, ports PortSetID) {
	switch {
	case ports == noPorts:
	case len(o.blocks) == maxBlocks:
		o.pool.err = errTooManyPrefixes
	default:
		o.blocks = append(o.blocks, prefixPorts{prefix, ports})
	}
}

// cut adds prefix with ports, and subtracts the ports of each hole. holes are sorted and inside prefix. cut halves
// prefix as long as a hole inside it has any port of ports.
func (o *operation) cut(prefix netip.Prefix, ports PortSetID, holes []prefixPorts, subtract func(a, b PortSetID) PortSetID) {
	for len(holes) > 0 && holes[0].prefix == prefix {
		ports, holes = subtract(ports, holes[0].ports), holes[1:]
	}
	isHit := func(hole prefixPorts) bool { return subtract(ports, hole.ports) != ports }
	if ports == noPorts || o.pool.err != nil || !slices.ContainsFunc(holes, isHit) {
		o.add(prefix, ports)
		return
	}
	low, high := halves(prefix)
	highIndex, _ := slices.BinarySearchFunc(holes, high, func(hole prefixPorts, high netip.Prefix) int { return Compare(hole.prefix, high) })
	o.cut(low, ports, holes[:highIndex], subtract)
	o.cut(high, ports, holes[highIndex:], subtract)
}

// importer returns a function that adds a port set of set to the pool.
func (o *operation) importer(set Set) func(PortSetID) PortSetID {
	ids := make([]PortSetID, len(set.ports)) // noPorts until it is imported
	return func(id PortSetID) PortSetID {
		if ids[id] == noPorts {
			ids[id] = o.pool.intern(set.ports[id])
		}
		return ids[id]
	}
}

// memoize returns a function that calls f once for each pair of arguments and adds the result to the pool.
func (o *operation) memoize(f func(a, b PortSetID) PortSet) func(a, b PortSetID) PortSetID {
	known := make(map[[2]PortSetID]PortSetID)
	return func(a, b PortSetID) PortSetID {
		key := [2]PortSetID{a, b}
		id, ok := known[key]
		if !ok {
			id = o.pool.intern(f(a, b))
			known[key] = id
		}
		return id
	}
}

// eachOverlap calls visit for each block of x, in order. outer lists the blocks of y that contain the block or equal
// it. inner lists the other blocks of y that are inside the block. x and y are sorted, with each prefix once. visit
// must not retain its arguments.
//
//	x              ├─────────┤        the block
//	y     ├──────────────────────┤    in outer
//	        ├──┤   ├─┤     ├─┤        the second and the third: in inner
func eachOverlap(x, y []prefixPorts, visit func(block prefixPorts, outer, inner []prefixPorts)) {
	var outer []prefixPorts
	for _, block := range x {
		for n := len(outer); n > 0 && !Contains(outer[n-1].prefix, block.prefix); n = len(outer) {
			outer = outer[:n-1]
		}
		for len(y) > 0 && Compare(y[0].prefix, block.prefix) <= 0 {
			if Contains(y[0].prefix, block.prefix) {
				outer = append(outer, y[0])
			}
			y = y[1:] // it is in outer, or ends before this block
		}
		innerCount := 0
		for innerCount < len(y) && Contains(block.prefix, y[innerCount].prefix) {
			innerCount++
		}
		visit(block, outer, y[:innerCount])
	}
}
