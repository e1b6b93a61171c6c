package netpol

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/internal/prefixes"
	"egress-agent/pkg/platform"
	"egress-agent/pkg/policy"
)

// ClusterNetworkPolicy is an object of networking.k8s.aws/v1alpha1 with the fields that the backstop uses
// (https://github.com/aws/amazon-network-policy-controller-k8s, api/v1alpha1/clusternetworkpolicy_types.go). It has
// another shape than the ClusterNetworkPolicy of policy.networking.k8s.io.
type ClusterNetworkPolicy struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        ClusterMetadata          `json:"metadata"`
	Spec            ClusterNetworkPolicySpec `json:"spec"`
}

// ClusterMetadata is the metadata of a ClusterNetworkPolicy.
type ClusterMetadata struct {
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels,omitempty"`
}

// ClusterNetworkPolicySpec is the spec of a ClusterNetworkPolicy.
type ClusterNetworkPolicySpec struct {
	Tier     string         `json:"tier"`
	Priority int            `json:"priority"`
	Subject  ClusterSubject `json:"subject"`
	Egress   []ClusterRule  `json:"egress"`
}

// ClusterSubject selects namespaces.
type ClusterSubject struct {
	Namespaces metav1.LabelSelector `json:"namespaces"`
}

// ClusterRule denies ports of networks. Without ports it denies everything.
type ClusterRule struct {
	Name   string        `json:"name"`
	Action string        `json:"action"`
	To     []ClusterPeer `json:"to"`
	Ports  []ClusterPort `json:"ports,omitempty"`
}

// ClusterPeer is a list of CIDRs.
type ClusterPeer struct {
	Networks []string `json:"networks"`
}

// ClusterPort is a port or a range of ports.
type ClusterPort struct {
	PortNumber *ClusterPortNumber `json:"portNumber,omitempty"`
	PortRange  *ClusterPortRange  `json:"portRange,omitempty"`
}

// ClusterPortNumber is a port of a protocol.
type ClusterPortNumber struct {
	Protocol string `json:"protocol"`
	Port     int    `json:"port"`
}

// ClusterPortRange is a range of ports of a protocol; Start is less than End.
type ClusterPortRange struct {
	Protocol string `json:"protocol"`
	Start    int    `json:"start"`
	End      int    `json:"end"`
}

// The limits of a ClusterNetworkPolicy, from its CustomResourceDefinition.
const (
	maxClusterRules    = 100
	maxClusterPeers    = 100
	maxClusterNetworks = 25
	maxClusterPorts    = 100
)

// backstopPriority leaves room for ClusterNetworkPolicies before and after the backstop: 0 comes first, 1000 last.
const backstopPriority = 100

// Backstop returns a ClusterNetworkPolicy of the Admin tier with the denied entries of a document. It also overrides the
// NetworkPolicies that tenants write themselves. It omits the bases of documents, because a rule of the Admin tier comes
// before every NetworkPolicy. It returns nil if nothing remains to deny. It returns an error if the
// rules exceed a limit of the API, or if they need ranges that the table lacks.
//
// It leaves out the guardrails of within: the Admin tier denies only addresses that it lists.
func Backstop(document PlatformDocument, documents []PlatformDocument, table *awsranges.Table, options Options, agentNamespace string) (*ClusterNetworkPolicy, error) {
	rails := document.Guardrails
	if rails.Mode != platform.Enforce || len(rails.Denied) == 0 {
		return nil, nil
	}
	var opened []policy.Destination
	for _, d := range documents {
		if d.Base != nil {
			opened = append(opened, d.Base.Destinations...)
		}
	}
	for _, d := range slices.Concat(rails.Denied, opened) {
		if d.Service != "" && !isServiceLoaded(awsranges.Canonical(d.Service), table) {
			return nil, fmt.Errorf("%s: the ranges of %s are not loaded; give --ranges-file", d.Name, d.Service)
		}
	}
	bases := setOf(opened, table, options.Family)
	selector := document.Selector.DeepCopy()
	selector.MatchExpressions = append(selector.MatchExpressions, metav1.LabelSelectorRequirement{
		Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpNotIn, Values: append(slices.Clone(systemNamespaces), agentNamespace),
	})
	backstop := &ClusterNetworkPolicy{
		TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.aws/v1alpha1", Kind: "ClusterNetworkPolicy"},
		Metadata: ClusterMetadata{Name: BasePrefix + document.Name, Labels: map[string]string{ManagedByLabel: ManagedBy}},
		Spec:     ClusterNetworkPolicySpec{Tier: "Admin", Priority: backstopPriority, Subject: ClusterSubject{*selector}},
	}
	for _, entry := range rails.Denied {
		blocks, err := setOf([]policy.Destination{entry}, table, options.Family).Subtract(bases).Blocks()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", entry.Name, err)
		}
		for _, group := range blocks.ByPorts() {
			if err := backstop.deny(entry.Name, group); err != nil {
				return nil, fmt.Errorf("%s: %w", entry.Name, err)
			}
		}
	}
	if len(backstop.Spec.Egress) == 0 {
		return nil, nil
	}
	return backstop, nil
}

// deny adds the rules that deny a group, with as many prefixes in a rule as the API permits.
func (c *ClusterNetworkPolicy) deny(name string, group prefixes.Group) error {
	ports := clusterPorts(group.Ports)
	if len(ports) > maxClusterPorts {
		return fmt.Errorf("%d ports and port ranges: a rule of a ClusterNetworkPolicy has at most %d", len(ports), maxClusterPorts)
	}
	for rule := range slices.Chunk(group.Prefixes, maxClusterPeers*maxClusterNetworks) {
		if len(c.Spec.Egress) == maxClusterRules {
			return fmt.Errorf("a ClusterNetworkPolicy has at most %d rules of %d CIDRs each: split the document", maxClusterRules, maxClusterPeers*maxClusterNetworks)
		}
		var peers []ClusterPeer
		for networks := range slices.Chunk(rule, maxClusterNetworks) {
			peers = append(peers, ClusterPeer{prefixTexts(networks)})
		}
		ruleName := name
		if n := len(c.Spec.Egress); n > 0 && slices.ContainsFunc(c.Spec.Egress, func(r ClusterRule) bool { return r.Name == name }) {
			ruleName = fmt.Sprintf("%s-%d", name, n+1)
		}
		c.Spec.Egress = append(c.Spec.Egress, ClusterRule{Name: ruleName, Action: "Deny", To: peers, Ports: ports})
	}
	return nil
}

func prefixTexts(list []netip.Prefix) []string {
	texts := make([]string, len(list))
	for i, prefix := range list {
		texts[i] = prefix.String()
	}
	return texts
}

// clusterPorts returns the ports of a rule; nil for every port.
func clusterPorts(ports prefixes.PortSet) []ClusterPort {
	if ports.IsEveryPort() {
		return nil
	}
	var list []ClusterPort
	for _, r := range ports.Ranges() {
		if r.First == r.Last {
			list = append(list, ClusterPort{PortNumber: &ClusterPortNumber{r.Protocol, int(r.First)}})
		} else {
			list = append(list, ClusterPort{PortRange: &ClusterPortRange{r.Protocol, int(r.First), int(r.Last)}})
		}
	}
	return list
}
