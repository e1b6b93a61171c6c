package netpol

import (
	"encoding/json"
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/internal/prefixes"
)

// Step is the next write of a transition from one spec to another.
type Step string

// The steps of a transition. A large one takes two writes. AWS VPC CNI splits a policy into several PolicyEndpoints
// objects and updates one after the other. Meanwhile it may deny an address that both specs allow. Measured: it denied
// 44 % of the addresses for half a second when ports 443 became 443 and 80 on 1,753 CIDRs. With the union of both
// written first, it denied none.
const (
	// Replace writes the desired spec: the transition only adds, or it is small.
	Replace Step = "whole"
	// Widen writes the union of both specs, which allows everything that either allows.
	Widen Step = "widen"
	// Narrow replaces a superset of the desired spec. It is the second write, after the dataplane has applied the first.
	Narrow Step = "narrow"
)

// Transition returns the next step from current to desired, and the spec to write. The agent wrote current. The step
// depends only on the two specs, so an agent that stopped between two writes continues with the second. A transition of
// at most chunk peers is one write.
func Transition(current, desired networkingv1.NetworkPolicySpec, chunk int, options Options) (Step, networkingv1.NetworkPolicySpec) {
	before, after := peerPortsOf(current), peerPortsOf(desired)
	if !IsLarge(max(CIDRCount(current), CIDRCount(desired)), chunk, options) || containsAll(after, before) {
		return Replace, desired
	}
	if containsAll(before, after) {
		return Narrow, desired
	}
	union := unionOf(current, desired)
	if !isWithinLimits(union, options) {
		// A short gap is better than ports that the dataplane drops at random, or a write that the API server always
		// refuses.
		return Replace, desired
	}
	return Widen, union
}

// dnsPeers is the number of peers reserved for the pod selector of the DNS rule. AWS VPC CNI makes a peer of each
// address of each DNS Pod, and one of the DNS Service. A new cluster has two such Pods, and a larger one has more.
const dnsPeers = 16

// IsLarge reports whether a spec of so many CIDRs may need more than one PolicyEndpoints object of chunk peers. It
// includes the peers of the DNS rule.
func IsLarge(cidrs, chunk int, options Options) bool {
	if options.AllowDNS {
		cidrs += dnsPeers
	}
	return cidrs > chunk
}

// maxEncoded is the size of the largest union that the agent writes, in bytes. etcd accepts requests of up to 1.5 MiB:
// https://etcd.io/docs/v3.6/dev-guide/limit/. A request also contains the rest of the object.
const maxEncoded = 1 << 20

// isWithinLimits reports whether a union is within the limits of a pod and of an API server.
func isWithinLimits(union networkingv1.NetworkPolicySpec, options Options) bool {
	slots := SlotsOf(union)
	_, most := slots.Max(union)
	return !options.exceedsSlots(most) && len(slots.cidrs) <= maxPeers && union.Size() <= maxEncoded
}

// peerPorts is a peer of a rule and the ports of the rule, both as JSON. An empty peer is every peer.
type peerPorts struct{ peer, ports string }

func peerPortsOf(spec networkingv1.NetworkPolicySpec) map[peerPorts]bool {
	all := make(map[peerPorts]bool)
	for _, rule := range spec.Egress {
		ports := jsonKey(rule.Ports)
		if len(rule.To) == 0 {
			all[peerPorts{"", ports}] = true
		}
		for _, peer := range rule.To {
			all[peerPorts{peerKey(peer), ports}] = true
		}
	}
	return all
}

// peerKey returns a text that identifies a peer: its CIDR, because a spec may have thousands, or else JSON.
func peerKey(peer networkingv1.NetworkPolicyPeer) string {
	if peer.IPBlock != nil && len(peer.IPBlock.Except) == 0 {
		return peer.IPBlock.CIDR
	}
	return jsonKey(peer)
}

func jsonKey(value any) string {
	data, err := json.Marshal(value)
	if err != nil {
		panic(err) // strings, numbers and their lists always encode
	}
	return string(data)
}

// Holds reports whether whole has every peer of part with every port and port range that part opens to this peer. If
// so, whole allows everything that part allows.
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

// containsAll reports whether whole has every element of part.
func containsAll(whole, part map[peerPorts]bool) bool {
	for o := range part {
		if !whole[o] {
			return false
		}
	}
	return true
}

// CIDRCount returns the number of peers in a spec's rules that are CIDRs.
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

// unionOf returns a spec with the rules of both, and one rule for equal ports. The rules of desired come first, in
// their order, and the rules with other ports follow.
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

// unionPeers returns the peers of two rules: the CIDRs sorted, after the other peers. If one of the rules has no peers,
// it returns nil, because no peers mean every peer.
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
		return prefixes.Compare(peerPrefix(a), peerPrefix(b)) // the zero Prefix of other peers comes first
	})
	return union
}

// peerPrefix returns the CIDR of a peer, or the zero Prefix if it has none.
func peerPrefix(peer networkingv1.NetworkPolicyPeer) netip.Prefix {
	if peer.IPBlock == nil {
		return netip.Prefix{}
	}
	prefix, _ := netip.ParsePrefix(peer.IPBlock.CIDR)
	return prefix
}
