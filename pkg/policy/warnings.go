package policy

import (
	"fmt"
	"net/netip"
)

// widest is the shortest prefix that passes without a warning, in either family.
const widest = 8

// The metadata and credential endpoints of a node, which hand out its role's credentials
// (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html).
var metadataEndpoints = []netip.Addr{
	netip.MustParseAddr("169.254.169.254"),
	netip.MustParseAddr("fd00:ec2::254"),
}

// Warnings says what a valid policy opens that its author may not have meant, as far as the
// document alone tells, in document order. Each is at most 256 characters, the limit of an
// admission warning.
func Warnings(p *Policy) Problems {
	var warnings Problems
	warn := func(path, format string, args ...any) {
		warnings = append(warnings, Problem{Message: fmt.Sprintf(format, args...), Path: path})
	}
	if p.DefaultAction == Allow {
		if len(p.Destinations) > 0 {
			warn("defaultAction", "defaultAction allow opens everything; allowedDestinations adds nothing to it")
		}
		return warnings
	}
	for i, d := range p.Destinations {
		path := index("allowedDestinations", i)
		if d.CIDR.IsValid() {
			cidrWarnings(d, join(path, "cidr"), warn)
		}
		if d.Service != "" && d.Regions == nil {
			warn(join(path, "awsService"), "%s opens every region; name regions to open fewer", d.Name)
		}
		if d.Ports == nil {
			warn(path, "%s opens every port and protocol; name ports to open fewer", d.Name)
		}
	}
	return warnings
}

func cidrWarnings(d Destination, path string, warn func(path, format string, args ...any)) {
	switch {
	case d.CIDR.Bits() == 0:
		warn(path, "%s opens every %s address", d.Name, family(d.CIDR))
	case d.CIDR.Bits() < widest:
		warn(path, "%s opens %s, which is wider than /%d", d.Name, d.CIDR, widest)
	}
	for _, endpoint := range metadataEndpoints {
		if d.CIDR.Contains(endpoint) {
			warn(path, "%s covers %s, the instance metadata service, which hands out the node's credentials", d.Name, endpoint)
		}
	}
}

func family(prefix netip.Prefix) string {
	if prefix.Addr().Is4() {
		return "IPv4"
	}
	return "IPv6"
}
