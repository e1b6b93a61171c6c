// Package policy reads and checks the document that a tenant writes: policy.json in a labelled ConfigMap.
//
// Parse turns bytes into a Document. Validate turns a Document into a Policy. Both functions are pure. Validate reports
// all problems of a document together, in document order. A document with a problem yields no Policy, so no caller can
// apply only a part of a document.
package policy

import (
	"fmt"
	"net/netip"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	// PodSelector selects the pods that the policy applies to. Nil means every pod of the namespace.
	PodSelector *metav1.LabelSelector
	// Destinations are in document order: a destination has the same index here and in the document.
	// An empty list allows nothing but DNS.
	Destinations []Destination
}

// Destination is one item of allowedDestinations. It has exactly one of CIDR, Service, Pods, Entity
// and Domain.
type Destination struct {
	// Name is unique in the policy. It has 1 to 63 printable characters.
	Name string
	// CIDR has no host bits, no zone and no IPv4-mapped address. It is the zero Prefix for another kind of destination.
	CIDR netip.Prefix
	// Except are the prefixes that the destination leaves out, in document order. They are inside CIDR and do not cover it.
	// With Service, they may be anywhere. Nil leaves out nothing.
	Except []netip.Prefix
	// Service is an AWS service name as the document spells it, in any case. It is empty for another kind of destination.
	Service string
	// Without are the names of services whose rows Service leaves out, in document order, as the document spells them. Nil
	// leaves out nothing.
	Without []string
	// Regions are the regions of Service, in document order. Nil means every region. Otherwise the list is not empty.
	Regions []string
	// Pods selects pods of the cluster. It is nil for another kind of destination.
	Pods *Pods
	// Entity is KubeAPIServer, or empty for another kind of destination.
	Entity Entity
	// Domain is a name in DNS, such as api.example.com, or *.example.com for every name below example.com. It is in lower
	// case and has no final dot. It is empty for another kind of destination.
	Domain string
	// Ports are in document order. Nil means every port of every protocol or, for an Entity, its own ports. Otherwise the
	// list is not empty.
	Ports []Port
	// Reason is why the author wants this destination, for reviewers. It has at most 256 printable characters, and is
	// empty if the document has no reason.
	Reason string
	// Expires is the time, in UTC, from which the destination opens nothing. The zero Time means never.
	Expires time.Time
}

// IsExpired reports whether the destination opens nothing any more at a time.
func (d Destination) IsExpired(now time.Time) bool {
	return !d.Expires.IsZero() && !now.Before(d.Expires)
}

// Pods selects pods of one namespace.
type Pods struct {
	// Namespace is the name of the namespace. Empty means the namespace of the policy.
	Namespace string
	// Labels are the labels that a pod must have. Empty means every pod.
	Labels map[string]string
}

// Entity is a destination whose addresses the agent knows.
type Entity string

// KubeAPIServer is the API server of the cluster: the cluster IP of the Service kubernetes in the namespace default, and
// the addresses of its endpoints, each with its port.
const KubeAPIServer Entity = "kube-apiserver"

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
