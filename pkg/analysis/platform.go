package analysis

import (
	"fmt"
	"slices"
	"strings"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/platform"
	"egress-agent/pkg/policy"
)

// ExplainPlatform returns what platform documents make of e, the explanation of a policy in a namespace that they
// govern. A guardrail closes what the policy opens, and a base opens more. documents are sorted by name. It reads the
// documents and the rows one by one.
func ExplainPlatform(e Explanation, documents []netpol.PlatformDocument, in netpol.Inputs, target Target) Explanation {
	if e.Allowed {
		closed, closedDomains := ClosedBy(documents, in.Table, target), domainClosedBy(documents, target)
		e.Reasons = slices.DeleteFunc(slices.Clone(e.Reasons), func(reason Reason) bool {
			by := closed
			if reason.Domain != "" {
				by = closedDomains
			}
			if len(by) > 0 {
				e.Nearest = append(e.Nearest, by...)
			}
			return len(by) > 0
		})
		e.Nearest = slices.Compact(e.Nearest)
	}
	for _, document := range documents {
		if document.Base == nil {
			continue
		}
		withoutDNS := in
		withoutDNS.Options = netpol.Options{Family: in.Options.Family}
		base := Explain(document.Base, withoutDNS, target)
		for _, reason := range base.Reasons {
			reason.Path = "platform document " + document.Name + ", " + reason.Path
			e.Reasons = append(e.Reasons, reason)
		}
	}
	if e.Allowed = len(e.Reasons) > 0; e.Allowed {
		e.Nearest = []string{}
	}
	return e
}

// ClosedBy returns a line for each guardrail of the documents that closes a target; nil if none does.
func ClosedBy(documents []netpol.PlatformDocument, table *awsranges.Table, target Target) []string {
	var closed []string
	for _, document := range documents {
		rails := document.Guardrails
		if rails.Mode != platform.Enforce {
			continue
		}
		for _, entry := range rails.Denied {
			if !covers(entry, table, target) {
				continue
			}
			text := fmt.Sprintf("closed by guardrail %s of platform document %s", entry.Name, document.Name)
			if entry.Reason != "" {
				text += ": " + entry.Reason
			}
			closed = append(closed, text)
		}
		isOutside := rails.Within != nil && !slices.ContainsFunc(rails.Within, func(entry policy.Destination) bool { return covers(entry, table, target) })
		if isOutside {
			names := make([]string, len(rails.Within))
			for i, entry := range rails.Within {
				names[i] = entry.Name
			}
			text := strings.Join(names, ", ")
			if text == "" {
				text = rails.Reason
			}
			closed = append(closed, fmt.Sprintf("outside of what platform document %s permits: %s", document.Name, text))
		}
	}
	return closed
}

// domainClosedBy returns a line for each document whose guardrails close what a domain opens of a target; nil if none
// does. The owner of a name can lead it to any address, so a document must permit the port on every address, or name
// the host in within.
func domainClosedBy(documents []netpol.PlatformDocument, target Target) []string {
	var closed []string
	for _, document := range documents {
		rails := document.Guardrails
		isTrusted := slices.ContainsFunc(rails.Within, func(entry policy.Destination) bool {
			return entry.Domain != "" && policy.CoversDomain(entry.Domain, target.Host) && opensPort(entry, target)
		})
		if rails.Mode != platform.Enforce || isTrusted {
			continue
		}
		i := slices.IndexFunc(rails.Denied, func(entry policy.Destination) bool { return opensPort(entry, target) })
		isOutside := rails.Within != nil && !slices.ContainsFunc(rails.Within, func(entry policy.Destination) bool {
			return entry.CIDR.IsValid() && entry.CIDR.Bits() == 0 && entry.Except == nil && opensPort(entry, target)
		})
		switch {
		case i >= 0:
			closed = append(closed, fmt.Sprintf("closed by guardrail %s of platform document %s, because the owner of a name can lead it to any address", rails.Denied[i].Name, document.Name))
		case isOutside:
			closed = append(closed, fmt.Sprintf("outside of what platform document %s permits: its within has no domain for %s", document.Name, target.Host))
		}
	}
	return closed
}

// covers reports whether a destination has the address, port and protocol of a target.
func covers(d policy.Destination, table *awsranges.Table, target Target) bool {
	if _, isExcepted := exceptWith(d, target.Address); isExcepted || !opensPort(d, target) {
		return false
	}
	reasons, _ := matchDestination(d, "", table, target.Address)
	return len(reasons) > 0
}
