// Package platform reads and checks the document that a platform team writes: platform.json in a labelled ConfigMap of
// the agent's namespace. The document selects namespaces. It gives them a base, which they always have, and guardrails,
// which limit the policies of their tenants.
//
// Parse is pure. A document with a problem yields no Document, so no caller can apply only a part of a document.
package platform

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"egress-agent/pkg/policy"
)

// A ConfigMap in the agent's namespace with the label policy.Label=LabelValue is a platform ConfigMap. Its document has
// the key Key.
const (
	LabelValue = "platform"
	Key        = "platform.json"
)

// Document is the content of a valid platform.json.
type Document struct {
	// Namespaces selects the governed namespaces by their labels. It also matches the exempt namespaces, so callers must
	// check netpol.IsExempt.
	Namespaces labels.Selector
	// Selector is Namespaces in the form of the API.
	Selector metav1.LabelSelector
	// Base is what each governed namespace always has; nil if the document has only guardrails. Its defaultAction is deny.
	Base *policy.Policy
	// BaseDocument is Base as a policy.json; empty if Base is nil.
	BaseDocument string
	// Guardrails limit the policies of tenants. The zero value limits nothing.
	Guardrails Guardrails
}

// Mode is the effect of guardrails.
type Mode string

// The modes, with the values that a document may have.
const (
	Enforce Mode = "enforce"
	Warn    Mode = "warn"
)

// Guardrails limit the policies of tenants in a governed namespace.
type Guardrails struct {
	// Mode is Enforce or Warn. It is Enforce if the document has no mode.
	Mode Mode
	// Reason is why Within is empty. It is empty if the document has no reason.
	Reason string
	// Denied are the destinations that no policy of a tenant may open.
	Denied []policy.Destination
	// Within are the only destinations that policies of tenants may open. Nil means every destination, and an empty list
	// means none.
	Within []policy.Destination
	// Require are the requirements for each policy, in document order.
	Require []Requirement
	// MaxDays is how many days after its admission a destination may expire at most; 0 means any number.
	MaxDays int
}

// Cuts reports whether g can close a part of a policy.
func (g Guardrails) Cuts() bool { return len(g.Denied) > 0 || g.Within != nil }

// Requirement is something that a new or changed policy must have.
type Requirement string

// The requirements, with the values that a document may have.
const (
	RequirePorts   Requirement = "ports"   // each destination has ports
	RequireRegions Requirement = "regions" // each destination with a service has regions
	RequireReason  Requirement = "reason"  // each destination has a reason
	RequireExpires Requirement = "expires" // each destination has expires
	RequireDeny    Requirement = "deny"    // defaultAction is deny
)

var requirements = []Requirement{RequirePorts, RequireRegions, RequireReason, RequireExpires, RequireDeny}

// Governs reports whether the document governs a namespace with these labels.
func (d *Document) Governs(namespace labels.Set) bool { return d.Namespaces.Matches(namespace) }

// GovernsAll reports whether the document governs every namespace, whatever its labels.
func (d *Document) GovernsAll() bool { return d.Namespaces.Empty() }
