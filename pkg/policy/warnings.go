package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"egress-agent/pkg/internal/document"
)

// minBits is the shortest prefix length that gives no warning, in either family.
const minBits = 8

// credentialEndpoints are the addresses on an EKS node that return credentials. The metadata service returns the node's
// credentials to any pod (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html). The
// EKS Pod Identity agent returns the credentials of the role of a pod's ServiceAccount, if the pod has a token
// (https://docs.aws.amazon.com/eks/latest/userguide/pod-id-how-it-works.html). The agent's addresses are in
// https://docs.aws.amazon.com/eks/latest/userguide/pod-id-agent-setup.html.
var credentialEndpoints = []struct {
	address     netip.Addr
	description string
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

// Warn adds the warnings that depend only on the policy, and not on a table. A warning names something that the policy
// opens and that the author may not intend.
func Warn(p *Policy, warnings *Warnings) {
	if p.DefaultAction == Allow {
		message := "defaultAction allow opens everything"
		if len(p.Destinations) > 0 {
			message += "; allowedDestinations has no effect"
		}
		warnings.AddProblem(OpensEverything, Problem{Message: message, Path: "defaultAction"})
		return
	}
	for i, d := range p.Destinations {
		if d.CIDR.IsValid() {
			warnAboutCIDR(i, d, warnings)
		}
		if d.Service != "" && d.Regions == nil {
			warnings.Add(EveryRegion, i, "awsService", "%s opens every region; name regions to open fewer", d.Name)
		}
		if d.Ports == nil && d.Entity == "" {
			warnings.Add(EveryPort, i, "", "%s opens every port and protocol; name ports to open fewer", d.Name)
		}
	}
}

// warnAboutCIDR adds the warnings about the CIDR of d, the i-th destination.
func warnAboutCIDR(i int, d Destination, warnings *Warnings) {
	except := ""
	if d.Except != nil {
		except = " except " + formatPrefixes(d.Except)
	}
	switch {
	case d.CIDR.Bits() == 0:
		warnings.Add(OpensEverything, i, "cidr", "%s opens every %s address%s", d.Name, family(d.CIDR), except)
	case d.CIDR.Bits() < minBits:
		warnings.Add(WideCIDR, i, "cidr", "%s opens %s%s, which is wider than /%d", d.Name, d.CIDR, except, minBits)
	}
	for _, endpoint := range credentialEndpoints {
		isExcepted := slices.ContainsFunc(d.Except, func(prefix netip.Prefix) bool { return prefix.Contains(endpoint.address) })
		if d.CIDR.Contains(endpoint.address) && !isExcepted {
			warnings.Add(Credentials, i, "cidr", "%s covers %s, %s", d.Name, endpoint.address, endpoint.description)
		}
	}
}

// formatPrefixes returns the first prefixes, as "10.0.0.0/8, 172.16.0.0/12 and 3 more".
func formatPrefixes(prefixes []netip.Prefix) string {
	const maxShown = 3
	var texts []string
	for _, prefix := range prefixes[:min(len(prefixes), maxShown)] {
		texts = append(texts, prefix.String())
	}
	text := strings.Join(texts, ", ")
	if more := len(prefixes) - maxShown; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

func family(prefix netip.Prefix) string {
	if prefix.Addr().Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// Severity orders warnings. The most severe warning has the lowest Severity.
type Severity int

// The severities.
const (
	NotEnforced     Severity = iota // the agent writes nothing in the policy's namespace
	Guardrail                       // a platform document will not permit it
	OpensEverything                 // the policy opens every address
	Credentials                     // the policy opens an address that returns credentials
	WideCIDR
	EveryPort
	EveryRegion
	AlsoCovers  // a service's ranges include addresses of other services
	Fragile     // another tool may delete the policy ConfigMap
	InboundOnly // AWS connects from the service's addresses; pods do not connect to them
	ExpiresSoon
	SelectsPods     // pods that the policy does not select may stay open
	OpensNodes      // some of the pods have the address of their node
	ServiceSelector // the cluster IP of a Service may stay closed
	OpensNothing
	ManyCIDRs
	severityCount
)

// summaries has the end of the line that counts the omitted warnings of a severity: "N more destinations SUMMARY". A
// summary is empty if a policy cannot have many warnings of the severity.
var summaries = [severityCount]string{
	Guardrail:       "are not permitted by a platform document",
	OpensEverything: "open every address of a family",
	Credentials:     "cover addresses that hand out credentials",
	WideCIDR:        "open a CIDR wider than /8",
	EveryPort:       "open every port and protocol",
	EveryRegion:     "open every region",
	AlsoCovers:      "name a service that also covers addresses of other services",
	InboundOnly:     "name a service that AWS only connects from",
	ExpiresSoon:     "have expired or expire soon",
	OpensNodes:      "open pods on the network of their node",
	ServiceSelector: "open pods by labels",
	OpensNothing:    "open nothing, or nothing in a region",
}

// maxPerSeverity limits the warnings of one severity that List returns. An API server passes on about 40 lines in
// total.
const maxPerSeverity = 5

// Warnings collects the warnings of one policy. For each severity it stores the first maxPerSeverity warnings and
// counts the others. So a large number of warnings of one severity cannot hide the warnings of another severity. The
// zero value is empty. A nil *Warnings ignores every warning.
type Warnings struct {
	listed        [severityCount]Problems
	omittedCounts [severityCount]int
}

// Add adds a warning about a field of the i-th destination, or about the destination itself if field is empty. A
// warning has at most 256 characters, the limit of an admission warning, if args are names and values of a policy.
func (w *Warnings) Add(severity Severity, i int, field, format string, args ...any) {
	if w.omitIfFull(severity) {
		return
	}
	path := document.JoinIndex("allowedDestinations", i)
	if field != "" {
		path += "." + field
	}
	w.AddProblem(severity, Problem{Message: fmt.Sprintf(format, args...), Path: path})
}

// AddProblem adds a warning with any path, such as a path outside allowedDestinations.
func (w *Warnings) AddProblem(severity Severity, p Problem) {
	if !w.omitIfFull(severity) {
		w.listed[severity] = append(w.listed[severity], p)
	}
}

// omitIfFull reports whether w omits a further warning of the severity. w omits the warning if it is nil, or if it
// already lists maxPerSeverity warnings of the severity. In the second case omitIfFull also counts the warning.
func (w *Warnings) omitIfFull(severity Severity) bool {
	if w == nil || w.Wants(severity) {
		return w == nil
	}
	w.omittedCounts[severity]++
	return true
}

// Wants reports whether List would include a further warning of the severity. If not, the caller need not compute the
// arguments of Add, but must still call Add, because List counts the warning.
func (w *Warnings) Wants(severity Severity) bool {
	return w != nil && len(w.listed[severity]) < maxPerSeverity
}

// List returns the warnings, the most severe first. Warnings of one severity are in the order of the Add calls. After
// them, a line counts the omitted warnings of the severity. List returns nil if there are no warnings.
func (w *Warnings) List() Problems {
	var warnings Problems
	for severity, listed := range w.listed {
		warnings = append(warnings, listed...)
		if count := w.omittedCounts[severity]; count > 0 {
			warnings = append(warnings, Problem{Message: fmt.Sprintf("%d more destinations %s", count, summaries[severity]), Path: "allowedDestinations"})
		}
	}
	return warnings
}
