// Package prefixtest is the small universe of addresses that tests of prefix arithmetic enumerate: 256 addresses of
// each family.
package prefixtest

import "net/netip"

// Spaces are the two spaces of 256 addresses.
var Spaces = [2]netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("2001:db8::/120")}

// At returns the i-th address of a space.
func At(space netip.Prefix, i byte) netip.Addr {
	bytes := space.Addr().AsSlice()
	bytes[len(bytes)-1] = i
	address, _ := netip.AddrFromSlice(bytes)
	return address
}

// FromBytes reads every two bytes as a prefix inside one of the spaces. The prefixes may have host bits. covered is
// true for each address of a space that at least one of the prefixes contains.
func FromBytes(data []byte) (prefixes []netip.Prefix, covered [2][256]bool) {
	for ; len(data) >= 2; data = data[2:] {
		space := int(data[1]) % 2
		prefix := netip.PrefixFrom(At(Spaces[space], data[0]), Spaces[space].Bits()+int(data[1]/2)%9)
		prefixes = append(prefixes, prefix)
		for i := range covered[space] {
			covered[space][i] = covered[space][i] || prefix.Masked().Contains(At(Spaces[space], byte(i)))
		}
	}
	return prefixes, covered
}

// Parse parses CIDRs, and panics if one is invalid. Without arguments, it returns nil.
func Parse(cidrs ...string) []netip.Prefix {
	var prefixes []netip.Prefix
	for _, cidr := range cidrs {
		prefixes = append(prefixes, netip.MustParsePrefix(cidr))
	}
	return prefixes
}
