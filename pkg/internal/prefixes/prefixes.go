// Package prefixes computes with sets of (address, protocol, port).
//
// A Builder collects prefixes with their ports into a Set. Sets are immutable, and Union, Intersect and Subtract return
// new ones. Blocks returns a Set in the form that a NetworkPolicy can list. The functions Aggregate and Subtract
// compute with addresses, without ports.
//
//	Builder ──Set──▶ Set ──Blocks──▶ Blocks
//	                 │ ▲
//	                 └─┘ Union, Intersect, Subtract
//
// Prefixes must be valid and, unless a function says otherwise, without host bits. One Set may have prefixes of both
// address families.
package prefixes

import (
	"cmp"
	"net/netip"
)

// Compare orders prefixes: IPv4 first, then by address, then the shorter prefix first. A prefix therefore comes before
// every prefix inside it.
func Compare(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return cmp.Compare(a.Bits(), b.Bits())
}

// Contains reports whether every address of inner is in outer.
func Contains(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// halves returns the two prefixes that are one bit longer than prefix. prefix must have more than one address.
func halves(prefix netip.Prefix) (low, high netip.Prefix) {
	bits := prefix.Bits() + 1
	return netip.PrefixFrom(prefix.Addr(), bits), sibling(netip.PrefixFrom(prefix.Addr(), bits))
}

// sibling returns the other half of the prefix that is one bit shorter and contains prefix. It returns the zero Prefix
// if prefix has no bits.
//
//	10.0.2.0/24 ├───────┤
//	10.0.3.0/24         ├───────┤ its sibling
//	10.0.2.0/23 ├───────────────┤ both
func sibling(prefix netip.Prefix) netip.Prefix {
	if prefix.Bits() == 0 {
		return netip.Prefix{}
	}
	bytes, bit := prefix.Addr().As16(), prefix.Bits()-1
	if prefix.Addr().Is4() {
		bit += 96
	}
	bytes[bit/8] ^= 0x80 >> (bit % 8)
	address := netip.AddrFrom16(bytes)
	if prefix.Addr().Is4() {
		address = address.Unmap()
	}
	return netip.PrefixFrom(address, prefix.Bits())
}
