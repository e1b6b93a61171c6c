// Package status derives the state of each policy of a cluster from its ConfigMaps and NetworkPolicies, without asking
// the agent.
//
// The package is pure: equal input gives equal output.
package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// State is netpol.State, because status and the agent use the same assessment.
type State = netpol.State

// The states. Package netpol documents them.
const (
	Applied           = netpol.Applied
	Invalid           = netpol.Invalid
	NameConflict      = netpol.NameConflict
	NamespaceExempt   = netpol.NamespaceExempt
	RangesUnavailable = netpol.RangesUnavailable
	Guarded           = netpol.Guarded
	Pending           = netpol.Pending
)

// States lists all states of a policy: Applied, and then the states that need a person, the most urgent first.
var States = []State{Applied, Invalid, NameConflict, NamespaceExempt, RangesUnavailable, Guarded, Pending}

// Cluster has the objects and ranges that a reader found in a cluster, or in one namespace.
type Cluster struct {
	// ConfigMaps are the policy ConfigMaps, in any order.
	ConfigMaps []*corev1.ConfigMap
	// NetworkPolicies are all NetworkPolicies of the same namespaces, in any order.
	NetworkPolicies []*networkingv1.NetworkPolicy
	// Table has the ranges that the agent uses; nil if the agent has no ranges.
	Table *awsranges.Table
	// RangesIncomplete reports that the agent may use ranges that Table lacks, because the reader lacks the permission
	// to read them. Policies then trusts the annotations of a NetworkPolicy: they show whether the agent had the ranges.
	RangesIncomplete bool
	// Options are the options of the agent.
	Options netpol.Options
	// AgentNamespace is the namespace of the agent; empty means netpol.DefaultNamespace.
	AgentNamespace string
	// Now is the time of the report, which decides what has expired.
	Now time.Time
	// Governing returns the platform documents that govern a namespace, sorted by name. Nil means that they are unknown.
	Governing func(namespace string) []netpol.PlatformDocument
}

// Policy is the state of one policy.
type Policy struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	State     State  `json:"state"`
	// Messages explain why the policy is not applied, and what to do, one line each; empty if there is nothing to do.
	Messages []string `json:"messages"`
	// DefaultAction is deny or allow; empty if the policy cannot be read.
	DefaultAction policy.Action `json:"defaultAction"`
	// PodSelector selects the pods that the policy applies to; empty if these are all pods of the namespace.
	PodSelector string `json:"podSelector,omitempty"`
	// Destinations are the destinations of the current policy, in its order; empty if the policy cannot be read.
	Destinations []Destination `json:"destinations"`
	// NetworkPolicy is the name of the policy's NetworkPolicy; empty if the policy has no NetworkPolicy.
	NetworkPolicy string `json:"networkPolicy"`
	// CIDRs is the number of CIDRs of the NetworkPolicy.
	CIDRs int `json:"cidrs"`
	// PortSlots is the highest number of port slots of a CIDR of the NetworkPolicy, or of a CIDR inside such a CIDR. It
	// counts the policies of the namespace together, and adds two slots if any policy opens DNS.
	PortSlots int `json:"portSlots"`
	// MaxPortSlots is the limit of PortSlots; 0 means no limit.
	MaxPortSlots int `json:"maxPortSlots"`
	// GovernedBy are the names of the platform documents that govern the namespace, sorted; empty if there are none, or if
	// they are unknown.
	GovernedBy []string `json:"governedBy,omitempty"`
	// Missing says which fields these documents require and the policy lacks, and what expires too late, one line each.
	Missing []string `json:"missing,omitempty"`
	// OtherPolicies are the other NetworkPolicies of the namespace that allow egress, sorted by name. NetworkPolicies add
	// up, so a pod may make every connection that any NetworkPolicy allows.
	OtherPolicies []OtherPolicy `json:"others"`

	// Current is the NetworkPolicy; nil if the policy has no NetworkPolicy.
	Current *networkingv1.NetworkPolicy `json:"-"`

	missing []netpol.Violation // the violations of Missing
}

// Destination is one item of allowedDestinations.
type Destination struct {
	Name string `json:"name"`
	// CIDR is empty for another kind of destination.
	CIDR string `json:"cidr,omitempty"`
	// Except are the CIDRs that the destination leaves out.
	Except []string `json:"except,omitempty"`
	// Service has AWS's spelling; empty for another kind of destination.
	Service string `json:"service,omitempty"`
	// Without are the services that Service leaves out, in AWS's spelling.
	Without []string `json:"without,omitempty"`
	// Peer names pods, such as "pods app=web of namespace shop", or is kube-apiserver; empty for another kind of
	// destination.
	Peer string `json:"peer,omitempty"`
	// Regions are the regions of Service; empty means every region.
	Regions []string `json:"regions,omitempty"`
	// Ports have the form "TCP 443" or "UDP 8000-8100"; empty means every port.
	Ports []string `json:"ports,omitempty"`
	// CIDRs is the number of CIDRs in force for the destination; nil if unknown.
	CIDRs *int `json:"cidrs,omitempty"`
	// Reason is why the author wants the destination.
	Reason string `json:"reason,omitempty"`
	// Expires is when the destination expires or has expired; nil if never.
	Expires *time.Time `json:"expires,omitempty"`
	// IsExpired reports whether the destination has expired, so that it opens nothing.
	IsExpired bool `json:"expired,omitempty"`
	// Flows is the number of distinct flows that the destination allows; nil if unknown.
	Flows *int `json:"flows,omitempty"`

	// Source is the destination of the policy.
	Source policy.Destination `json:"-"`
}

// OtherPolicy is another NetworkPolicy that allows egress.
type OtherPolicy struct {
	Name string `json:"name"`
	// IsFromPolicy reports whether the agent made the NetworkPolicy from another policy of the namespace.
	IsFromPolicy bool `json:"policy"`
	// IsFromPlatform reports whether the agent made it from a platform document, or from an inherited policy.
	IsFromPlatform bool `json:"platform,omitempty"`
	// AllowsEverything reports whether the NetworkPolicy allows every destination and port.
	AllowsEverything bool `json:"everything"`
	// PodSelector is the pod selector; empty if it selects every pod of the namespace.
	PodSelector string `json:"pods,omitempty"`

	// Spec is the spec of the NetworkPolicy; nil if the report was not made from a cluster.
	Spec *networkingv1.NetworkPolicySpec `json:"-"`
}

// Policies returns the state of each policy of a cluster, sorted by namespace and name. If the cluster has no policies,
// the list is empty, and not nil.
func Policies(c Cluster) []Policy {
	namespaces := make(map[string]*namespace)
	for _, networkPolicy := range c.NetworkPolicies {
		n := namespaces[networkPolicy.Namespace]
		if n == nil {
			n = &namespace{byName: make(map[string]*networkingv1.NetworkPolicy)}
			namespaces[networkPolicy.Namespace] = n
		}
		n.byName[networkPolicy.Name] = networkPolicy
	}
	policies := make([]Policy, 0, len(c.ConfigMaps))
	for _, configMap := range c.ConfigMaps {
		n := namespaces[configMap.Namespace]
		if n == nil {
			n = &namespace{}
			namespaces[configMap.Namespace] = n
		}
		policies = append(policies, c.policy(configMap, n))
	}
	slices.SortFunc(policies, func(a, b Policy) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	return policies
}

func (c Cluster) policy(configMap *corev1.ConfigMap, n *namespace) Policy {
	name := netpol.NetworkPolicyName(configMap.Name)
	current := n.byName[name]
	assessment := c.assess(configMap, current, n)
	p := Policy{
		Namespace: configMap.Namespace, Name: configMap.Name, State: assessment.State, Messages: messages(assessment, current),
		Destinations: []Destination{}, MaxPortSlots: c.Options.MaxPortSlots,
	}
	if current != nil && p.State != NameConflict {
		p.Current, p.NetworkPolicy, p.CIDRs = current, name, netpol.CIDRCount(current.Spec)
		p.PortSlots = n.maxSlots(current.Spec)
	}
	p.OtherPolicies = n.otherPolicies(p.NetworkPolicy)
	if c.Governing != nil && !netpol.IsExempt(p.Namespace, cmp.Or(c.AgentNamespace, netpol.DefaultNamespace)) {
		documents := c.Governing(p.Namespace)
		for _, document := range documents {
			p.GovernedBy = append(p.GovernedBy, document.Name)
		}
		if assessment.Policy != nil {
			p.setMissing(netpol.MissingFields(documents, assessment.Policy, c.Now))
		}
	}
	if assessment.Policy == nil {
		return p
	}
	p.describe(assessment.Policy, countsOf(configMap, p.Current), c.Now)
	return p
}

// setMissing sets Missing.
func (p *Policy) setMissing(violations []netpol.Violation) {
	p.missing = violations
	for _, violation := range violations {
		p.Missing = append(p.Missing, violation.String())
	}
}

// describe sets what the policy says. counts has the number of CIDRs of each destination.
func (p *Policy) describe(document *policy.Policy, counts map[string]int, now time.Time) {
	p.DefaultAction = document.DefaultAction
	if selector := document.PodSelector; selector != nil {
		p.PodSelector = netpol.FormatSelector(*selector)
	}
	for _, d := range document.Destinations {
		p.Destinations = append(p.Destinations, destination(d, counts, now))
	}
}

// assess assesses a policy as the agent does: first the policy alone, and then together with the other policies of the
// namespace.
func (c Cluster) assess(configMap *corev1.ConfigMap, current *networkingv1.NetworkPolicy, n *namespace) *netpol.Assessment {
	in := netpol.Inputs{
		Table: c.Table, Options: c.Options, AgentNamespace: c.AgentNamespace, RangesIncomplete: c.RangesIncomplete, TrustCurrent: true,
		Now: c.Now,
	}
	var inCluster *netpol.Current
	if current != nil {
		inCluster = netpol.CurrentOf(current)
	}
	assessment := netpol.Assess(configMap, inCluster, in)
	if !assessment.Opens {
		return assessment
	}
	in.Exceeded = netpol.SharedLimitProblems(assessment.Desired[0].Spec, n.specsExcept(netpol.NetworkPolicyName(configMap.Name)), c.Options)
	if in.Exceeded == nil {
		return assessment
	}
	p := assessment.Policy
	assessment = netpol.Assess(configMap, inCluster, in)
	assessment.Policy = p // Assess does not parse policy.json if a bound is exceeded
	return assessment
}

// messages returns the texts that explain a state. If there is nothing to explain, the list is empty, and not nil.
func messages(assessment *netpol.Assessment, current *networkingv1.NetworkPolicy) []string {
	const behindNote = "; the agent is behind or not running"
	var expiries []string
	for _, text := range []string{assessment.ExpiredText(), assessment.ExpiringText()} {
		if text != "" {
			expiries = append(expiries, text)
		}
	}
	if messages := assessment.Messages(); messages != nil {
		return append(messages, expiries...)
	}
	if assessment.State != Pending {
		return append([]string{}, expiries...)
	}
	switch {
	case len(assessment.Unresolved) > 0 && assessment.Cause == netpol.CauseRanges:
		return []string{fmt.Sprintf("NetworkPolicy %s was made before the AWS ranges of these destinations were loaded: %q", current.Name, assessment.Unresolved) + behindNote}
	case assessment.Cause == netpol.CauseMissing:
		return []string{"There is no NetworkPolicy yet" + behindNote}
	case assessment.Cause == netpol.CauseEdited:
		return []string{fmt.Sprintf("A person edited NetworkPolicy %s, and the agent has not restored it yet", current.Name) + behindNote}
	}
	return []string{fmt.Sprintf("NetworkPolicy %s was made from an earlier version of the policy", current.Name) + behindNote}
}

func destination(d policy.Destination, counts map[string]int, now time.Time) Destination {
	result := Destination{Name: d.Name, Regions: d.Regions, Reason: d.Reason, IsExpired: d.IsExpired(now), Source: d}
	switch {
	case d.Service != "":
		result.Service = awsranges.Canonical(d.Service)
	case d.Pods != nil:
		result.Peer = netpol.FormatPods(*d.Pods)
	case d.Entity != "":
		result.Peer = string(d.Entity)
	case d.Domain != "":
		result.Peer = d.Domain
	default:
		result.CIDR = d.CIDR.String()
	}
	for _, prefix := range d.Except {
		result.Except = append(result.Except, prefix.String())
	}
	for _, service := range d.Without {
		result.Without = append(result.Without, awsranges.Canonical(service))
	}
	if !d.Expires.IsZero() {
		result.Expires = &d.Expires
	}
	for _, port := range d.Ports {
		result.Ports = append(result.Ports, port.String())
	}
	if count, known := counts[d.Name]; known {
		result.CIDRs = &count
	}
	return result
}

// countsOf returns the number of CIDRs in force for each destination, by the destination's name. The map is empty if
// the agent did not make the NetworkPolicy from the current policy.
func countsOf(configMap *corev1.ConfigMap, current *networkingv1.NetworkPolicy) map[string]int {
	byName := make(map[string]int)
	if current == nil || current.Annotations[netpol.PolicyDigestAnnotation] != netpol.PolicyDigestOf(configMap) {
		return byName
	}
	counts, _ := netpol.ParseCounts(current.Annotations[netpol.DestinationsAnnotation])
	for _, count := range counts {
		byName[count.Name] = count.CIDRs
	}
	return byName
}
