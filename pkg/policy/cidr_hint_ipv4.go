package policy

import (
	"net/netip"
	"strconv"
	"strings"
)

// ipv4Hint recognizes a wrong IPv4 CIDR. The CIDR may have leading zeros, octets above 255, too many or too few octets,
// or no prefix length.
func ipv4Hint(text string) string {
	address, length, hasLength := strings.Cut(text, "/")
	octets := strings.Split(strings.TrimRight(address, "."), ".")
	values := make([]int, len(octets[:min(len(octets), 8)]))
	for i := range values {
		value, err := strconv.Atoi(octets[i])
		if err != nil || strings.Trim(octets[i], "0123456789") != "" {
			return ""
		}
		values[i] = value
	}
	if len(octets) > 4 || len(octets) == 1 && !hasLength {
		if len(octets) > 4 {
			return "an IPv4 address has four numbers"
		}
		return ""
	}
	for _, value := range values {
		if value > 255 {
			return "each number of an IPv4 address is at most 255"
		}
	}
	if hasLength && length == "" {
		return "the prefix length after the / is missing"
	}
	bits := 32
	if hasLength {
		parsed, err := strconv.ParseUint(length, 10, 8)
		if err != nil || parsed > 32 {
			return ""
		}
		bits = int(parsed)
	}
	if len(octets) < 4 && (!hasLength || bits > 8*len(octets) || bits == 0) {
		return "an IPv4 address has four numbers"
	}
	prefix, ok := ipv4Prefix(octets, bits)
	if !ok {
		return ""
	}
	if len(octets) == 4 {
		return "remove the leading zeros" + didYouMean(prefix)
	}
	return suggest(prefix)
}

// ipv4Prefix returns the prefix of one to four decimal octets, without host bits. Missing octets are 0.
func ipv4Prefix(octets []string, bits int) (netip.Prefix, bool) {
	var address [4]byte
	for i, octet := range octets {
		value, err := strconv.ParseUint(octet, 10, 8)
		if err != nil {
			return netip.Prefix{}, false
		}
		address[i] = byte(value)
	}
	return netip.PrefixFrom(netip.AddrFrom4(address), bits).Masked(), true
}

// maxRangeCIDRs limits the CIDRs that a hint lists for a range.
const maxRangeCIDRs = 8

// rangeHint recognizes a range of addresses, such as 10.0.0.1-10.0.0.9 or 10.0.0.1-9, and lists CIDRs that cover
// exactly the range.
func rangeHint(text string) string {
	from, to, ok := strings.Cut(text, "-")
	if !ok {
		from, to, ok = strings.Cut(text, "..")
	}
	if !ok {
		from, to, ok = strings.Cut(text, " to ")
	}
	if !ok {
		return ""
	}
	from, to = strings.TrimSpace(from), strings.TrimSpace(to)
	first, err := netip.ParseAddr(from)
	if err != nil || first.Is4In6() || first.Zone() != "" {
		return ""
	}
	if first.Is4() && !strings.Contains(to, ".") {
		to = from[:strings.LastIndexByte(from, '.')+1] + to
	}
	last, err := netip.ParseAddr(to)
	switch {
	case err != nil || last.BitLen() != first.BitLen() || last.Is4In6() || last.Zone() != "":
		return ""
	case last.Less(first):
		return "the range ends before it begins"
	}
	prefixes, complete := rangePrefixes(first, last, maxRangeCIDRs)
	if len(prefixes) == 1 {
		return suggest(prefixes[0])
	}
	var list strings.Builder
	for i, prefix := range prefixes {
		if i > 0 {
			list.WriteString(", ")
		}
		list.WriteString(prefix.String())
	}
	if !complete {
		list.WriteString(" and more")
	}
	return "it is a range: write a destination for each of " + list.String()
}

// rangePrefixes returns the smallest list of prefixes that covers exactly the addresses from first to last, in order.
// It returns at most limit prefixes. complete reports whether the prefixes cover the whole range.
//
//	first                        last
//	  ├─┤├───┤├───────┤├───┤├─┤
func rangePrefixes(first, last netip.Addr, limit int) (prefixes []netip.Prefix, complete bool) {
	for len(prefixes) < limit {
		widest := netip.PrefixFrom(first, first.BitLen())
		for widest.Bits() > 0 {
			wider := netip.PrefixFrom(first, widest.Bits()-1)
			if wider.Masked().Addr() != first || last.Less(lastAddress(wider)) {
				break
			}
			widest = wider
		}
		prefixes = append(prefixes, widest)
		end := lastAddress(widest)
		if !end.Less(last) {
			return prefixes, true
		}
		first = end.Next()
	}
	return prefixes, false
}

// lastAddress returns the highest address in prefix.
func lastAddress(prefix netip.Prefix) netip.Addr {
	address := prefix.Addr().AsSlice()
	for i := range address {
		hostBits := min(max(8*(i+1)-prefix.Bits(), 0), 8)
		address[i] |= byte(1<<hostBits - 1)
	}
	last, _ := netip.AddrFromSlice(address)
	return last
}
