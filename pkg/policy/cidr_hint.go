package policy

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
)

// maxHintInput limits the bytes of a value that cidrHint reads. A host name, a URL or a short list of CIDRs that a
// person writes in place of a CIDR is shorter.
const maxHintInput = 1024

// cidrHint describes a value that is not a CIDR, and gives the correction. It returns "" if it does not recognize the
// value. The hint follows "; " in a message, and is one printable line without a full stop. A suggested CIDR never
// opens more addresses than the value names.
func cidrHint(value string) string {
	text, replaced := plainText(value[:min(len(value), maxHintInput)])
	if len(value) > maxHintInput {
		return listHint(text)
	}
	if prefix, ok := parsePrefix(strings.ReplaceAll(text, " ", "")); ok {
		if replaced != 0 {
			return fmt.Sprintf("it contains the character %U%s", replaced, didYouMean(prefix))
		}
		return suggest(prefix)
	}
	for _, hintFor := range []func(text string) string{
		everyHint, awsIDHint, urlHint, netmaskHint, listHint, rangeHint, wildcardHint, portHint, addressHint, ipv4Hint, nameHint,
	} {
		if hint := hintFor(text); hint != "" {
			return hint
		}
	}
	return ""
}

// suggest returns only "did you mean PREFIX?", for a value whose problem is obvious.
func suggest(prefix netip.Prefix) string { return strings.TrimPrefix(didYouMean(prefix), "; ") }

// plainText returns a value in lower case. It replaces characters that look like ASCII, and removes invisible
// characters, quotes and angle brackets. replaced is the first character that looks like ASCII or is invisible, or 0 if
// the value has no such character. White space at the start or the end does not count.
func plainText(value string) (text string, replaced rune) {
	text = strings.Map(func(r rune) rune {
		plain := r
		switch {
		case r >= '\uff01' && r <= '\uff5e': // full-width forms of ASCII
			plain = r - '\uff01' + '!'
		case r >= '\u2010' && r <= '\u2015' || r == '\u2212': // dashes and the minus sign
			plain = '-'
		case r == '\u2044' || r == '\u2215': // slashes of fractions
			plain = '/'
		case r == '\u3002' || r == '\u2024': // full stops
			plain = '.'
		case strings.ContainsRune("\"'`<>\u2018\u2019\u201c\u201d", r): // quotes
			return -1
		case unicode.IsSpace(r):
			plain = ' '
		case !unicode.IsPrint(r):
			plain = -1
		}
		if plain != r && replaced == 0 {
			replaced = r
		}
		return unicode.ToLower(plain)
	}, strings.TrimSpace(value))
	return strings.TrimSpace(text), replaced
}

// parsePrefix parses a CIDR and removes its host bits. ok is false for invalid text and for an IPv4-mapped prefix.
func parsePrefix(text string) (prefix netip.Prefix, ok bool) {
	prefix, err := netip.ParsePrefix(text)
	return prefix.Masked(), err == nil && !prefix.Addr().Is4In6()
}

// hostPrefix parses an address and returns its /32 or /128 prefix. ok is false for invalid text, for an address with a
// zone and for an IPv4-mapped address.
func hostPrefix(text string) (prefix netip.Prefix, ok bool) {
	address, err := netip.ParseAddr(strings.Trim(text, "[]"))
	if err != nil || address.Is4In6() || address.Zone() != "" {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(address, address.BitLen()), true
}

// everyHint recognizes values that mean every address, such as any and *.
func everyHint(text string) string {
	switch strings.Trim(text, "[]/") {
	case "*", "any", "all", "every", "everything", "everywhere", "internet", "world", "public", "default", "0", "0/0", "0.0.0.0", "*.*.*.*", "0.0.0.0/0.0.0.0":
		return "to open every IPv4 address, write 0.0.0.0/0"
	case "::":
		return "to open every IPv6 address, write ::/0"
	}
	return ""
}

// awsIDs are the prefixes of AWS resource IDs that people write in place of a CIDR.
var awsIDs = []struct{ start, hint string }{
	{"pl-", "it is a prefix list: set awsService to its service, such as s3 or dynamodb, or list its CIDRs"},
	{"sg-", "it is a security group: list the CIDRs of its members' subnets"},
	{"subnet-", "it is a subnet: write its CIDR"},
	{"vpc-", "it is a VPC: write its CIDR"},
	{"vpce-", "it is a VPC endpoint: list the CIDRs of its subnets"},
	{"eni-", "it is a network interface: write its address with /32"},
	{"i-", "it is an instance: write its address with /32"},
	{"arn:", "it is an ARN: set awsService to an AWS service, or list the CIDRs of the resource"},
}

// awsIDHint recognizes IDs of AWS resources.
func awsIDHint(text string) string {
	for _, id := range awsIDs {
		rest, ok := strings.CutPrefix(text, id.start)
		// An ID ends in hexadecimal digits: pl-web is a name, not an ID.
		if ok && rest != "" && (id.start == "arn:" || strings.Trim(rest, "0123456789abcdef") == "" && len(rest) >= 8) {
			return id.hint
		}
	}
	return ""
}

// urlHint recognizes URLs.
func urlHint(text string) string {
	_, rest, ok := strings.Cut(text, "://")
	if !ok {
		return ""
	}
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		if prefix, err := netip.ParsePrefix(rest); err == nil && prefix == prefix.Masked() {
			return "it is a URL" + didYouMean(prefix)
		}
		rest = rest[:end]
	}
	host := rest[strings.LastIndexByte(rest, '@')+1:]
	if prefix, ok := hostPrefix(host); ok {
		return "it is a URL" + didYouMean(prefix)
	}
	if hint := portHint(host); hint != "" {
		return "it is a URL; " + hint
	}
	host, _, _ = strings.Cut(host, ":")
	if hint := nameHint(host); hint != "" && strings.Contains(host, ".") {
		return "it is a URL; " + hint
	}
	return "it is a URL; list the CIDRs of its host's addresses"
}

// netmaskHint recognizes an address with a netmask, such as 10.0.0.0/255.255.255.0 or 10.0.0.0 255.255.255.0. The
// netmask may also be the inverse netmask of routers, as in 10.0.0.0/0.0.0.255.
func netmaskHint(text string) string {
	address, mask, ok := strings.Cut(text, "/")
	if !ok {
		address, mask, ok = strings.Cut(text, " ")
	}
	if !ok {
		return ""
	}
	network, err := netip.ParseAddr(strings.TrimSpace(address))
	bits, valid := maskBits(strings.TrimSpace(mask))
	if err != nil || !network.Is4() || !valid {
		return ""
	}
	return "write the netmask as a prefix length" + didYouMean(netip.PrefixFrom(network, bits).Masked())
}

// maskBits returns the prefix length of a netmask or an inverse netmask. If ok is true, bits is never 0, because /0
// opens every address.
func maskBits(text string) (bits int, ok bool) {
	address, err := netip.ParseAddr(text)
	if err != nil || !address.Is4() {
		return 0, false
	}
	octets := address.As4()
	mask := uint32(octets[0])<<24 | uint32(octets[1])<<16 | uint32(octets[2])<<8 | uint32(octets[3])
	if mask&(1<<31) == 0 {
		mask = ^mask
	}
	for bits = 32; bits > 0; bits-- {
		if mask == ^uint32(0)<<(32-bits) {
			return bits, mask != ^uint32(0) || text == "255.255.255.255"
		}
	}
	return 0, false
}

// listHint recognizes a list of at least two CIDRs or addresses.
func listHint(text string) string {
	rest := text
	for range 2 {
		rest = strings.TrimLeft(rest, " ,;|&+[]")
		end := strings.IndexAny(rest, " ,;|&+[]")
		if end < 0 {
			end = len(rest)
		}
		_, isPrefix := parsePrefix(rest[:end])
		if _, isHost := hostPrefix(rest[:end]); !isPrefix && !isHost {
			return ""
		}
		rest = rest[end:]
	}
	return "it is a list of CIDRs: write a destination for each"
}

// wildcardHint recognizes IPv4 addresses whose last octets are wildcards, such as 10.0.0.* and 10.0.x.x.
func wildcardHint(text string) string {
	octets := strings.Split(text, ".")
	fixed := len(octets)
	for fixed > 0 && (octets[fixed-1] == "*" || octets[fixed-1] == "x") {
		fixed--
	}
	if fixed == 0 || fixed == len(octets) || len(octets) > 4 {
		return ""
	}
	if prefix, ok := ipv4Prefix(octets[:fixed], 8*fixed); ok {
		return suggest(prefix)
	}
	return ""
}

// addressHint recognizes addresses and CIDRs with brackets, spaces, a backslash or a zone.
func addressHint(text string) string {
	if prefix, ok := hostPrefix(text); ok {
		return suggest(prefix)
	}
	plain := strings.Map(func(r rune) rune {
		switch r {
		case '[', ']', '(', ')', ' ':
			return -1
		case '\\':
			return '/'
		}
		return r
	}, text)
	if prefix, ok := parsePrefix(plain); ok {
		return suggest(prefix)
	}
	if prefix, ok := hostPrefix(plain); ok {
		return suggest(prefix)
	}
	if address, zone, ok := strings.Cut(plain, "%"); ok {
		_, length, _ := strings.Cut(zone, "/")
		if prefix, ok := parsePrefix(address + "/" + length); ok {
			return "a CIDR cannot have a zone" + didYouMean(prefix)
		}
		if prefix, ok := hostPrefix(address); ok && length == "" {
			return "a CIDR cannot have a zone" + didYouMean(prefix)
		}
	}
	return ""
}

// portHint recognizes an address or a CIDR with a port.
func portHint(text string) string {
	colon := strings.LastIndexByte(text, ':')
	if colon <= 0 {
		return ""
	}
	if _, err := strconv.ParseUint(text[colon+1:], 10, 16); err != nil {
		return ""
	}
	address := text[:colon]
	prefix, ok := parsePrefix(address)
	if !ok && (address[0] == '[' || !strings.Contains(address, ":")) { // without brackets, a port cannot follow an IPv6 address
		prefix, ok = hostPrefix(address)
	}
	if !ok {
		return ""
	}
	return "put the port in ports" + didYouMean(prefix)
}

// nameHint recognizes host names and single words. A host name may have wildcards and a port.
func nameHint(text string) string {
	host, _, _ := strings.Cut(text, "/")
	host, _, _ = strings.Cut(host, ":")
	host = strings.Trim(host, ".")
	if host == "" || strings.Trim(host, "0123456789./:-_*") == "" || strings.ContainsFunc(host, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-_.*", r)
	}) {
		return ""
	}
	switch {
	case host == "amazonaws.com" || hasAnySuffix(host, ".amazonaws.com", ".amazonaws.com.cn", ".api.aws", ".on.aws"):
		return "it is an AWS host name: set awsService to its service, or list the subnets of its interface endpoint"
	case strings.Contains(host, "."):
		return "it is a host name, but a NetworkPolicy takes only addresses: list the CIDRs of its addresses"
	case strings.Contains(text, "/") || strings.Contains(text, ":"):
		return ""
	}
	return "a CIDR is an address and a prefix length, such as 10.1.0.0/24; for an AWS service, use awsService"
}

func hasAnySuffix(text string, suffixes ...string) bool {
	for _, suffix := range suffixes {
		if strings.HasSuffix(text, suffix) {
			return true
		}
	}
	return false
}
