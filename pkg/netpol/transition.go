package netpol

import (
	"encoding/json"
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/internal/prefixes"
)

// Step is what is due on the way from one spec to another.
type Step string

// The steps of a change. A large one takes two writes, since AWS VPC CNI splits a policy into several
// PolicyEndpoints objects and updates them one after the other: while it does, an address that is
// allowed before and after may be denied (measured: 44 % of them for half a second, when ports 443
// became 443 and 80 on 1,753 CIDRs; none with the union of both written first).
const (
	// Replace writes the desired spec at once: it only adds, or it is small.
	Replace Step = "whole"
	// Widen writes the union of both, which denies nothing that either allows.
	Widen Step = "widen"
	// Narrow writes the desired spec over one that holds all of it, and more: the second write, due
	// when the dataplane has taken up the first.
	Narrow Step = "narrow"
)

// Transition decides the next write on the way from current, a spec as the agent wrote it, to
// desired, and returns what to write. The step is read off the two specs alone, so that an agent that
// was stopped between the writes goes on where it was. chunk is the number of peers up to which every
// change is one write.
func Transition(current, desired networkingv1.NetworkPolicySpec, chunk int, options Options) (Step, networkingv1.NetworkPolicySpec) {
	before, after := peerPortsOf(current), peerPortsOf(desired)
	if !IsLarge(max(CIDRCount(current), CIDRCount(desired)), chunk, options) || containsAll(after, before) {
		return Replace, desired
	}
	if containsAll(before, after) {
		return Narrow, desired
	}
	union := unionOf(current, desired)
	if !canStand(union, options) {
		// Ports that the dataplane loses at random, or a write that is refused each time, would be worse than the gap
		// of a moment.
		return Replace, desired
	}
	return Widen, union
}

// dnsPeers is what is kept for the peers of the DNS rule that are Pods: AWS VPC CNI makes one of each Pod of the DNS, and
// of each of its addresses, and one of its Service. A cluster has two such Pods from the start, and more as it grows.
const dnsPeers = 16

// IsLarge reports whether specs of so many CIDRs, with the peers of the DNS rule, may take more than one
// PolicyEndpoints object of chunk peers.
func IsLarge(cidrs, chunk int, options Options) bool {
	if options.AllowDNS {
		cidrs += dnsPeers
	}
	return cidrs > chunk
}

// maxEncoded bounds a spec that is written: etcd takes requests of up to 1.5 MiB
// (https://etcd.io/docs/v3.6/dev-guide/limit/), and the rest of the object is in them, too.
const maxEncoded = 1 << 20

// canStand reports whether a union is within the limits of a pod and of an API server.
func canStand(union networkingv1.NetworkPolicySpec, options Options) bool {
	slots := SlotsOf(union)
	_, most := slots.Max(union)
	return !options.exceedsSlots(most) && len(slots.cidrs) <= maxPeers && union.Size() <= maxEncoded
}

// peerPorts is one peer of a rule with the rule's ports, both as JSON; an empty peer is all of them.
type peerPorts struct{ peer, ports string }

func peerPortsOf(spec networkingv1.NetworkPolicySpec) map[peerPorts]bool {
	openings := make(map[peerPorts]bool)
	for _, rule := range spec.Egress {
		ports := jsonKey(rule.Ports)
		if len(rule.To) == 0 {
			openings[peerPorts{"", ports}] = true
		}
		for _, peer := range rule.To {
			openings[peerPorts{peerKey(peer), ports}] = true
		}
	}
	return openings
}

// peerKey is short for the peers that there are many of.
func peerKey(peer networkingv1.NetworkPolicyPeer) string {
	if peer.IPBlock != nil && len(peer.IPBlock.Except) == 0 {
		return peer.IPBlock.CIDR
	}
	return jsonKey(peer)
}

func jsonKey(value any) string {
	data, err := json.Marshal(value)
	if err != nil {
		panic(err) // strings, numbers and lists of them always encode
	}
	return string(data)
}

// Holds reports whether a spec opens to each of another's peers each of its ports and port ranges, and so opens all that
// it does.
func Holds(whole, part networkingv1.NetworkPolicySpec) bool {
	type opened struct {
		peer string
		port PortKey
	}
	all := make(map[opened]bool)
	each := func(spec networkingv1.NetworkPolicySpec, visit func(opened) bool) bool {
		for _, rule := range spec.Egress {
			for _, port := range portKeys(rule.Ports) {
				if len(rule.To) == 0 && !visit(opened{"", port}) {
					return false
				}
				for _, peer := range rule.To {
					if !visit(opened{peerKey(peer), port}) {
						return false
					}
				}
			}
		}
		return true
	}
	each(whole, func(o opened) bool { all[o] = true; return true })
	return each(part, func(o opened) bool { return all[o] })
}

// containsAll says whether every opening of part is one of whole.
func containsAll(whole, part map[peerPorts]bool) bool {
	for o := range part {
		if !whole[o] {
			return false
		}
	}
	return true
}

// CIDRCount counts the peers of a spec's rules that are CIDRCount.
func CIDRCount(spec networkingv1.NetworkPolicySpec) int {
	count := 0
	for _, rule := range spec.Egress {
		for _, peer := range rule.To {
			if peer.IPBlock != nil {
				count++
			}
		}
	}
	return count
}

// unionOf has the rules of both, with one rule for equal ports: those of desired in their order, and
// then those of current alone.
func unionOf(current, desired networkingv1.NetworkPolicySpec) networkingv1.NetworkPolicySpec {
	union := *desired.DeepCopy()
	byPorts := make(map[string]int)
	for i, rule := range union.Egress {
		byPorts[jsonKey(rule.Ports)] = i
	}
	for _, rule := range current.Egress {
		i, both := byPorts[jsonKey(rule.Ports)]
		if !both {
			union.Egress = append(union.Egress, *rule.DeepCopy())
			continue
		}
		union.Egress[i].To = unionPeers(union.Egress[i].To, rule.To)
	}
	return union
}

// unionPeers has the peers of both rules, sorted where they are CIDRs, behind the others. A rule without
// peers opens every one, and so does its union with any other.
func unionPeers(a, b []networkingv1.NetworkPolicyPeer) []networkingv1.NetworkPolicyPeer {
	if len(a) == 0 || len(b) == 0 {
		return nil
	}
	seen := make(map[string]bool)
	var union []networkingv1.NetworkPolicyPeer
	for _, peer := range slices.Concat(a, b) {
		if key := peerKey(peer); !seen[key] {
			seen[key] = true
			union = append(union, *peer.DeepCopy())
		}
	}
	slices.SortStableFunc(union, func(a, b networkingv1.NetworkPolicyPeer) int {
		return prefixes.Compare(peerPrefix(a), peerPrefix(b)) // peers that are none come first
	})
	return union
}

// peerPrefix returns a peer's CIDR, or the zero Prefix.
func peerPrefix(peer networkingv1.NetworkPolicyPeer) netip.Prefix {
	if peer.IPBlock == nil {
		return netip.Prefix{}
	}
	prefix, _ := netip.ParsePrefix(peer.IPBlock.CIDR)
	return prefix
}
