// Package policy is the document a tenant writes: policy.json in a labelled ConfigMap.
//
// Parse turns bytes into a Document, Validate turns a Document into a Policy. Both are pure, and
// report a document's mistakes all at once, in the order they stand in it. A document with a
// mistake yields no Policy at all: nothing downstream can act on half of one.
package policy

import (
	"fmt"
	"net/netip"
)

// What marks a ConfigMap as a policy, and where in it the document stands.
const (
	Label      = "egress-controller"
	LabelValue = "managed"
	Key        = "policy.json"
)

// Action is what happens to traffic that no destination names.
type Action string

// The actions, as written in a document.
const (
	Deny  Action = "deny"
	Allow Action = "allow"
)

// Policy is a valid document. Only Validate makes one from a document.
type Policy struct {
	// DefaultAction is Deny or Allow; Deny where the document leaves it out.
	DefaultAction Action
	// Destinations are in document order, so that the index of one is its index in the document.
	// Empty allows nothing but DNS.
	Destinations []Destination
}

// Destination is one entry of allowedDestinations: either a CIDR or a Service.
type Destination struct {
	// Name is unique in the policy, 1 to 63 printable characters.
	Name string
	// CIDR has no host bits, zone or IPv4-mapped address; the zero Prefix where Service is set.
	CIDR netip.Prefix
	// Service is an AWS service as the document writes it, in any case; empty where CIDR is set.
	Service string
	// Regions of Service, in document order; nil is every region. Never empty and non-nil.
	Regions []string
	// Ports, in document order; nil is every port of every protocol. Never empty and non-nil.
	Ports []Port
}

// Protocol is a transport protocol with ports, by the name that Kubernetes gives it.
type Protocol string

// The protocols a NetworkPolicy knows.
const (
	TCP  Protocol = "TCP"
	UDP  Protocol = "UDP"
	SCTP Protocol = "SCTP"
)

// Port is a range of ports of one protocol: First and Last included, 1 ≤ First ≤ Last.
type Port struct {
	Protocol    Protocol
	First, Last uint16
}

// String gives the range as TCP 443 or UDP 8000-8100.
func (p Port) String() string {
	if p.First == p.Last {
		return fmt.Sprintf("%s %d", p.Protocol, p.First)
	}
	return fmt.Sprintf("%s %d-%d", p.Protocol, p.First, p.Last)
}
