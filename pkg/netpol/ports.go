package netpol

import (
	"cmp"
	"math"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"egress-agent/pkg/policy"
)

// portSet is a set of (protocol, port). Ranges are sorted by comparePorts, disjoint, and joined
// where they touch, so that equal sets are equal slices. The set of every port of every protocol is
// no list of ranges: it also holds protocols without ports.
type portSet struct {
	every  bool
	ranges []policy.Port
}

func comparePorts(a, b policy.Port) int {
	return cmp.Or(strings.Compare(string(a.Protocol), string(b.Protocol)), cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last))
}

// compare orders sets: every port first, then by their ranges.
func (s portSet) compare(other portSet) int {
	if s.every != other.every {
		if s.every {
			return -1
		}
		return 1
	}
	return slices.CompareFunc(s.ranges, other.ranges, comparePorts)
}

// mergeRanges sorts ranges and joins what overlaps or touches. It works in place.
//
//	440-443 ├──┤
//	444-450     ├─────┤   touches: joined
//	446-448       ├─┤     contained
//	440-450 ├─────────┤   the result
func mergeRanges(ranges []policy.Port) []policy.Port {
	if !slices.IsSortedFunc(ranges, comparePorts) {
		slices.SortFunc(ranges, comparePorts)
	}
	kept := ranges[:0]
	for _, r := range ranges {
		if n := len(kept); n > 0 && kept[n-1].Protocol == r.Protocol && int(r.First) <= int(kept[n-1].Last)+1 {
			kept[n-1].Last = max(kept[n-1].Last, r.Last)
			continue
		}
		kept = append(kept, r)
	}
	return kept
}

// lastContiguous returns the last port up to which the set holds every one from a port of a protocol on; less
// than the port where it does not hold that.
func (s portSet) lastContiguous(protocol policy.Protocol, port int) int {
	if s.every {
		return math.MaxUint16
	}
	behind, _ := slices.BinarySearchFunc(s.ranges, port+1, func(r policy.Port, first int) int {
		return cmp.Or(strings.Compare(string(r.Protocol), string(protocol)), cmp.Compare(int(r.First), first))
	})
	if behind == 0 || s.ranges[behind-1].Protocol != protocol {
		return port - 1
	}
	return int(s.ranges[behind-1].Last)
}

// isCovered says whether the sets together hold all of a range.
func isCovered(r policy.Port, sets []portSet) bool {
	for next := int(r.First); next <= int(r.Last); {
		reached := next - 1
		for _, s := range sets {
			reached = max(reached, s.lastContiguous(r.Protocol, next))
		}
		if reached < next {
			return false
		}
		next = reached + 1
	}
	return true
}

// setID names a portSet of one portSets. Two sets are equal exactly when their IDs are.
type setID int

const (
	noPorts   setID = 0
	everyPort setID = 1
)

// portSets holds each distinct set of one policy once: there are few of them, on many prefixes.
type portSets struct {
	sets []portSet
	ids  map[string]setID // by the set's ranges
	// total counts the ranges of all sets. Beyond maxRanges a further set is taken for noPorts, which opens nothing, and
	// overflow says that the policy must be refused.
	total    int
	overflow bool
	lessened map[[2]int]setID // what lessen gave for a set in a chain of containers
	chains   map[[2]int]int   // a chain of containers, by the chain around it and its innermost set
}

func newPortSets() *portSets {
	return &portSets{
		sets: []portSet{noPorts: {}, everyPort: {every: true}},
		ids:  map[string]setID{"": noPorts},
	}
}

// chain names a chain of containers by the one around it, 0 for none, and the innermost container's set.
func (s *portSets) chain(outer int, own setID) int {
	if s.chains == nil {
		s.chains, s.lessened = make(map[[2]int]int), make(map[[2]int]setID)
	}
	key := [2]int{outer, int(own)}
	if s.chains[key] == 0 {
		s.chains[key] = len(s.chains) + 1
	}
	return s.chains[key]
}

// setFor returns the set of a destination's ports; nil is every port.
func (s *portSets) setFor(ports []policy.Port) setID {
	if ports == nil {
		return everyPort
	}
	return s.intern(portSet{ranges: mergeRanges(slices.Clone(ports))})
}

func (s *portSets) intern(set portSet) setID {
	if set.every {
		return everyPort
	}
	var key strings.Builder
	for _, r := range set.ranges {
		key.WriteString(string(r.Protocol))
		key.Write([]byte{0, byte(r.First >> 8), byte(r.First), byte(r.Last >> 8), byte(r.Last)})
	}
	id, known := s.ids[key.String()]
	if !known {
		if s.total += len(set.ranges); s.total > maxRanges {
			s.overflow = true
			return noPorts
		}
		id = setID(len(s.sets))
		s.sets = append(s.sets, set)
		s.ids[key.String()] = id
	}
	return id
}

// union joins any number of sets at once: one after the other would take the square of their number.
func (s *portSets) union(ids ...setID) setID {
	ids = slices.Compact(ids)
	if len(ids) == 1 {
		return ids[0]
	}
	var all []policy.Port
	for _, id := range ids {
		if id == everyPort {
			return everyPort
		}
		all = append(all, s.sets[id].ranges...)
	}
	return s.intern(portSet{ranges: mergeRanges(all)})
}

// withoutCovered returns own without the ranges that the inherited sets hold wholly: those of the containers of this chain. A
// range that they hold in part stays whole: cutting it could leave two where there was one, and the dataplane counts.
func (s *portSets) withoutCovered(own setID, chain int, inherited []portSet) setID {
	if own == everyPort {
		if slices.ContainsFunc(inherited, func(set portSet) bool { return set.every }) {
			return noPorts
		}
		return own
	}
	key := [2]int{int(own), chain}
	rest, known := s.lessened[key]
	if !known {
		rest = s.without(own, inherited)
		s.lessened[key] = rest
	}
	return rest
}

func (s *portSets) without(own setID, inherited []portSet) setID {
	ranges := s.sets[own].ranges
	rest := slices.DeleteFunc(slices.Clone(ranges), func(r policy.Port) bool { return isCovered(r, inherited) })
	switch len(rest) {
	case 0:
		return noPorts
	case len(ranges):
		return own
	}
	return s.intern(portSet{ranges: rest})
}

// toAPI gives the set as a rule's ports. Nil, which Kubernetes reads as every port, is given for that
// set alone.
func (s portSet) toAPI() []networkingv1.NetworkPolicyPort {
	if s.every {
		return nil
	}
	ports := make([]networkingv1.NetworkPolicyPort, len(s.ranges))
	for i, r := range s.ranges {
		protocol, first := corev1.Protocol(r.Protocol), intstr.FromInt32(int32(r.First))
		ports[i] = networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: &first}
		if r.Last > r.First {
			last := int32(r.Last)
			ports[i].EndPort = &last
		}
	}
	return ports
}
