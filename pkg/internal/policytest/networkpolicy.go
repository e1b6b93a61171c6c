package policytest

import (
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/policy"
)

// Block is a CIDR of a spec with the ports of its rule.
type Block struct {
	Prefix netip.Prefix                     // the zero value means every address
	Ports  []networkingv1.NetworkPolicyPort // empty means every port
}

// BlocksOf returns the CIDRs of a spec, in the order of the rules. For a rule without peers, it returns one Block with
// every address.
func BlocksOf(spec networkingv1.NetworkPolicySpec) []Block {
	var blocks []Block
	for _, rule := range spec.Egress {
		if len(rule.To) == 0 {
			blocks = append(blocks, Block{Ports: rule.Ports})
		}
		for _, peer := range rule.To {
			if peer.IPBlock != nil {
				blocks = append(blocks, Block{netip.MustParsePrefix(peer.IPBlock.CIDR), rule.Ports})
			}
		}
	}
	return blocks
}

// Contains reports whether b has the address.
func (b Block) Contains(address netip.Addr) bool {
	return !b.Prefix.IsValid() || b.Prefix.Contains(address)
}

// Allows reports whether the blocks of a spec allow a connection, by the definition of the Kubernetes API.
func Allows(blocks []Block, address netip.Addr, protocol policy.Protocol, port uint16) bool {
	return slices.ContainsFunc(blocks, func(b Block) bool {
		return b.Contains(address) && allowsPort(b.Ports, protocol, port)
	})
}

// allowsPort reports whether the ports of a rule have a port.
func allowsPort(ports []networkingv1.NetworkPolicyPort, protocol policy.Protocol, port uint16) bool {
	return len(ports) == 0 || slices.ContainsFunc(ports, func(allowed networkingv1.NetworkPolicyPort) bool {
		return string(*allowed.Protocol) == string(protocol) && allowed.Port.IntVal <= int32(port) && int32(port) <= LastPort(allowed)
	})
}

// LastPort returns the last port of a port range.
func LastPort(port networkingv1.NetworkPolicyPort) int32 {
	if port.EndPort != nil {
		return *port.EndPort
	}
	return port.Port.IntVal
}
