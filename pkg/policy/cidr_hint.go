package policy

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
)

// longestHint bounds the work for a value: no host name, URL or short list of CIDRs that a person writes
// where a CIDR belongs is longer.
const longestHint = 1024

// cidrHint says what a value is that is no CIDR, and the way out. It is read after "; ", and is one printable
// line without a full stop; empty if nothing that helps is known. What it suggests never opens more
// than the value says.
func cidrHint(written string) string {
	text, odd := plainText(written[:min(len(written), longestHint)])
	if len(written) > longestHint {
		return severalHint(text)
	}
	if prefix, ok := parsePrefix(strings.ReplaceAll(text, " ", "")); ok {
		if odd != 0 {
			return fmt.Sprintf("it has the character %U%s", odd, didYouMean(prefix))
		}
		return suggest(prefix)
	}
	for _, hint := range []func(text string) string{
		everyHint, awsIDHint, urlHint, netmaskHint, severalHint, rangeHint, wildcardHint, portHint, addressHint, ipv4Hint, nameHint,
	} {
		if found := hint(text); found != "" {
			return found
		}
	}
	return ""
}

// suggest gives the question alone, for when the value itself says what is wrong.
func suggest(prefix netip.Prefix) string { return strings.TrimPrefix(didYouMean(prefix), "; ") }

// plainText returns a value in lower case with plain characters for those that look like them, without what
// cannot be seen and without quotes and brackets. odd is the first character that it changed so, or 0; spaces
// at the ends are none.
func plainText(written string) (text string, odd rune) {
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
		if plain != r && odd == 0 {
			odd = r
		}
		return unicode.ToLower(plain)
	}, strings.TrimSpace(written))
	return strings.TrimSpace(text), odd
}

// parsePrefix returns the network that a text writes, without host bits. Of IPv4-mapped ones there is none.
func parsePrefix(text string) (netip.Prefix, bool) {
	prefix, err := netip.ParsePrefix(text)
	return prefix.Masked(), err == nil && !prefix.Addr().Is4In6()
}

// hostPrefix returns the network of one address.
func hostPrefix(text string) (netip.Prefix, bool) {
	address, err := netip.ParseAddr(strings.Trim(text, "[]"))
	if err != nil || address.Is4In6() || address.Zone() != "" {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(address, address.BitLen()), true
}

func everyHint(text string) string {
	switch strings.Trim(text, "[]/") {
	case "*", "any", "all", "every", "everything", "everywhere", "internet", "world", "public", "default", "0", "0/0", "0.0.0.0", "*.*.*.*", "0.0.0.0/0.0.0.0":
		return "write 0.0.0.0/0 if every IPv4 address is meant"
	case "::":
		return "write ::/0 if every IPv6 address is meant"
	}
	return ""
}

// awsIDs are the beginnings of the IDs of AWS resources that people write for addresses.
var awsIDs = []struct{ start, hint string }{
	{"pl-", "it is a prefix list: name its service with awsService, such as s3 or dynamodb, or list its CIDRs"},
	{"sg-", "it is a security group: list the CIDRs of its members' subnets"},
	{"subnet-", "it is a subnet: write its CIDR"},
	{"vpc-", "it is a VPC: write its CIDR"},
	{"vpce-", "it is a VPC endpoint: list the CIDRs of its subnets"},
	{"eni-", "it is a network interface: write its address with /32"},
	{"i-", "it is an instance: write its address with /32"},
	{"arn:", "it is an ARN: name an AWS service with awsService, or list the CIDRs of the resource"},
}

func awsIDHint(text string) string {
	for _, id := range awsIDs {
		rest, ok := strings.CutPrefix(text, id.start)
		// The IDs end in hexadecimal digits; pl-web is an ordinary name.
		if ok && rest != "" && (id.start == "arn:" || strings.Trim(rest, "0123456789abcdef") == "" && len(rest) >= 8) {
			return id.hint
		}
	}
	return ""
}

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

// netmaskHint reads 10.0.0.0/255.255.255.0, with a space too, and 10.0.0.0/0.0.0.255 as routers have it.
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
	return "a mask is written as a length" + didYouMean(netip.PrefixFrom(network, bits).Masked())
}

// maskBits returns the length that a netmask, or an inverse one, stands for; never 0, which opens everything.
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

func severalHint(text string) string {
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
	return "it holds several CIDRs: write an entry for each"
}

// wildcardHint reads 10.0.0.* and 10.0.x.x, whose wildcards are the last octets.
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
	if before, after, ok := strings.Cut(plain, "%"); ok {
		_, length, _ := strings.Cut(after, "/")
		if prefix, ok := parsePrefix(before + "/" + length); ok {
			return "a CIDR has no zone" + didYouMean(prefix)
		}
		if prefix, ok := hostPrefix(before); ok && length == "" {
			return "a CIDR has no zone" + didYouMean(prefix)
		}
	}
	return ""
}

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
	if !ok && (address[0] == '[' || !strings.Contains(address, ":")) { // without brackets the port is a part of an IPv6 address
		prefix, ok = hostPrefix(address)
	}
	if !ok {
		return ""
	}
	return "a port belongs in ports" + didYouMean(prefix)
}

// nameHint recognises host names, with wildcards and ports, and single words.
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
	case host == "amazonaws.com" || hasSuffix(host, ".amazonaws.com", ".amazonaws.com.cn", ".api.aws", ".on.aws"):
		return "it is a host name of AWS: name its service with awsService, or list the subnets of its interface endpoint"
	case strings.Contains(host, "."):
		return "it is a host name, and a NetworkPolicy takes addresses only: list the CIDRs of its addresses"
	case strings.Contains(text, "/") || strings.Contains(text, ":"):
		return ""
	}
	return "a CIDR is an address and a length, such as 10.1.0.0/24; an AWS service belongs in awsService"
}

func hasSuffix(text string, suffixes ...string) bool {
	for _, suffix := range suffixes {
		if strings.HasSuffix(text, suffix) {
			return true
		}
	}
	return false
}
