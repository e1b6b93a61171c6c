// Package policytest helps tests of other packages. It returns random policies, and evaluates NetworkPolicies in a
// naive way.
package policytest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/internal/prefixes"
	"egress-agent/pkg/policy"
)

// RandomPolicy returns a policy of at most 11 destinations with a CIDR or a service. It uses few addresses and ports, so
// destinations overlap, nest and touch. It uses the services and regions of testdata/ranges.
func RandomPolicy(random *rand.Rand) *policy.Policy {
	p := &policy.Policy{DefaultAction: policy.Deny}
	for i := range random.IntN(12) {
		d := policy.Destination{Name: fmt.Sprint(i)}
		if random.IntN(4) == 0 {
			d.Service = []string{"S3", "DYNAMODB", "AMAZON", "IOT_CORE"}[random.IntN(4)]
			if random.IntN(3) > 0 {
				d.Regions = [][]string{{"us-east-1"}, {"us-west-2"}, {"us-west-2", "us-east-1"}}[random.IntN(3)]
			}
			if random.IntN(3) == 0 {
				d.Without = [][]string{{"S3"}, {"DYNAMODB"}, {"DYNAMODB", "S3"}, {"EC2"}}[random.IntN(4)]
				if slices.Contains(d.Without, d.Service) {
					d.Without = nil
				}
			}
			if random.IntN(6) == 0 {
				d.Except = []netip.Prefix{randomPrefix(random)}
			}
		} else {
			d.CIDR = randomPrefix(random)
			if random.IntN(3) == 0 {
				d.Except = randomExcept(random, d.CIDR)
			}
		}
		for range random.IntN(4) {
			first := []uint16{1, 53, 80, 443, 444, 445}[random.IntN(6)]
			port := policy.Port{Protocol: []policy.Protocol{policy.TCP, policy.TCP, policy.UDP, policy.SCTP}[random.IntN(4)], First: first, Last: first}
			if random.IntN(3) == 0 {
				port.Last = []uint16{first, first + 1, 450, 65535}[random.IntN(4)]
				port.Last = max(port.Last, port.First)
			}
			d.Ports = append(d.Ports, port)
		}
		if random.IntN(8) == 0 { // so many ports that a few destinations exceed the port slots
			for port := uint16(1001); port < 1021; port += 2 {
				d.Ports = append(d.Ports, policy.Port{Protocol: policy.TCP, First: port + uint16(i%2)*100, Last: port + uint16(i%2)*100})
			}
		}
		p.Destinations = append(p.Destinations, d)
	}
	return p
}

// randomExcept returns prefixes inside cidr that do not cover it, or nil.
func randomExcept(random *rand.Rand, cidr netip.Prefix) []netip.Prefix {
	var except []netip.Prefix
	for range 1 + random.IntN(3) {
		if prefix := randomPrefix(random); cidr.Bits() < prefix.Bits() && cidr.Contains(prefix.Addr()) {
			except = append(except, prefix)
		}
	}
	if prefixes.Subtract([]netip.Prefix{cidr}, except) == nil {
		return nil
	}
	return except
}

func randomPrefix(random *rand.Rand) netip.Prefix {
	if random.IntN(3) == 0 {
		address := netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0x10, 15: byte(random.IntN(8))})
		return netip.PrefixFrom(address, []int{0, 36, 48, 124, 125, 126, 127, 128}[random.IntN(8)]).Masked()
	}
	address := netip.AddrFrom4([4]byte{198, 18, byte(random.IntN(4)), byte(random.IntN(4) * 64)})
	return netip.PrefixFrom(address, []int{0, 15, 21, 22, 23, 24, 25, 26, 27, 32}[random.IntN(10)]).Masked()
}

// ProbeAddresses returns addresses to compare at: the first and the last address of some prefixes, and the addresses
// just outside them. The prefixes are the CIDRs of the policy, four random rows of the table and four random prefixes.
func ProbeAddresses(p *policy.Policy, table *awsranges.Table, random *rand.Rand) []netip.Addr {
	var edges []netip.Prefix
	for _, d := range p.Destinations {
		if d.CIDR.IsValid() {
			edges = append(edges, d.CIDR)
		}
		edges = append(edges, d.Except...)
	}
	for range 4 {
		edges = append(edges, table.Rows()[random.IntN(len(table.Rows()))].Prefix, randomPrefix(random))
	}
	var addresses []netip.Addr
	for _, prefix := range edges {
		first, final := prefix.Addr(), lastAddress(prefix)
		for _, address := range []netip.Addr{first, first.Prev(), final, final.Next()} {
			if address.IsValid() {
				addresses = append(addresses, address)
			}
		}
	}
	return addresses
}

func lastAddress(prefix netip.Prefix) netip.Addr {
	bytes := prefix.Addr().AsSlice()
	for bit := prefix.Bits(); bit < len(bytes)*8; bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	address, _ := netip.AddrFromSlice(bytes)
	return address
}
