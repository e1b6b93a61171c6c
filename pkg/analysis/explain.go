// Package analysis answers questions about policies: Explain says why a policy allows a connection or not, and Compare says
// what one version of a policy opens and closes that another does not.
//
// Both read the policy and the ranges themselves, and not the NetworkPolicy that netpol compiles, so a mistake in the
// compiler does not hide in an answer.
package analysis

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// Target is where a pod would connect.
type Target struct {
	Address  netip.Addr
	Port     uint16
	Protocol policy.Protocol
}

// ParseTarget reads ADDRESS:PORT or ADDRESS:PORT/PROTOCOL, with an IPv6 address in brackets. The
// protocol is TCP where left out.
func ParseTarget(s string) (Target, error) {
	text, protocol, named := strings.Cut(s, "/")
	target := Target{Protocol: policy.TCP}
	if named {
		target.Protocol = policy.Protocol(strings.ToUpper(protocol))
		if !slices.Contains([]policy.Protocol{policy.TCP, policy.UDP, policy.SCTP}, target.Protocol) {
			return Target{}, fmt.Errorf("unknown protocol %q: must be TCP, UDP or SCTP", protocol)
		}
	}
	where, err := netip.ParseAddrPort(text)
	if err != nil || where.Port() == 0 || where.Addr().Zone() != "" {
		return Target{}, fmt.Errorf("%q is not ADDRESS:PORT or ADDRESS:PORT/PROTOCOL, such as 10.1.0.5:5432 or [2001:db8::1]:53/UDP", s)
	}
	target.Address, target.Port = where.Addr().Unmap(), where.Port()
	return target, nil
}

// String gives ADDRESS:PORT/PROTOCOL.
func (t Target) String() string {
	return fmt.Sprintf("%s/%s", netip.AddrPortFrom(t.Address, t.Port), t.Protocol)
}

// Explanation says why a policy allows a target, or why not.
type Explanation struct {
	Allowed bool `json:"allowed"`
	// Reasons are all that allow it: destinations in the policy's order, each published prefix once;
	// empty where it is denied.
	Reasons []Reason `json:"reasons"`
	// Nearest says, where it is denied, what comes nearest to allowing it, one line each; else empty.
	Nearest []string `json:"nearest"`
}

// Reason is one thing that allows a target.
type Reason struct {
	// Name and Path are the destination's; Name is empty for what is none: defaultAction, and DNS.
	Name string `json:"name,omitempty"`
	Path string `json:"path"`
	// Prefix is the destination's CIDR or the published prefix that holds the address; empty for
	// defaultAction.
	Prefix string `json:"prefix,omitempty"`
	// Service, Region and SyncToken are those of the published prefix; empty for a CIDR, and SyncToken
	// for a custom document.
	Service   string `json:"service,omitempty"`
	Region    string `json:"region,omitempty"`
	SyncToken string `json:"syncToken,omitempty"`
}

// String gives the reason in a line.
func (r Reason) String() string {
	var b strings.Builder
	if r.Name != "" {
		fmt.Fprintf(&b, "%s (%s)", r.Name, r.Path)
	} else {
		b.WriteString(r.Path)
	}
	if r.Service != "" {
		fmt.Fprintf(&b, ": %s %s", r.Service, r.Region)
	}
	if r.Prefix != "" {
		fmt.Fprintf(&b, ": %s", r.Prefix)
	}
	if r.SyncToken != "" {
		fmt.Fprintf(&b, ", syncToken %s", r.SyncToken)
	}
	return b.String()
}

// Explain says why a valid policy allows a target or does not. It reads the policy and the published
// rows one by one, as a person would, and not what Compile makes of them. The table may be nil. Of DNS
// it knows the CIDRs in the options, and not the addresses of kube-dns.
func Explain(p *policy.Policy, table *awsranges.Table, options netpol.Options, target Target) Explanation {
	e := Explanation{Reasons: []Reason{}, Nearest: []string{}}
	if p.DefaultAction == policy.Allow {
		e.Reasons = append(e.Reasons, Reason{Path: "defaultAction"})
	} else if host := netip.PrefixFrom(target.Address, target.Address.BitLen()); !options.Family.Includes(host) {
		e.Nearest = append(e.Nearest, fmt.Sprintf("%s is not in the cluster's address family, %s", target.Address, options.Family))
	} else {
		e.explainDNS(options, target)
		for i, d := range p.Destinations {
			e.explainDestination(i, d, table, target)
		}
	}
	e.Allowed = len(e.Reasons) > 0
	if e.Allowed {
		e.Nearest = []string{}
		return e
	}
	if len(e.Nearest) == 0 {
		e.Nearest = append(e.Nearest, describeOwners(table, target.Address))
	}
	if mayBeService(target.Address) && options.Family.Includes(netip.PrefixFrom(target.Address, target.Address.BitLen())) {
		e.Nearest = append(e.Nearest, serviceHint(target))
	}
	return e
}

func (e *Explanation) explainDNS(options netpol.Options, target Target) {
	if target.Port != 53 || target.Protocol == policy.SCTP {
		return
	}
	for _, prefix := range options.DNSCIDRs {
		if prefix.Contains(target.Address) {
			e.Reasons = append(e.Reasons, Reason{Path: "--dns-cidr", Prefix: prefix.String()})
		}
	}
}

func (e *Explanation) explainDestination(i int, d policy.Destination, table *awsranges.Table, target Target) {
	path := fmt.Sprintf("allowedDestinations[%d]", i)
	near := func(format string, args ...any) {
		e.Nearest = append(e.Nearest, fmt.Sprintf("%s (%s) ", d.Name, path)+fmt.Sprintf(format, args...))
	}
	if _, resolved := netpol.Resolve(d, table); !resolved {
		near("cannot be told: the AWS ranges are not known")
		return
	}
	covering, elsewhere := matchDestination(d, path, table, target.Address)
	open := d.Ports == nil || slices.ContainsFunc(d.Ports, func(p policy.Port) bool {
		return p.Protocol == target.Protocol && p.First <= target.Port && target.Port <= p.Last
	})
	switch {
	case len(covering) > 0 && open:
		e.Reasons = append(e.Reasons, covering...)
	case len(covering) > 0:
		near("covers %s, but opens %s only", target.Address, portList(d.Ports))
	case len(elsewhere) > 0:
		near("names %s in %s, and %s is its address in %s", awsranges.Canonical(d.Service), strings.Join(d.Regions, ", "), target.Address, strings.Join(elsewhere, ", "))
	}
}

// matchDestination returns what of a destination holds an address, and the regions of its service, not named by
// it, that do.
func matchDestination(d policy.Destination, path string, table *awsranges.Table, address netip.Addr) (covering []Reason, elsewhere []string) {
	if d.Service == "" {
		if d.CIDR.Contains(address) {
			covering = []Reason{{Name: d.Name, Path: path, Prefix: d.CIDR.String()}}
		}
		return covering, nil
	}
	service := awsranges.Canonical(d.Service)
	for _, row := range table.Rows() {
		switch {
		case row.Service != service || !row.Prefix.Contains(address):
		case d.Regions == nil || slices.Contains(d.Regions, row.Region):
			reason := Reason{Name: d.Name, Path: path, Prefix: row.Prefix.String(), Service: row.Service, Region: row.Region}
			if !row.Custom {
				reason.SyncToken = table.SyncToken()
			}
			covering = append(covering, reason)
		case !slices.Contains(elsewhere, row.Region):
			elsewhere = append(elsewhere, row.Region)
		}
	}
	return covering, elsewhere
}

// serviceRanges are those that EKS takes the cluster IPs of Services from
// (https://docs.aws.amazon.com/eks/latest/APIReference/API_KubernetesNetworkConfigRequest.html).
var serviceRanges = []netip.Prefix{netip.MustParsePrefix("10.100.0.0/16"), netip.MustParsePrefix("172.20.0.0/16")}

// localToAWS has the addresses of instance metadata and Pod Identity, which are no Services.
var localToAWS = netip.MustParsePrefix("fd00:ec2::/32")

// mayBeService says whether an address looks like a Service's cluster IP. Of IPv6, EKS takes a /108 of fc00::/7, such as
// fd8e:5fa6:1e4d::/108: all bits between the first 48 and the last 20 are zero.
func mayBeService(address netip.Addr) bool {
	if address.Is4() {
		return slices.ContainsFunc(serviceRanges, func(p netip.Prefix) bool { return p.Contains(address) })
	}
	b := address.As16()
	zero := !slices.ContainsFunc(b[6:13], func(c byte) bool { return c != 0 }) && b[13]>>4 == 0
	return b[0]&0xfe == 0xfc && zero && !localToAWS.Contains(address)
}

// serviceHint says what becomes of a connection to a Service. AWS's dataplane sees the cluster IP and the Service's port,
// before they are translated (aws/aws-network-policy-agent#73), and its controller never takes a CIDR of the pods for
// them (aws/amazon-network-policy-controller-k8s, pkg/resolvers/endpoints.go). Others see the pod that was chosen.
func serviceHint(target Target) string {
	return fmt.Sprintf("if %s is the cluster IP of a Service, VPC CNI looks at this address and the Service's port, and other dataplanes at the pods behind it and theirs: "+
		"allow %s with port %d as a cidr, and the pods' addresses and ports as another", target.Address, netip.PrefixFrom(target.Address, target.Address.BitLen()), target.Port)
}

// portList gives ports as TCP 443, UDP 53, TCP 8000-8100.
func portList(ports []policy.Port) string {
	var list []string
	for _, p := range ports {
		list = append(list, p.String())
	}
	return strings.Join(list, ", ")
}

// describeOwners says to which services an address belongs that no destination comes near.
func describeOwners(table *awsranges.Table, address netip.Addr) string {
	if table == nil {
		return fmt.Sprintf("no destination covers %s", address)
	}
	var owners []string
	for _, row := range table.Rows() {
		if owner := row.Service + " " + row.Region; row.Prefix.Contains(address) && !slices.Contains(owners, owner) {
			owners = append(owners, owner)
		}
	}
	if owners == nil {
		return fmt.Sprintf("no destination covers %s, and no published range does", address)
	}
	return fmt.Sprintf("no destination covers %s, an address of %s", address, strings.Join(owners, ", "))
}
