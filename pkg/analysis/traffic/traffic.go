// Package traffic judges flows that pods really made by NetworkPolicies.
//
// The package is pure.
package traffic

import (
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"egress-agent/pkg/analysis/flows"
	"egress-agent/pkg/policy"
)

// Namespace has the NetworkPolicies of one namespace.
type Namespace struct {
	name     string
	cluster  *flows.Cluster
	policies []*compiled
}

// compiled is a NetworkPolicy with an index of the rules by prefix.
type compiled struct {
	selector labels.Selector
	byPrefix map[netip.Prefix][]blockRule
	bits     [2][]int // the lengths of IPv4 and IPv6 prefixes in byPrefix
	pods     []podRule
}

type blockRule struct {
	except []netip.Prefix // a NetworkPolicy that the agent did not make may have them
	ports  []networkingv1.NetworkPolicyPort
}

type podRule struct {
	namespaces, pods labels.Selector // a nil namespaces means the namespace itself
	ports            []networkingv1.NetworkPolicyPort
}

// NewNamespace returns a namespace with the specs of NetworkPolicies. It skips those that are not for egress. If cluster
// is nil, each NetworkPolicy applies to every source. The agent's NetworkPolicies have neither named ports nor labels of
// namespaces other than the name. In another NetworkPolicy, these open nothing, because cluster does not know them.
func NewNamespace(name string, specs []networkingv1.NetworkPolicySpec, cluster *flows.Cluster) *Namespace {
	n := &Namespace{name: name, cluster: cluster}
	for _, spec := range specs {
		types := spec.PolicyTypes // if there are none, only the rules count
		if slices.Contains(types, networkingv1.PolicyTypeEgress) || len(types) == 0 && len(spec.Egress) > 0 {
			n.policies = append(n.policies, compile(spec))
		}
	}
	return n
}

func compile(spec networkingv1.NetworkPolicySpec) *compiled {
	c := &compiled{selector: selectorOf(&spec.PodSelector), byPrefix: make(map[netip.Prefix][]blockRule)}
	for _, rule := range spec.Egress {
		if len(rule.To) == 0 {
			for _, all := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
				c.add(all, blockRule{ports: rule.Ports})
			}
		}
		for _, peer := range rule.To {
			if peer.IPBlock == nil {
				p := podRule{pods: labels.Everything(), ports: rule.Ports}
				if peer.PodSelector != nil {
					p.pods = selectorOf(peer.PodSelector)
				}
				if peer.NamespaceSelector != nil {
					p.namespaces = selectorOf(peer.NamespaceSelector)
				}
				c.pods = append(c.pods, p)
				continue
			}
			prefix, err := netip.ParsePrefix(peer.IPBlock.CIDR)
			if err != nil {
				continue
			}
			block := blockRule{ports: rule.Ports}
			for _, text := range peer.IPBlock.Except {
				if except, err := netip.ParsePrefix(text); err == nil {
					block.except = append(block.except, except)
				}
			}
			c.add(prefix.Masked(), block)
		}
	}
	return c
}

func (c *compiled) add(prefix netip.Prefix, block blockRule) {
	c.byPrefix[prefix] = append(c.byPrefix[prefix], block)
	if family := familyOf(prefix.Addr()); !slices.Contains(c.bits[family], prefix.Bits()) {
		c.bits[family] = append(c.bits[family], prefix.Bits())
	}
}

func selectorOf(selector *metav1.LabelSelector) labels.Selector {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return labels.Nothing()
	}
	return parsed
}

func familyOf(address netip.Addr) int {
	if address.Is4() {
		return 0
	}
	return 1
}

// Allows reports whether the NetworkPolicies allow a flow by the definition of Kubernetes. A pod that no NetworkPolicy
// selects may connect to everything. Allows returns true for a question to the cluster's DNS.
func (n *Namespace) Allows(flow flows.Flow) bool {
	if n.cluster.IsDNS(flow) {
		return true
	}
	source, isKnown := n.cluster.PodOf(flow.Source)
	isSelected := false
	for _, c := range n.policies {
		if isKnown && !c.selector.Matches(labels.Set(source.Labels)) {
			continue
		}
		isSelected = true
		if c.allows(n, flow) {
			return true
		}
	}
	return !isSelected
}

func (c *compiled) allows(n *Namespace, flow flows.Flow) bool {
	for _, bits := range c.bits[familyOf(flow.Destination)] {
		for _, block := range c.byPrefix[netip.PrefixFrom(flow.Destination, bits).Masked()] {
			isExcepted := slices.ContainsFunc(block.except, func(p netip.Prefix) bool { return p.Contains(flow.Destination) })
			if !isExcepted && opens(block.ports, flow, flow.Port) {
				return true
			}
		}
	}
	if len(c.pods) == 0 || n.cluster.IsEmpty() {
		return false
	}
	namespace, set, ok := "", map[string]string(nil), false
	if pod, isPod := n.cluster.PodOf(flow.Destination); isPod {
		namespace, set, ok = pod.Namespace, pod.Labels, true
	} else if service, isService := n.cluster.ServiceOf(flow.Destination); isService && len(service.Selector) > 0 {
		namespace, set, ok = service.Namespace, service.Selector, true
	}
	return ok && slices.ContainsFunc(c.pods, func(p podRule) bool {
		isInNamespace := namespace == n.name
		if p.namespaces != nil {
			isInNamespace = p.namespaces.Matches(labels.Set{"kubernetes.io/metadata.name": namespace})
		}
		return isInNamespace && p.pods.Matches(labels.Set(set)) && opens(p.ports, flow, n.cluster.PortOf(flow))
	})
}

// opens reports whether the ports of a rule have a port of the flow's protocol.
func opens(ports []networkingv1.NetworkPolicyPort, flow flows.Flow, port uint16) bool {
	return len(ports) == 0 || slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool {
		protocol := policy.TCP
		if p.Protocol != nil {
			protocol = policy.Protocol(*p.Protocol)
		}
		if protocol != flow.Protocol || p.Port != nil && p.Port.Type == intstr.String {
			return false
		}
		if p.Port == nil {
			return true
		}
		last := p.Port.IntVal
		if p.EndPort != nil {
			last = *p.EndPort
		}
		return p.Port.IntVal <= int32(port) && int32(port) <= last
	})
}
