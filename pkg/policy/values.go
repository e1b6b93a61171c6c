package policy

import (
	"net/netip"
	"strconv"
	"strings"
)

func (v *validator) cidr(n node, path *place) netip.Prefix {
	if !v.isKind(n, text, path, "cidr") {
		return netip.Prefix{}
	}
	prefix, err := netip.ParsePrefix(n.text())
	if complaint := cidrProblem(n.text(), prefix, err); complaint != "" {
		v.report(path, "Invalid CIDR format: %s", complaint)
	}
	return prefix
}

// cidrProblem says what is wrong with a CIDR, beginning with the value itself; empty when nothing.
//
// Host bits are refused rather than cut off: 10.1.0.5/24 may have meant one address or the network,
// and AWS VPC CNI keeps two such spellings of one network as one colliding map entry
// (aws/aws-network-policy-agent#609).
func cidrProblem(written string, prefix netip.Prefix, err error) string {
	if err != nil {
		return Sanitize(written) + after(cidrHint(written))
	}
	if prefix.Addr().Is4In6() {
		complaint := written + " is an IPv4-mapped IPv6 prefix"
		if bits := prefix.Bits() - 96; bits >= 0 {
			complaint += didYouMean(netip.PrefixFrom(prefix.Addr().Unmap(), bits).Masked())
		}
		return complaint
	}
	if masked := prefix.Masked(); masked != prefix {
		return written + " has host bits set" + didYouMean(masked)
	}
	return ""
}

func didYouMean(prefix netip.Prefix) string { return "; did you mean " + prefix.String() + "?" }

var (
	portFields = []string{"port", "endPort", "protocol"}
	protocols  = []Protocol{TCP, UDP, SCTP}
)

func (v *validator) ports(n node, path *place) []Port {
	if !v.isKind(n, list, path, "ports") {
		return nil
	}
	count := n.count()
	if count == 0 {
		v.report(path, "Invalid ports: []; name a port, or leave the field out for every port")
	}
	ports := make([]Port, 0, count)
	for item := range n.children {
		ports = append(ports, v.port(item, path, len(ports)))
	}
	return ports
}

// port takes 443, which means TCP, or {"port": 8000, "endPort": 8100, "protocol": "UDP"}.
func (v *validator) port(n node, list *place, i int) Port {
	p := Port{Protocol: TCP}
	if n.kind() == number {
		if p.First = plainPort(n.text()); p.First > 0 {
			p.Last = p.First
			return p
		}
	}
	path := v.item(list, i)
	switch n.kind() {
	case number:
		p.First = v.portNumber(n, path, "port")
		p.Last = p.First
		return p
	case object:
	default:
		v.report(path, `Invalid port: must be a number or an object such as {"port": 53, "protocol": "UDP"}, not %s`, n.kind())
		return p
	}
	v.requireField(n, path, "port")
	for field, value := range v.fields(n, path, portFields) {
		at := path.field(field)
		switch field {
		case "port":
			p.First = v.portNumber(value, at, "port")
		case "endPort":
			p.Last = v.portNumber(value, at, "endPort")
		case "protocol":
			p.Protocol = v.protocol(value, at)
		}
	}
	if n.member("endPort") == nil {
		p.Last = p.First
	} else if p.First > p.Last && p.Last > 0 {
		v.report(path.field("endPort"), "Invalid endPort: %d; must not be below port %d", p.Last, p.First)
	}
	return p
}

// portNumber returns 0 for what it reports. Only the plain spelling counts: 443, not 443.0 or 4.43e2.
func (v *validator) portNumber(n node, path *place, field string) uint16 {
	if !v.isKind(n, number, path, field) {
		return 0
	}
	value := plainPort(n.text())
	if value == 0 {
		if v.full() {
			v.more++
			return 0
		}
		v.report(path, "Invalid %s: %s; must be a whole number from 1 to 65535", field, Sanitize(n.text()))
		return 0
	}
	return value
}

// plainPort returns the port that a number spells, or 0.
func plainPort(text string) uint16 {
	value, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0
	}
	return uint16(value)
}

func (v *validator) protocol(n node, path *place) Protocol {
	if !v.isKind(n, text, path, "protocol") {
		return TCP
	}
	for _, protocol := range protocols {
		if n.text() == string(protocol) {
			return protocol
		}
	}
	message := "; must be TCP, UDP or SCTP"
	if upper := strings.ToUpper(n.text()); upper == string(TCP) || upper == string(UDP) || upper == string(SCTP) {
		message = "; did you mean " + upper + "?"
	}
	v.report(path, "Invalid protocol: %s%s", Sanitize(n.text()), message)
	return TCP
}
