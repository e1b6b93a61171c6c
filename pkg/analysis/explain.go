// Package analysis answers questions about policies. Explain returns why a policy allows or denies a connection.
// Compare returns the differences between two versions of a policy: the addresses and ports that the new version opens
// and closes.
//
// Both read the policy and the ranges, and not the NetworkPolicy that netpol compiles. So their answers show a mistake
// in the compiler, and their tests compare the answers with the NetworkPolicy.
package analysis

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// Target is the destination of a connection.
type Target struct {
	// Address is the zero Addr if only Host is known. Only a destination with a domain can then allow the target.
	Address  netip.Addr
	Port     uint16
	Protocol policy.Protocol
	// Host is the name that the pod looked up, in lower case and without a final dot; empty if unknown.
	Host string
}

// ParseTarget reads ADDRESS:PORT or ADDRESS:PORT/PROTOCOL, with an IPv6 address in brackets. The default protocol is
// TCP. In place of the address it accepts the name of a host; the Target then has a Host and no Address.
func ParseTarget(s string) (target Target, err error) {
	addressAndPort, protocol, hasProtocol := strings.Cut(s, "/")
	target.Protocol = policy.TCP
	if hasProtocol {
		target.Protocol = policy.Protocol(strings.ToUpper(protocol))
		if !slices.Contains([]policy.Protocol{policy.TCP, policy.UDP, policy.SCTP}, target.Protocol) {
			return Target{}, fmt.Errorf("unknown protocol %q: must be TCP, UDP or SCTP", protocol)
		}
	}
	if name, port, ok := strings.Cut(addressAndPort, ":"); ok && len(name) <= 253 && hostName.MatchString(name) {
		number, err := strconv.ParseUint(port, 10, 16)
		if err == nil && number > 0 {
			target.Host, target.Port = strings.ToLower(strings.TrimSuffix(name, ".")), uint16(number)
			return target, nil
		}
	}
	parsed, err := netip.ParseAddrPort(addressAndPort)
	if err != nil || parsed.Port() == 0 || parsed.Addr().Zone() != "" {
		return Target{}, fmt.Errorf("%q is not ADDRESS:PORT or ADDRESS:PORT/PROTOCOL, such as 10.1.0.5:5432, [2001:db8::1]:53/UDP or sts.us-east-1.amazonaws.com:443", s)
	}
	target.Address, target.Port = parsed.Addr().Unmap(), parsed.Port()
	return target, nil
}

// hostName matches the names of hosts. The last label has a letter, so an address does not match.
var hostName = regexp.MustCompile(`^([A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9]*[A-Za-z]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?\.?$`)

// String returns ADDRESS:PORT/PROTOCOL, or HOST:PORT/PROTOCOL if the address is unknown.
func (t Target) String() string {
	if !t.Address.IsValid() {
		return fmt.Sprintf("%s:%d/%s", t.Host, t.Port, t.Protocol)
	}
	return fmt.Sprintf("%s/%s", netip.AddrPortFrom(t.Address, t.Port), t.Protocol)
}

// Explanation contains the reasons why a policy allows or denies a target.
type Explanation struct {
	Allowed bool `json:"allowed"`
	// Reasons are all reasons to allow the target, in the policy's order, with one reason for each row of the ranges. It
	// is empty, and not nil, if the target is denied.
	Reasons []Reason `json:"reasons"`
	// Nearest describes the destinations that come closest to allowing a denied target, one line each. It is empty, and
	// not nil, if the target is allowed.
	Nearest []string `json:"nearest"`
	// PodSelector selects the pods that the policy applies to; empty if these are all pods of the namespace.
	PodSelector string `json:"podSelector,omitempty"`
}

// Reason is one reason to allow a target.
type Reason struct {
	// Name and Path identify the destination. Name is empty for defaultAction and for DNS.
	Name string `json:"name,omitempty"`
	Path string `json:"path"`
	// Prefix is the destination's CIDR or the row's prefix that contains the address; empty for defaultAction and for a
	// domain.
	Prefix string `json:"prefix,omitempty"`
	// Domain is the destination's domain, which stands for the host; empty for another kind of destination.
	Domain string `json:"domain,omitempty"`
	// Service, Region and SyncToken describe the row; all three are empty for a CIDR. SyncToken is also empty for a row of
	// a custom document.
	Service   string `json:"service,omitempty"`
	Region    string `json:"region,omitempty"`
	SyncToken string `json:"syncToken,omitempty"`
}

// String returns the reason in one line.
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
	if location := r.Prefix + r.Domain; location != "" {
		fmt.Fprintf(&b, ": %s", location)
	}
	if r.SyncToken != "" {
		fmt.Fprintf(&b, ", syncToken %s", r.SyncToken)
	}
	return b.String()
}

// Explain returns why a valid policy allows or denies a target. It reads the policy and the rows one by one, as a
// person would. Of the inputs it reads Table, Options, Now and APIServer. For DNS it reads only the CIDRs in the options,
// because it has no addresses of pods.
func Explain(p *policy.Policy, in netpol.Inputs, target Target) Explanation {
	table, options := in.Table, in.Options
	e := Explanation{Reasons: []Reason{}, Nearest: []string{}}
	if p.PodSelector != nil {
		e.PodSelector = netpol.FormatSelector(*p.PodSelector)
	}
	if p.DefaultAction == policy.Allow {
		e.Reasons = append(e.Reasons, Reason{Path: "defaultAction"})
	} else if host := netip.PrefixFrom(target.Address, target.Address.BitLen()); target.Address.IsValid() && !options.Family.Includes(host) {
		e.Nearest = append(e.Nearest, fmt.Sprintf("%s is not in the cluster's address family, %s", target.Address, options.Family))
	} else {
		e.explainDNS(options, target)
		for i, d := range p.Destinations {
			e.explainDestination(i, d, in, target)
		}
	}
	e.Allowed = len(e.Reasons) > 0
	if e.Allowed {
		e.Nearest = []string{}
		return e
	}
	if !target.Address.IsValid() {
		if len(e.Nearest) == 0 {
			e.Nearest = append(e.Nearest, "no destination has a domain for "+target.Host)
		}
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

func (e *Explanation) explainDestination(i int, d policy.Destination, in netpol.Inputs, target Target) {
	table, path := in.Table, fmt.Sprintf("allowedDestinations[%d]", i)
	addNearest := func(format string, args ...any) {
		e.Nearest = append(e.Nearest, fmt.Sprintf("%s (%s) ", d.Name, path)+fmt.Sprintf(format, args...))
	}
	if d.Domain != "" || !target.Address.IsValid() {
		e.explainDomain(d, path, in, target, addNearest)
		return
	}
	if _, resolved := netpol.Resolve(d, table); !resolved {
		addNearest("cannot be checked: no AWS ranges are loaded (give --ranges-file)")
		return
	}
	isExpired, opensPort := d.IsExpired(in.Now), opensPort(d, target)
	reasons, otherRegions := matchDestination(d, path, table, target.Address)
	if d.Entity != "" {
		reasons = matchAPIServer(d, path, in.APIServer, target)
	}
	except, isExcepted := exceptWith(d, target.Address)
	switch {
	case len(reasons) > 0 && isExpired:
		addNearest("covers %s, but opens nothing since %s, when it expired", target.Address, d.Expires.Format(time.RFC3339))
	case len(reasons) > 0 && isExcepted:
		addNearest("covers %s, but excepts %s", target.Address, except)
	case len(reasons) > 0 && opensPort:
		e.Reasons = append(e.Reasons, reasons...)
	case len(reasons) > 0:
		addNearest("covers %s, but opens %s only", target.Address, portList(d.Ports))
	case len(otherRegions) > 0:
		service := awsranges.Canonical(d.Service)
		addNearest("names %s in %s, but %s is an address of %s in %s", service, strings.Join(d.Regions, ", "), target.Address, service, strings.Join(otherRegions, ", "))
	case d.Without != nil:
		if row, isLeftOut := table.IsLeftOut(target.Address, awsranges.Canonical(d.Service), d.Regions, canonicalNames(d.Without)); isLeftOut {
			addNearest("leaves out %s, and %s is in its row %s", row.Service, target.Address, row.Prefix)
		}
	case d.Pods != nil && opensPort && !isExpired && mayBePod(target.Address):
		addNearest("opens %s: it allows %s if that is the address of such a pod or, on AWS VPC CNI, the cluster IP of a Service whose own selector has these labels",
			netpol.FormatPods(*d.Pods), target.Address)
	case d.Entity != "" && in.APIServer == nil && !isExpired && mayBePod(target.Address):
		addNearest("opens the API server, whose addresses only the cluster knows: kubectl get endpointslices,services -n default shows them")
	}
}

// explainDomain adds what a destination with a domain does for a target, and nothing for another destination.
func (e *Explanation) explainDomain(d policy.Destination, path string, in netpol.Inputs, target Target, addNearest func(format string, args ...any)) {
	switch isCovered := target.Host != "" && d.Domain != "" && policy.CoversDomain(d.Domain, target.Host); {
	case d.Domain == "" || d.IsExpired(in.Now) && !isCovered:
	case isCovered && d.IsExpired(in.Now):
		addNearest("covers %s, but opens nothing since %s, when it expired", target.Host, d.Expires.Format(time.RFC3339))
	case isCovered && opensPort(d, target):
		e.Reasons = append(e.Reasons, Reason{Name: d.Name, Path: path, Domain: d.Domain})
	case isCovered:
		addNearest("covers %s, but opens %s only", target.Host, portList(d.Ports))
	case target.Host == "" && opensPort(d, target):
		addNearest("opens %s: it allows %s to a pod that has looked up such a name and got this address", d.Domain, target.Address)
	}
}

func opensPort(d policy.Destination, target Target) bool {
	return d.Ports == nil || slices.ContainsFunc(d.Ports, func(p policy.Port) bool {
		return p.Protocol == target.Protocol && p.First <= target.Port && target.Port <= p.Last
	})
}

// exceptWith returns the except of a destination that has an address.
func exceptWith(d policy.Destination, address netip.Addr) (except netip.Prefix, ok bool) {
	i := slices.IndexFunc(d.Except, func(prefix netip.Prefix) bool { return prefix.Contains(address) })
	if i < 0 {
		return netip.Prefix{}, false
	}
	return d.Except[i], true
}

// mayBePod reports whether pods and Services may have an address: it is private, or in the range that EKS users give to
// pods (https://docs.aws.amazon.com/eks/latest/userguide/cni-custom-network.html).
func mayBePod(address netip.Addr) bool {
	return address.IsPrivate() || netip.MustParsePrefix("100.64.0.0/10").Contains(address)
}

// matchAPIServer returns the reason if the target is the API server.
func matchAPIServer(d policy.Destination, path string, addresses []netip.AddrPort, target Target) []Reason {
	if target.Protocol != policy.TCP || !slices.Contains(addresses, netip.AddrPortFrom(target.Address, target.Port)) {
		return nil
	}
	return []Reason{{Name: d.Name, Path: path, Prefix: netip.PrefixFrom(target.Address, target.Address.BitLen()).String()}}
}

func canonicalNames(services []string) []string {
	names := make([]string, len(services))
	for i, service := range services {
		names[i] = awsranges.Canonical(service)
	}
	return names
}

// matchDestination returns a reason for each prefix of the destination that contains the address, also if an except has
// the address. otherRegions are regions that the destination does not name, and in which the service has the address.
func matchDestination(d policy.Destination, path string, table *awsranges.Table, address netip.Addr) (reasons []Reason, otherRegions []string) {
	if d.Service == "" {
		if d.CIDR.Contains(address) {
			reasons = []Reason{{Name: d.Name, Path: path, Prefix: d.CIDR.String()}}
		}
		return reasons, nil
	}
	if d.Without != nil {
		withoutExcept := d
		withoutExcept.Except = nil
		found, _ := netpol.Resolve(withoutExcept, table)
		if !slices.ContainsFunc(found, func(prefix netip.Prefix) bool { return prefix.Contains(address) }) {
			return nil, nil
		}
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
			reasons = append(reasons, reason)
		case !slices.Contains(otherRegions, row.Region):
			otherRegions = append(otherRegions, row.Region)
		}
	}
	return reasons, otherRegions
}

// serviceRanges are the IPv4 ranges from which EKS assigns the cluster IPs of Services
// (https://docs.aws.amazon.com/eks/latest/APIReference/API_KubernetesNetworkConfigRequest.html).
var serviceRanges = []netip.Prefix{netip.MustParsePrefix("10.100.0.0/16"), netip.MustParsePrefix("172.20.0.0/16")}

// localToAWS contains the IPv6 addresses of instance metadata and Pod Identity. They are not addresses of Services.
var localToAWS = netip.MustParsePrefix("fd00:ec2::/32")

// mayBeService reports whether an address looks like a Service's cluster IP. For IPv6, EKS assigns them from a /108 in
// fc00::/7, such as fd8e:5fa6:1e4d::/108: all bits between the first 48 and the last 20 are zero.
func mayBeService(address netip.Addr) bool {
	if address.Is4() {
		return slices.ContainsFunc(serviceRanges, func(p netip.Prefix) bool { return p.Contains(address) })
	}
	b := address.As16()
	isZeroBetween := !slices.ContainsFunc(b[6:13], func(c byte) bool { return c != 0 }) && b[13]>>4 == 0
	return b[0]&0xfe == 0xfc && isZeroBetween && !localToAWS.Contains(address)
}

// serviceHint returns how to allow a connection to a Service. AWS's dataplane checks the cluster IP and the Service's
// port before it translates them (aws/aws-network-policy-agent#73). AWS's controller adds no cluster IP for a CIDR that
// contains the pods, and adds it for a selector (aws/amazon-network-policy-controller-k8s, pkg/resolvers/endpoints.go).
// Other dataplanes check the pod's address.
func serviceHint(target Target) string {
	return fmt.Sprintf("if %s is the cluster IP of a Service, open its pods with pods and namespace, and with the port of the pods; "+
		"AWS VPC CNI then opens the cluster IP too, if the Service's own selector has these labels", target.Address)
}

// portList returns ports as "TCP 443, UDP 53, TCP 8000-8100".
func portList(ports []policy.Port) string {
	var list []string
	for _, p := range ports {
		list = append(list, p.String())
	}
	return strings.Join(list, ", ")
}

// describeOwners returns a message about an address that no destination covers. It names the services that have the
// address.
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
		return fmt.Sprintf("no destination covers %s, and no published range contains it", address)
	}
	return fmt.Sprintf("no destination covers %s, an address of %s", address, strings.Join(owners, ", "))
}
