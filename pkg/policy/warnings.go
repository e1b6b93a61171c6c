package policy

import (
	"fmt"
	"net/netip"
)

// widest is the shortest prefix that passes without a warning, in either family.
const widest = 8

// The addresses that hand out credentials on a node of EKS, and whose they are. The metadata service gives any pod
// the node's (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html); the agent of EKS
// Pod Identity, to a pod that has a token, those of its ServiceAccount's role
// (https://docs.aws.amazon.com/eks/latest/userguide/pod-id-how-it-works.html, …/pod-id-agent-setup.html for the addresses).
var metadataEndpoints = []struct {
	address netip.Addr
	what    string
}{
	{netip.MustParseAddr("169.254.169.254"), instanceMetadata},
	{netip.MustParseAddr("fd00:ec2::254"), instanceMetadata},
	{netip.MustParseAddr("169.254.170.23"), podIdentity},
	{netip.MustParseAddr("fd00:ec2::23"), podIdentity},
}

const (
	instanceMetadata = "the instance metadata service, which hands out the node's credentials"
	podIdentity      = "the EKS Pod Identity agent, which hands out the credentials of the role of a pod's ServiceAccount"
)

// Warn gathers what a valid policy opens that its author may not have meant, as far as the
// document alone shows.
func Warn(p *Policy, to *Warnings) {
	if p.DefaultAction == Allow {
		to.AddProblem(OpensEverything, Problem{Message: "defaultAction allow opens everything" + besides(p), Path: "defaultAction"})
		return
	}
	for i, d := range p.Destinations {
		if d.CIDR.IsValid() {
			warnOfCIDR(i, d, to)
		}
		if d.Service != "" && d.Regions == nil {
			to.Add(EveryRegion, i, "awsService", "%s opens every region; name regions to open fewer", d.Name)
		}
		if d.Ports == nil {
			to.Add(EveryPort, i, "", "%s opens every port and protocol; name ports to open fewer", d.Name)
		}
	}
}

func besides(p *Policy) string {
	if len(p.Destinations) == 0 {
		return ""
	}
	return "; allowedDestinations adds nothing to it"
}

func warnOfCIDR(i int, d Destination, to *Warnings) {
	switch {
	case d.CIDR.Bits() == 0:
		to.Add(OpensEverything, i, "cidr", "%s opens every %s address", d.Name, family(d.CIDR))
	case d.CIDR.Bits() < widest:
		to.Add(WideCIDR, i, "cidr", "%s opens %s, which is wider than /%d", d.Name, d.CIDR, widest)
	}
	for _, endpoint := range metadataEndpoints {
		if d.CIDR.Contains(endpoint.address) {
			to.Add(Credentials, i, "cidr", "%s covers %s, %s", d.Name, endpoint.address, endpoint.what)
		}
	}
}

func family(prefix netip.Prefix) string {
	if prefix.Addr().Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// Severity orders warnings: the most severe is the least.
type Severity int

// The severities.
const (
	NotEnforced     Severity = iota // nothing is written where the policy is
	OpensEverything                 // every address
	Credentials                     // an address that hands out credentials
	WideCIDR
	EveryPort
	EveryRegion
	AlsoCovers  // addresses of others than the service
	Fragile     // something outside the policy may take it away
	InboundOnly // a service that only connects to pods
	OpensNothing
	ManyCIDRs
	severities
)

// others says of further destinations what the warnings of a severity say of each; empty for a severity of which no
// policy has many.
var others = [severities]string{
	OpensEverything: "open every address of a family",
	Credentials:     "cover addresses that hand out credentials",
	WideCIDR:        "open a CIDR wider than /8",
	EveryPort:       "open every port and protocol",
	EveryRegion:     "open every region",
	AlsoCovers:      "name a service that also covers others' addresses",
	InboundOnly:     "name a service that AWS only connects from",
	OpensNothing:    "open nothing, or nothing in a region",
}

// mostOfOne bounds the warnings of one severity that are written out. An API server takes about 40 lines in all.
const mostOfOne = 5

// Warnings gathers the warnings of one policy. Of those of one severity it keeps the first few and counts the others, so
// that many of one kind take no place from another. The zero value is empty; a nil one gathers nothing.
type Warnings struct {
	kept [severities]Problems
	more [severities]int
}

// Add adds a warning about the i-th destination, and its field, which may be empty. Each has at most 256 characters,
// the limit of an admission warning, if its arguments are names and values of a policy.
func (w *Warnings) Add(severity Severity, i int, field, format string, args ...any) {
	if w.full(severity) {
		return
	}
	path := index("allowedDestinations", i)
	if field != "" {
		path += "." + field
	}
	w.AddProblem(severity, Problem{Message: fmt.Sprintf(format, args...), Path: path})
}

// AddProblem adds a warning with a path of its own.
func (w *Warnings) AddProblem(severity Severity, p Problem) {
	if !w.full(severity) {
		w.kept[severity] = append(w.kept[severity], p)
	}
}

// full counts a warning that is not kept.
func (w *Warnings) full(severity Severity) bool {
	if w == nil || w.Wants(severity) {
		return w == nil
	}
	w.more[severity]++
	return true
}

// Wants reports whether a further warning of the severity would be kept, so that only then its arguments need be made.
// One that is not wanted must be added all the same, since it counts.
func (w *Warnings) Wants(severity Severity) bool {
	return w != nil && len(w.kept[severity]) < mostOfOne
}

// List returns the warnings, the most severe first, those of one severity in the order they were added, and behind them
// how many more there are; nil for none.
func (w *Warnings) List() Problems {
	var all Problems
	for severity, kept := range w.kept {
		all = append(all, kept...)
		if more := w.more[severity]; more > 0 {
			all = append(all, Problem{Message: fmt.Sprintf("%d more destinations %s", more, others[severity]), Path: "allowedDestinations"})
		}
	}
	return all
}
