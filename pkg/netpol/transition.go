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

// The steps of a transition. A large transition takes two writes. AWS VPC CNI splits a policy into several
// PolicyEndpoints objects and updates one object after the other. Meanwhile it may deny an address that both specs
// allow. Measured: it denied 44 % of the addresses for half a second when port 443 became ports 443 and 80 on 1,753
// CIDRs. When the agent wrote the union of both specs first, AWS VPC CNI denied no address.
const (
	// Replace writes the desired spec, because the transition only adds to the current spec, is small, or cannot use the
	// union.
	Replace Step = "whole"
	// Widen writes the union of both specs, which allows every connection that one of the specs allows.
	Widen Step = "widen"
	// Narrow replaces a superset of the desired spec with the desired spec. It is the second write, after the dataplane
	// has applied the first write.
	Narrow Step = "narrow"
)

// Transition returns the next step from current to desired, and the spec to write. The agent wrote current. The step
// depends only on the two specs, so an agent that stopped between two writes continues with the second write. A
// transition between specs of at most chunkPeers peers takes one write.
func Transition(current, desired networkingv1.NetworkPolicySpec, chunkPeers int, options Options) (Step, networkingv1.NetworkPolicySpec) {
	if jsonKey(current.PodSelector) != jsonKey(desired.PodSelector) {
		return Replace, desired // the union would give new pods the rules of the other version
	}
	currentPorts, desiredPorts := peerPortsOf(current), peerPortsOf(desired)
	if !IsLarge(max(CIDRCount(current), CIDRCount(desired)), chunkPeers, options) || containsAll(desiredPorts, currentPorts) {
		return Replace, desired
	}
	if containsAll(currentPorts, desiredPorts) {
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
// address of each DNS Pod, and a peer of the DNS Service. A new cluster has two DNS Pods, and a larger cluster has
// more.
const dnsPeers = 16

// IsLarge reports whether a spec with cidrCount CIDRs may need more than one PolicyEndpoints object, if an object has
// at most chunkPeers peers. IsLarge counts the peers of the DNS rule too.
func IsLarge(cidrCount, chunkPeers int, options Options) bool {
	peerCount := cidrCount
	if options.AllowDNS {
		peerCount += dnsPeers
	}
	return peerCount > chunkPeers
}

// maxUnionBytes is the size of the largest union that the agent writes. etcd accepts requests of up to 1.5 MiB:
// https://etcd.io/docs/v3.6/dev-guide/limit/. A request also contains the rest of the object.
const maxUnionBytes = 1 << 20

// isWithinLimits reports whether a union is within the limits of a pod and of an API server.
func isWithinLimits(union networkingv1.NetworkPolicySpec, options Options) bool {
	slots := SlotsOf(union)
	_, maxSlots := slots.Max(union)
	return !options.exceedsSlots(maxSlots) && len(slots.cidrs) <= maxPeers && union.Size() <= maxUnionBytes
}

// peerPorts is a peer of a rule, as peerKey returns it, and the ports of the rule as JSON. An empty peer means every
// peer.
type peerPorts struct{ peer, ports string }

func peerPortsOf(spec networkingv1.NetworkPolicySpec) map[peerPorts]bool {
	found := make(map[peerPorts]bool)
	for _, rule := range spec.Egress {
		ports := jsonKey(rule.Ports)
		if len(rule.To) == 0 {
			found[peerPorts{"", ports}] = true
		}
		for _, peer := range rule.To {
			found[peerPorts{peerKey(peer), ports}] = true
		}
	}
	return found
}

// peerKey returns a text that identifies a peer. For a CIDR it is the CIDR itself, because JSON is slow for the
// thousands of CIDRs that a spec may have. For any other peer it is JSON.
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

// Contains reports whether outer has every peer of inner, with every port and port range that inner opens to this peer.
// If so, outer allows everything that inner allows.
func Contains(outer, inner networkingv1.NetworkPolicySpec) bool {
	type peerPort struct {
		peer string
		port PortKey
	}
	// visitUntilFalse calls visit for each peer and port of spec, and stops when visit returns false.
	visitUntilFalse := func(spec networkingv1.NetworkPolicySpec, visit func(peerPort) bool) bool {
		for _, rule := range spec.Egress {
			for _, port := range portKeys(rule.Ports) {
				if len(rule.To) == 0 && !visit(peerPort{"", port}) {
					return false
				}
				for _, peer := range rule.To {
					if !visit(peerPort{peerKey(peer), port}) {
						return false
					}
				}
			}
		}
		return true
	}
	isInOuter := make(map[peerPort]bool)
	visitUntilFalse(outer, func(p peerPort) bool { isInOuter[p] = true; return true })
	return visitUntilFalse(inner, func(p peerPort) bool { return isInOuter[p] })
}

// containsAll reports whether outer has every element of inner.
func containsAll(outer, inner map[peerPorts]bool) bool {
	for p := range inner {
		if !outer[p] {
			return false
		}
	}
	return true
}

// CIDRCount returns the number of peers of a spec's rules that are CIDRs. It counts a CIDR in each rule.
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

// unionOf returns a spec with the rules of both specs. It joins two rules with equal ports into one rule. The rules of
// desired come first, in their order, and then the rules of current that have other ports.
func unionOf(current, desired networkingv1.NetworkPolicySpec) networkingv1.NetworkPolicySpec {
	union := *desired.DeepCopy()
	byPorts := make(map[string]int)
	for i, rule := range union.Egress {
		byPorts[jsonKey(rule.Ports)] = i
	}
	for _, rule := range current.Egress {
		i, isInBoth := byPorts[jsonKey(rule.Ports)]
		if !isInBoth {
			union.Egress = append(union.Egress, *rule.DeepCopy())
			continue
		}
		union.Egress[i].To = unionPeers(union.Egress[i].To, rule.To)
	}
	return union
}

// unionPeers returns the peers of two rules: first the peers that are no CIDRs, then the CIDRs, sorted. If a rule has
// no peers, unionPeers returns nil, because an empty list means every peer.
func unionPeers(first, second []networkingv1.NetworkPolicyPeer) []networkingv1.NetworkPolicyPeer {
	if len(first) == 0 || len(second) == 0 {
		return nil
	}
	seen := make(map[string]bool)
	var union []networkingv1.NetworkPolicyPeer
	for _, peer := range slices.Concat(first, second) {
		if key := peerKey(peer); !seen[key] {
			seen[key] = true
			union = append(union, *peer.DeepCopy())
		}
	}
	slices.SortStableFunc(union, func(a, b networkingv1.NetworkPolicyPeer) int {
		return prefixes.Compare(peerPrefix(a), peerPrefix(b)) // peers that are no CIDRs have the zero Prefix, which comes first
	})
	return union
}

// peerPrefix returns the CIDR of a peer, or the zero Prefix if the peer is no CIDR.
func peerPrefix(peer networkingv1.NetworkPolicyPeer) netip.Prefix {
	if peer.IPBlock == nil {
		return netip.Prefix{}
	}
	prefix, _ := netip.ParsePrefix(peer.IPBlock.CIDR)
	return prefix
}
