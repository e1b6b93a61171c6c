package policy

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"egress-agent/pkg/internal/document"
)

func (v *validator) cidr(n document.Node, path *document.Path) netip.Prefix {
	if !v.CheckKind(n, document.Text, path, "cidr") {
		return netip.Prefix{}
	}
	prefix, err := netip.ParsePrefix(n.Text())
	if problem := cidrProblem(n.Text(), prefix, err); problem != "" {
		v.Report(path, "Invalid CIDR format: %s", problem)
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
		return Sanitize(cidr) + document.WithSeparator(cidrHint(cidr))
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

func (v *validator) ports(n document.Node, path *document.Path) []Port {
	if !v.CheckKind(n, document.List, path, "ports") {
		return nil
	}
	count := n.Count()
	if count == 0 {
		v.Report(path, "Invalid ports: []; list at least one port, or omit ports to open every port")
	}
	ports := make([]Port, 0, count)
	for item := range n.Children {
		ports = append(ports, v.port(item, path, len(ports)))
	}
	return ports
}

// port checks one item of ports: a number such as 443, which means TCP, or an object such as
// {"port": 8000, "endPort": 8100, "protocol": "UDP"}.
func (v *validator) port(n document.Node, listPath *document.Path, i int) Port {
	p := Port{Protocol: TCP}
	if n.Kind() == document.Number {
		if p.First = plainPort(n.Text()); p.First > 0 {
			p.Last = p.First
			return p
		}
	}
	path := v.ItemPath(listPath, i)
	switch n.Kind() {
	case document.Number:
		p.First = v.portNumber(n, path, "port")
		p.Last = p.First
		return p
	case document.Object:
	default:
		v.Report(path, `Invalid port: must be a number or an object such as {"port": 53, "protocol": "UDP"}, not %s`, n.Kind())
		return p
	}
	v.RequireField(n, path, "port")
	for field, value := range v.KnownFields(n, path, portFields) {
		at := path.Field(field)
		switch field {
		case "port":
			p.First = v.portNumber(value, at, "port")
		case "endPort":
			p.Last = v.portNumber(value, at, "endPort")
		case "protocol":
			p.Protocol = v.protocol(value, at)
		}
	}
	if n.Member("endPort") == nil {
		p.Last = p.First
	} else if p.First > p.Last && p.Last > 0 {
		v.Report(path.Field("endPort"), "Invalid endPort: %d; must not be below port %d", p.Last, p.First)
	}
	return p
}

// portNumber returns a port. If the value is invalid, it adds a problem and returns 0. It accepts only the plain
// spelling: 443, not 443.0 or 4.43e2.
func (v *validator) portNumber(n document.Node, path *document.Path, field string) uint16 {
	if !v.CheckKind(n, document.Number, path, field) {
		return 0
	}
	value := plainPort(n.Text())
	if value == 0 {
		v.ReportLazily(path, func() string {
			return fmt.Sprintf("Invalid %s: %s; must be a whole number from 1 to 65535", field, Sanitize(n.Text()))
		})
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

func (v *validator) protocol(n document.Node, path *document.Path) Protocol {
	if !v.CheckKind(n, document.Text, path, "protocol") {
		return TCP
	}
	for _, protocol := range protocols {
		if n.Text() == string(protocol) {
			return protocol
		}
	}
	correction := "; must be TCP, UDP or SCTP"
	if upper := strings.ToUpper(n.Text()); upper == string(TCP) || upper == string(UDP) || upper == string(SCTP) {
		correction = "; did you mean " + upper + "?"
	}
	v.Report(path, "Invalid protocol: %s%s", Sanitize(n.Text()), correction)
	return TCP
}
