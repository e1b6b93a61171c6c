package policy

import (
	"net/netip"
	"strconv"
	"strings"
)

func (v *validator) cidr(n node, path *fieldPath) netip.Prefix {
	if !v.checkKind(n, text, path, "cidr") {
		return netip.Prefix{}
	}
	prefix, err := netip.ParsePrefix(n.text())
	if problem := cidrProblem(n.text(), prefix, err); problem != "" {
		v.report(path, "Invalid CIDR format: %s", problem)
	}
	return prefix
}

// cidrProblem returns the problem of a CIDR, or "" if the CIDR is valid. The problem starts with the CIDR itself.
// prefix and err are the results of netip.ParsePrefix(cidr).
//
// Host bits are a problem, and cidrProblem does not remove them. The author of 10.1.0.5/24 may mean one address or the
// network. AWS VPC CNI also stores two such spellings of one network in the same map entry, so they collide
// (https://github.com/aws/aws-network-policy-agent/issues/609).
func cidrProblem(cidr string, prefix netip.Prefix, err error) string {
	if err != nil {
		return Sanitize(cidr) + withSeparator(cidrHint(cidr))
	}
	if prefix.Addr().Is4In6() {
		problem := cidr + " is an IPv4-mapped IPv6 prefix"
		if bits := prefix.Bits() - 96; bits >= 0 {
			problem += didYouMean(netip.PrefixFrom(prefix.Addr().Unmap(), bits).Masked())
		}
		return problem
	}
	if masked := prefix.Masked(); masked != prefix {
		return cidr + " has host bits set" + didYouMean(masked)
	}
	return ""
}

// didYouMean returns "; did you mean PREFIX?", which can follow a message.
func didYouMean(prefix netip.Prefix) string { return "; did you mean " + prefix.String() + "?" }

var (
	portFields = []string{"port", "endPort", "protocol"}
	protocols  = []Protocol{TCP, UDP, SCTP}
)

func (v *validator) ports(n node, path *fieldPath) []Port {
	if !v.checkKind(n, list, path, "ports") {
		return nil
	}
	count := n.count()
	if count == 0 {
		v.report(path, "Invalid ports: []; list at least one port, or omit ports to open every port")
	}
	ports := make([]Port, 0, count)
	for item := range n.children {
		ports = append(ports, v.port(item, path, len(ports)))
	}
	return ports
}

// port checks one item of ports: a number such as 443, which means TCP, or an object such as
// {"port": 8000, "endPort": 8100, "protocol": "UDP"}.
func (v *validator) port(n node, listPath *fieldPath, i int) Port {
	p := Port{Protocol: TCP}
	if n.kind() == number {
		if p.First = plainPort(n.text()); p.First > 0 {
			p.Last = p.First
			return p
		}
	}
	path := v.itemPath(listPath, i)
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
	for field, value := range v.knownFields(n, path, portFields) {
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

// portNumber returns a port. If the value is invalid, it adds a problem and returns 0. It accepts only the plain
// spelling: 443, not 443.0 or 4.43e2.
func (v *validator) portNumber(n node, path *fieldPath, field string) uint16 {
	if !v.checkKind(n, number, path, field) {
		return 0
	}
	value := plainPort(n.text())
	if value == 0 {
		if v.isFull() {
			v.omittedCount++
			return 0
		}
		v.report(path, "Invalid %s: %s; must be a whole number from 1 to 65535", field, Sanitize(n.text()))
		return 0
	}
	return value
}

// plainPort returns the port that text spells in plain digits. It returns 0 if text is not a port.
func plainPort(text string) uint16 {
	value, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0
	}
	return uint16(value)
}

func (v *validator) protocol(n node, path *fieldPath) Protocol {
	if !v.checkKind(n, text, path, "protocol") {
		return TCP
	}
	for _, protocol := range protocols {
		if n.text() == string(protocol) {
			return protocol
		}
	}
	correction := "; must be TCP, UDP or SCTP"
	if upper := strings.ToUpper(n.text()); upper == string(TCP) || upper == string(UDP) || upper == string(SCTP) {
		correction = "; did you mean " + upper + "?"
	}
	v.report(path, "Invalid protocol: %s%s", Sanitize(n.text()), correction)
	return TCP
}
