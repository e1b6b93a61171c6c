package netpol

import (
	"cmp"
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

// joined sorts ranges and joins what overlaps or touches. It works in place.
//
//	440-443 ├──┤
//	444-450     ├─────┤   touches: joined
//	446-448       ├─┤     contained
//	440-450 ├─────────┤   the result
func joined(ranges []policy.Port) []policy.Port {
	slices.SortFunc(ranges, comparePorts)
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

// setID names a portSet of one portSets. Two sets are equal exactly when their IDs are.
type setID int

const (
	noPorts   setID = 0
	everyPort setID = 1
)

// portSets holds each distinct set of one policy once. A policy has few of them and many prefixes,
// so prefixes carry IDs and each operation on two sets is done once.
type portSets struct {
	sets []portSet
	ids  map[string]setID // by the set's ranges
	done map[operation]setID
}

type operation struct {
	union bool // else lessen
	a, b  setID
}

func newPortSets() *portSets {
	return &portSets{
		sets: []portSet{noPorts: {}, everyPort: {every: true}},
		ids:  map[string]setID{"": noPorts},
		done: make(map[operation]setID),
	}
}

// of returns the set of a destination's ports; nil is every port.
func (s *portSets) of(ports []policy.Port) setID {
	if ports == nil {
		return everyPort
	}
	return s.id(joined(slices.Clone(ports)))
}

// id returns the ID of the set with these ranges, joined as by joined.
func (s *portSets) id(ranges []policy.Port) setID {
	var key strings.Builder
	for _, r := range ranges {
		key.WriteString(string(r.Protocol))
		key.Write([]byte{0, byte(r.First >> 8), byte(r.First), byte(r.Last >> 8), byte(r.Last)})
	}
	id, known := s.ids[key.String()]
	if !known {
		id = setID(len(s.sets))
		s.sets = append(s.sets, portSet{ranges: ranges})
		s.ids[key.String()] = id
	}
	return id
}

func (s *portSets) union(a, b setID) setID {
	switch {
	case a == b || b == noPorts || a == everyPort:
		return a
	case a == noPorts || b == everyPort:
		return b
	}
	key := operation{true, min(a, b), max(a, b)}
	if id, ok := s.done[key]; ok {
		return id
	}
	id := s.id(joined(slices.Concat(s.sets[a].ranges, s.sets[b].ranges)))
	s.done[key] = id
	return id
}

// lessen returns own without the ranges that lie wholly in one of inherited. A range that only
// overlaps stays whole: cutting it could leave two where there was one, and the dataplane counts.
func (s *portSets) lessen(own, inherited setID) setID {
	switch {
	case own == inherited || inherited == everyPort:
		return noPorts
	case inherited == noPorts || own == everyPort || own == noPorts:
		return own
	}
	key := operation{false, own, inherited}
	if id, ok := s.done[key]; ok {
		return id
	}
	var kept []policy.Port
	for _, r := range s.sets[own].ranges {
		covered := slices.ContainsFunc(s.sets[inherited].ranges, func(outer policy.Port) bool {
			return outer.Protocol == r.Protocol && outer.First <= r.First && r.Last <= outer.Last
		})
		if !covered {
			kept = append(kept, r)
		}
	}
	id := s.id(kept)
	s.done[key] = id
	return id
}

// api gives the set as a rule's ports. Nil, which Kubernetes reads as every port, is given for that
// set alone.
func (s portSet) api() []networkingv1.NetworkPolicyPort {
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
