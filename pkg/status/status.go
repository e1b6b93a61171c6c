// Package status says how each policy of a cluster stands, as read off the cluster: from the ConfigMaps and
// the NetworkPolicies, without asking the agent.
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

// State is how a policy stands.
type State string

// The states. The agent's Events have the same names, but for Pending.
const (
	// Applied: the NetworkPolicy was made from the policy as it is now, and nobody has edited it since.
	Applied State = "Applied"
	// Invalid: the policy has mistakes. What was made of its last valid version stays in force.
	Invalid State = "Invalid"
	// NameConflict: a NetworkPolicy of that name is not the agent's to write.
	NameConflict State = "NameConflict"
	// NamespaceExempt: the agent writes nothing in the namespace.
	NamespaceExempt State = "NamespaceExempt"
	// RangesUnavailable: the policy names AWS services whose ranges are not known.
	RangesUnavailable State = "RangesUnavailable"
	// Pending: the agent has not done its part yet, or does not run.
	Pending State = "Pending"
)

// States are all of them, the good one first and then by what needs a person most.
var States = []State{Applied, Invalid, NameConflict, NamespaceExempt, RangesUnavailable, Pending}

// Cluster is what was read of a cluster, or of one of its namespaces.
type Cluster struct {
	// ConfigMaps are those that are labelled as policies, in any order, as are all NetworkPolicies of the
	// same namespaces.
	ConfigMaps      []*corev1.ConfigMap
	NetworkPolicies []*networkingv1.NetworkPolicy
	// Table are the ranges in use; nil where there are none. RangesHidden says that there may be, but that
	// they could not be read: then what the agent wrote says whether it knew them.
	Table            *awsranges.Table
	RangesUnreadable bool
	// Options are the agent's. Where they are not, what it has accepted is still not called invalid.
	Options netpol.Options
}

// Policy is how one stands.
type Policy struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	State     State  `json:"state"`
	// Messages say why it is not applied, a line each, and what to do; empty where it is.
	Messages []string `json:"messages"`
	// DefaultAction is deny or allow; empty where the policy cannot be read.
	DefaultAction policy.Action `json:"defaultAction"`
	// Destinations are those of the policy as it is now, in its order; empty where it cannot be read.
	Destinations []Destination `json:"destinations"`
	// NetworkPolicy is the name of the one that is made from it; empty while there is none.
	NetworkPolicy string `json:"networkPolicy"`
	// CIDRs is how many the NetworkPolicy has.
	CIDRs int `json:"cidrs"`
	// PortSlots is the most that any of its CIDRs, or one that lies in them, takes over all of the
	// namespace's policies, with the two of DNS where that is open; MaxPortSlots how many there are, 0 for no
	// limit.
	PortSlots    int `json:"portSlots"`
	MaxPortSlots int `json:"maxPortSlots"`
	// OtherPolicies are the other NetworkPolicies of the namespace that allow egress too, sorted by name. Together
	// they allow what any of them does.
	OtherPolicies []OtherPolicy `json:"others"`

	// Current is the NetworkPolicy itself; nil while there is none.
	Current *networkingv1.NetworkPolicy `json:"-"`
}

// Destination is an entry of allowedDestinations.
type Destination struct {
	Name string `json:"name"`
	// CIDR, or Service in AWS's spelling with Regions, of which none means all.
	CIDR    string   `json:"cidr,omitempty"`
	Service string   `json:"service,omitempty"`
	Regions []string `json:"regions,omitempty"`
	// Ports are as "TCP 443" or "UDP 8000-8100"; none means every port.
	Ports []string `json:"ports,omitempty"`
	// CIDRs is how many it has in force; nil where that is not known.
	CIDRs *int `json:"cidrs,omitempty"`
}

// OtherPolicy is another NetworkPolicy that allows egress.
type OtherPolicy struct {
	Name string `json:"name"`
	// Policy says that it is made from another policy of the namespace.
	Policy bool `json:"policy"`
	// Everything says that it allows every destination and port.
	Everything bool `json:"everything"`
	// Pods is its selector; empty for every pod of the namespace.
	Pods string `json:"pods,omitempty"`
}

// Policies says how each policy of a cluster stands, sorted by namespace and name; empty, and not nil, for none.
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
	p := Policy{
		Namespace: configMap.Namespace, Name: configMap.Name, Messages: []string{}, Destinations: []Destination{},
		MaxPortSlots: c.Options.MaxPortSlots,
	}
	var document *policy.Policy
	p.State, p.Messages, document = c.state(configMap, current, n)
	if current != nil && p.State != NameConflict {
		p.Current, p.NetworkPolicy, p.CIDRs = current, name, netpol.CIDRCount(current.Spec)
		p.PortSlots = n.slots(current.Spec)
	}
	p.OtherPolicies = n.others(p.NetworkPolicy)
	if document == nil {
		return p
	}
	p.DefaultAction = document.DefaultAction
	counts := countsOf(configMap, p.Current)
	for _, d := range document.Destinations {
		p.Destinations = append(p.Destinations, destination(d, counts))
	}
	return p
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

// countsOf returns how many CIDRs each destination has in force: empty where what is in force is not made
// from the policy as it is now.
func countsOf(configMap *corev1.ConfigMap, current *networkingv1.NetworkPolicy) map[string]int {
	known := make(map[string]int)
	if current == nil || !isMadeFrom(configMap, current) {
		return known
	}
	counts, _ := netpol.ParseCounts(current.Annotations[netpol.DestinationsAnnotation])
	for _, count := range counts {
		known[count.Name] = count.CIDRs
	}
	return known
}

// isMadeFrom says whether the agent made a NetworkPolicy from the policy as it is now, and so accepted it.
func isMadeFrom(configMap *corev1.ConfigMap, current *networkingv1.NetworkPolicy) bool {
	return current.Annotations[netpol.PolicyDigestAnnotation] == netpol.PolicyDigestOf(configMap)
}

// state judges as the agent does, with one difference: it does not know the agent's flags and custom ranges.
// So a NetworkPolicy that says it is made from the policy as it is now shows that the agent accepted it, and
// is not compared with what these options would make of it.
func (c Cluster) state(configMap *corev1.ConfigMap, current *networkingv1.NetworkPolicy, n *namespace) (State, []string, *policy.Policy) {
	document, problems := netpol.Read(configMap, c.Table)
	accepted := current != nil && netpol.IsOwned(configMap, &current.ObjectMeta) && isMadeFrom(configMap, current)
	var unresolved []string
	switch {
	case accepted:
		if problems != nil {
			document = acceptedDocument(configMap)
		}
		unresolved = unresolvedServices(document, current, !c.RangesUnreadable && !c.Table.HasAWS())
	case problems == nil:
		var result *netpol.Result
		if result, problems = netpol.Compile(document, c.Table, c.Options); problems == nil {
			problems = netpol.Beside(result.Spec, n.made(netpol.NetworkPolicyName(configMap.Name)), c.Options)
			if !c.RangesUnreadable {
				unresolved = result.Unresolved
			}
		}
	}
	switch {
	case netpol.IsExempt(configMap.Namespace, netpol.DefaultNamespace):
		return NamespaceExempt, []string{fmt.Sprintf("The agent writes nothing in %s, which the cluster or the agent itself rests on; put the policy into the namespace of the pods", configMap.Namespace)}, document
	case current != nil && !netpol.IsOwned(configMap, &current.ObjectMeta):
		return NameConflict, []string{fmt.Sprintf("NetworkPolicy %s exists and is not egress-agent's: it stays as it is, and this policy is not applied; rename one of the two", current.Name)}, document
	case current != nil && current.DeletionTimestamp != nil:
		return Pending, []string{fmt.Sprintf("NetworkPolicy %s is being deleted; the agent makes it anew once it is gone", current.Name)}, document
	case problems != nil && !accepted:
		return Invalid, problemMessages(problems, current), document
	case len(unresolved) > 0 && accepted && c.Table.HasAWS():
		return Pending, []string{fmt.Sprintf("NetworkPolicy %s was made before the AWS ranges of these destinations were known: %q; the agent has not come to it, or does not run", current.Name, unresolved)}, document
	case len(unresolved) > 0:
		return RangesUnavailable, []string{fmt.Sprintf("The AWS ranges of these destinations are not known: %q; the agent applies them once they are", unresolved)}, document
	case accepted && netpol.HasManagedLabel(&current.ObjectMeta) && current.Annotations[netpol.SpecDigestAnnotation] == netpol.SpecDigestOf(current.Spec):
		return Applied, []string{}, document
	}
	return Pending, []string{pendingMessage(current, accepted)}, document
}

// acceptedDocument reads a policy whose names the agent knows, from custom ranges of its own.
func acceptedDocument(configMap *corev1.ConfigMap) *policy.Policy {
	document, problems := policy.Parse([]byte(configMap.Data[policy.Key]))
	if problems != nil {
		return nil
	}
	accepted, _ := policy.Validate(document, nil)
	return accepted
}

// unresolvedServices returns the services of a policy that what was made from it lacks: their ranges were not known.
// Where there are no AWS ranges at all, nothing keeps up those that it has, and they count too.
func unresolvedServices(document *policy.Policy, current *networkingv1.NetworkPolicy, noRanges bool) []string {
	counts, complete := netpol.ParseCounts(current.Annotations[netpol.DestinationsAnnotation])
	if document == nil || document.DefaultAction == policy.Allow || !complete {
		return nil
	}
	var names []string
	for _, d := range document.Destinations {
		counted := slices.ContainsFunc(counts, func(count netpol.Count) bool { return count.Name == d.Name })
		_, inCatalogue := awsranges.LookupService(awsranges.Canonical(d.Service))
		if d.Service != "" && (!counted || noRanges && inCatalogue) {
			names = append(names, d.Name)
		}
	}
	return names
}

func problemMessages(problems policy.Problems, current *networkingv1.NetworkPolicy) []string {
	var messages []string
	for _, problem := range problems {
		messages = append(messages, problem.String())
	}
	if current != nil && current.Annotations[netpol.PolicyDigestAnnotation] != "" {
		return append(messages, "Until it is corrected, the last valid policy stays in force")
	}
	return append(messages, "Until it is corrected, all egress but DNS is denied")
}

func pendingMessage(current *networkingv1.NetworkPolicy, accepted bool) string {
	switch {
	case current == nil:
		return "There is no NetworkPolicy yet: the agent has not come to it, or does not run"
	case accepted:
		return fmt.Sprintf("NetworkPolicy %s was edited by hand: the agent has not restored it yet, or does not run", current.Name)
	}
	return fmt.Sprintf("NetworkPolicy %s is made from an earlier version of the policy: the agent has not come to it, or does not run", current.Name)
}
