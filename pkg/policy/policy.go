// Package policy reads and checks the document that a tenant writes: policy.json in a labelled ConfigMap.
//
// Parse turns bytes into a Document. Validate turns a Document into a Policy. Both functions are pure. Validate reports
// all problems of a document together, in document order. A document with a problem yields no Policy, so no caller can
// apply only a part of a document.
package policy

import (
	"fmt"
	"net/netip"
)

// A ConfigMap with the label Label=LabelValue is a policy ConfigMap. Its policy document has the key Key.
const (
	Label      = "egress-controller"
	LabelValue = "managed"
	Key        = "policy.json"
)

// InheritAnnotation with the value "true" makes a policy apply also in every namespace below its own.
const InheritAnnotation = "egress-controller/inherit"

// IsInheritable reports whether the annotations of a policy ConfigMap make namespaces below its own inherit it.
func IsInheritable(annotations map[string]string) bool {
	return annotations[InheritAnnotation] == "true"
}

// Action is what happens to traffic that no destination allows.
type Action string

// The actions, with the values that a document may have.
const (
	Deny  Action = "deny"
	Allow Action = "allow"
)

// Policy is the content of a valid document. Only Validate makes a Policy from a document.
type Policy struct {
	// DefaultAction is Deny or Allow. It is Deny if the document has no defaultAction.
	DefaultAction Action
	// Destinations are in document order: a destination has the same index here and in the document.
	// An empty list allows nothing but DNS.
	Destinations []Destination
}

// Destination is one item of allowedDestinations. It has either a CIDR or a Service.
type Destination struct {
	// Name is unique in the policy. It has 1 to 63 printable characters.
	Name string
	// CIDR has no host bits, no zone and no IPv4-mapped address. It is the zero Prefix if Service is set.
	CIDR netip.Prefix
	// Service is an AWS service name as the document spells it, in any case. It is empty if CIDR is set.
	Service string
	// Regions are the regions of Service, in document order. Nil means every region. Otherwise the list is not empty.
	Regions []string
	// Ports are in document order. Nil means every port of every protocol. Otherwise the list is not empty.
	Ports []Port
	// Reason is why the author wants this destination, for reviewers. It has at most 256 printable characters, and is
	// empty if the document has no reason.
	Reason string
}

// Protocol is a transport protocol that has ports, by its Kubernetes name.
type Protocol string

// The protocols that a NetworkPolicy supports.
const (
	TCP  Protocol = "TCP"
	UDP  Protocol = "UDP"
	SCTP Protocol = "SCTP"
)

// Port is a range of ports of one protocol. The range includes First and Last, and 1 ≤ First ≤ Last.
type Port struct {
	Protocol    Protocol
	First, Last uint16
}

// String returns the range in a form such as "TCP 443" or "UDP 8000-8100".
func (p Port) String() string {
	if p.First == p.Last {
		return fmt.Sprintf("%s %d", p.Protocol, p.First)
	}
	return fmt.Sprintf("%s %d-%d", p.Protocol, p.First, p.Last)
}
