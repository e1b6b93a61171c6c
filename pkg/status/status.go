// Package status derives the state of each policy of a cluster from its ConfigMaps and NetworkPolicies, without asking
// the agent.
//
// Everything here is pure: equal input gives equal output.
package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

// State is netpol's: status and the agent take it from one assessment.
type State = netpol.State

// The states, of which netpol's documentation says more.
const (
	Applied           = netpol.Applied
	Invalid           = netpol.Invalid
	NameConflict      = netpol.NameConflict
	NamespaceExempt   = netpol.NamespaceExempt
	RangesUnavailable = netpol.RangesUnavailable
	Pending           = netpol.Pending
)

// States are all states of a policy: Applied first, then those that need a person, the most urgent first.
var States = []State{Applied, Invalid, NameConflict, NamespaceExempt, RangesUnavailable, Pending}

// Cluster is what a reader found in a cluster, or in one of its namespaces.
type Cluster struct {
	// ConfigMaps are those labelled as policies, and NetworkPolicies are all of the same namespaces, both in any order.
	ConfigMaps      []*corev1.ConfigMap
	NetworkPolicies []*networkingv1.NetworkPolicy
	// Table are the ranges that the agent uses; nil if it has none.
	Table *awsranges.Table
	// RangesIncomplete reports that the agent may use ranges that Table lacks, because a reader may not read them all. The
	// annotations of a NetworkPolicy then tell whether the agent had the ranges.
	RangesIncomplete bool
	// Options are the agent's.
	Options netpol.Options
	// AgentNamespace is the agent's own; empty means netpol.DefaultNamespace.
	AgentNamespace string
}

// Policy is the state of one policy.
type Policy struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	State     State  `json:"state"`
	// Messages say why the policy is not applied, a line each, and what to do; empty if it is applied.
	Messages []string `json:"messages"`
	// DefaultAction is deny or allow; empty if the policy cannot be read.
	DefaultAction policy.Action `json:"defaultAction"`
	// Destinations are those of the policy as it is now, in its order; empty if it cannot be read.
	Destinations []Destination `json:"destinations"`
	// NetworkPolicy is the name of the NetworkPolicy that is made from it; empty if there is none.
	NetworkPolicy string `json:"networkPolicy"`
	// CIDRs is the number of CIDRs of the NetworkPolicy.
	CIDRs int `json:"cidrs"`
	// PortSlots is the highest number of port slots that one of its CIDRs, or one inside them, takes over all policies of
	// the namespace, with the two of DNS if DNS is open. MaxPortSlots is the limit; 0 for none.
	PortSlots    int `json:"portSlots"`
	MaxPortSlots int `json:"maxPortSlots"`
	// OtherPolicies are the other NetworkPolicies of the namespace that allow egress too, sorted by name. Together
	// they allow what any of them allows.
	OtherPolicies []OtherPolicy `json:"others"`

	// Current is the NetworkPolicy itself; nil if there is none.
	Current *networkingv1.NetworkPolicy `json:"-"`
}

// Destination is an entry of allowedDestinations.
type Destination struct {
	Name string `json:"name"`
	// CIDR, or Service in AWS's spelling with Regions, of which none means all.
	CIDR    string   `json:"cidr,omitempty"`
	Service string   `json:"service,omitempty"`
	Regions []string `json:"regions,omitempty"`
	// Ports look like "TCP 443" or "UDP 8000-8100"; none means every port.
	Ports []string `json:"ports,omitempty"`
	// CIDRs is the number of its CIDRs in force; nil if unknown.
	CIDRs *int `json:"cidrs,omitempty"`
}

// OtherPolicy is another NetworkPolicy that allows egress.
type OtherPolicy struct {
	Name string `json:"name"`
	// Policy reports whether it is made from another policy of the namespace.
	Policy bool `json:"policy"`
	// Everything reports whether it allows every destination and port.
	Everything bool `json:"everything"`
	// Pods is its selector; empty for every pod of the namespace.
	Pods string `json:"pods,omitempty"`
}

// Policies returns the state of each policy of a cluster, sorted by namespace and name; empty, and not nil, for none.
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
		p.PortSlots = n.slots(current.Spec)
	}
	p.OtherPolicies = n.others(p.NetworkPolicy)
	if assessment.Policy == nil {
		return p
	}
	p.DefaultAction = assessment.Policy.DefaultAction
	counts := countsOf(configMap, p.Current)
	for _, d := range assessment.Policy.Destinations {
		p.Destinations = append(p.Destinations, destination(d, counts))
	}
	return p
}

// assess assesses a policy as the agent does, beside the other policies of its namespace.
func (c Cluster) assess(configMap *corev1.ConfigMap, current *networkingv1.NetworkPolicy, n *namespace) *netpol.Assessment {
	in := netpol.Inputs{
		Table: c.Table, Options: c.Options, AgentNamespace: c.AgentNamespace, Incomplete: c.RangesIncomplete, TrustCurrent: true,
	}
	var inCluster *netpol.Current
	if current != nil {
		inCluster = netpol.CurrentOf(current)
	}
	assessment := netpol.Assess(configMap, inCluster, in)
	if !assessment.Opens {
		return assessment
	}
	in.Exceeded = netpol.Beside(assessment.Desired[0].Spec, n.made(netpol.NetworkPolicyName(configMap.Name)), c.Options)
	if in.Exceeded == nil {
		return assessment
	}
	p := assessment.Policy
	assessment = netpol.Assess(configMap, inCluster, in)
	assessment.Policy = p
	return assessment
}

// messages explains a state; empty, and not nil, for nothing to explain.
func messages(assessment *netpol.Assessment, current *networkingv1.NetworkPolicy) []string {
	const isBehind = "; the agent is behind or not running"
	if messages := assessment.Messages(); messages != nil {
		return messages
	}
	if assessment.State != Pending {
		return []string{}
	}
	switch {
	case len(assessment.Unresolved) > 0 && assessment.Cause == netpol.CauseRanges:
		return []string{fmt.Sprintf("NetworkPolicy %s was made before the AWS ranges of these destinations were loaded: %q", current.Name, assessment.Unresolved) + isBehind}
	case assessment.Cause == netpol.CauseMissing:
		return []string{"There is no NetworkPolicy yet" + isBehind}
	case assessment.Cause == netpol.CauseEdited:
		return []string{fmt.Sprintf("A person edited NetworkPolicy %s, and the agent has not restored it yet", current.Name) + isBehind}
	}
	return []string{fmt.Sprintf("NetworkPolicy %s was made from an earlier version of the policy", current.Name) + isBehind}
}

func destination(d policy.Destination, counts map[string]int) Destination {
	shown := Destination{Name: d.Name, Regions: d.Regions}
	if d.Service == "" {
		shown.CIDR = d.CIDR.String()
	} else {
		shown.Service = awsranges.Canonical(d.Service)
	}
	for _, port := range d.Ports {
		shown.Ports = append(shown.Ports, port.String())
	}
	if count, known := counts[d.Name]; known {
		shown.CIDRs = &count
	}
	return shown
}

// countsOf returns the number of CIDRs in force of each destination: empty if what is in force was not made
// from the policy as it is now.
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
