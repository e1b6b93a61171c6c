package netpol

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/internal/prefixes"
	"egress-agent/pkg/policy"
)

// podsKey identifies pods: equal pods have equal keys. labels are sorted, as "app=web,tier=front".
type podsKey struct{ namespace, labels string }

func keyOf(pods policy.Pods) podsKey {
	var labels []string
	for _, key := range slices.Sorted(maps.Keys(pods.Labels)) {
		labels = append(labels, key+"="+pods.Labels[key])
	}
	return podsKey{pods.Namespace, strings.Join(labels, ",")}
}

// FormatPods returns pods for a message, such as "pods app=web of namespace monitoring".
func FormatPods(pods policy.Pods) string {
	key := keyOf(pods)
	text := "every pod"
	if key.labels != "" {
		text = "pods " + key.labels
	}
	if key.namespace == "" {
		return text + " of the policy's namespace"
	}
	return text + " of namespace " + key.namespace
}

// openedPods are pods that a policy opens, with their ports.
//
// Their ports are a Set on one address, somePod, which stands for the address of any of these pods.
type openedPods struct {
	pods  policy.Pods
	ports prefixes.Set
}

var somePod = netip.MustParsePrefix("0.0.0.0/32")

// portsOnPod returns the ports as a Set on somePod.
func portsOnPod(ranges []prefixes.PortRange) prefixes.Set {
	builder := prefixes.NewBuilder(1)
	builder.Add(builder.Ports(ranges), somePod)
	return builder.Set()
}

// addPods opens the pods of a destination. Destinations with the same pods share their ports.
func (c *collector) addPods(d policy.Destination) {
	if c.pods == nil {
		c.pods = make(map[podsKey]*openedPods)
	}
	key, ports := keyOf(*d.Pods), portsOnPod(portRanges(d.Ports))
	if opened := c.pods[key]; opened != nil {
		ports = opened.ports.Union(ports)
	}
	c.pods[key] = &openedPods{*d.Pods, ports}
}

// sortedPods returns the opened pods. Pods in the policy's namespace come first.
func (c *collector) sortedPods() []openedPods {
	keys := slices.SortedFunc(maps.Keys(c.pods), func(a, b podsKey) int {
		return cmp.Or(strings.Compare(a.namespace, b.namespace), strings.Compare(a.labels, b.labels))
	})
	var sorted []openedPods
	for _, key := range keys {
		sorted = append(sorted, *c.pods[key])
	}
	return sorted
}

// cutPods sets c.pods to the part of the opened pods that the guardrails permit.
func (c *Compiled) cutPods(collected *collector, guardrails *Guardrails) {
	for _, opened := range collected.sortedPods() {
		permitted, isCut := guardrails.cutPods(opened)
		c.isCut = c.isCut || isCut
		if isCut && guardrails.unresolved != nil {
			c.unresolvedGuardrails = guardrails.unresolved
		}
		if !permitted.IsEmpty() {
			c.pods = append(c.pods, openedPods{opened.pods, permitted})
		}
	}
}

// portSet returns the ports that a NetworkPolicy can list. ok is false if it can list no port.
func (o openedPods) portSet() (ports prefixes.PortSet, ok bool) {
	blocks, err := o.ports.Blocks()
	if err != nil || blocks.Len() != 1 {
		return prefixes.PortSet{}, false
	}
	return blocks.ByPorts()[0].Ports, true
}

// appendPodRules appends one rule for each distinct port set of the pods, in the order of the first pods with these
// ports.
func appendPodRules(rules []networkingv1.NetworkPolicyEgressRule, pods []openedPods) []networkingv1.NetworkPolicyEgressRule {
	var podRules []rule
	for _, opened := range pods {
		set, ok := opened.portSet()
		if !ok {
			continue
		}
		ports, peer := rulePorts(set), podPeer(opened.pods)
		i := slices.IndexFunc(podRules, func(r rule) bool { return jsonKey(r.ports) == jsonKey(ports) })
		if i < 0 {
			podRules = append(podRules, rule{first: peer, ports: ports})
		} else {
			podRules[i].rest = append(podRules[i].rest, peer)
		}
	}
	for _, r := range podRules {
		rules = append(rules, r.toAPI())
	}
	return rules
}

// podPeer returns the peer that selects pods. On AWS VPC CNI it also selects the cluster IPs of the Services whose own
// selector has these labels (aws/amazon-network-policy-controller-k8s, pkg/resolvers/endpoints.go).
func podPeer(pods policy.Pods) networkingv1.NetworkPolicyPeer {
	peer := networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: pods.Labels}}
	if len(pods.Labels) == 0 {
		peer.PodSelector = &metav1.LabelSelector{}
	}
	if pods.Namespace != "" {
		peer.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: pods.Namespace}}
	}
	return peer
}

// podsOf returns the pods that a peer of podPeer selects.
func podsOf(peer networkingv1.NetworkPolicyPeer) policy.Pods {
	var pods policy.Pods
	if peer.PodSelector != nil {
		pods.Labels = peer.PodSelector.MatchLabels
	}
	if peer.NamespaceSelector != nil {
		pods.Namespace = peer.NamespaceSelector.MatchLabels[corev1.LabelMetadataName]
	}
	return pods
}

var dnsPeerKey = jsonKey(dnsPods)

// isDNSRule reports whether a rule that the agent wrote is the rule for the cluster's DNS.
func isDNSRule(rule networkingv1.NetworkPolicyEgressRule) bool {
	return len(rule.To) > 0 && rule.To[0].IPBlock == nil && jsonKey(rule.To[0]) == dnsPeerKey && jsonKey(rule.Ports) == jsonKey(dnsPorts)
}

// podSlots returns the highest number of port slots that a pod may take: every entry of pods may select it.
func podSlots(pods []openedPods) int {
	union := prefixes.Set{}
	for _, opened := range pods {
		union = union.Union(opened.ports)
	}
	return slotsOnPod(union)
}

// slotsOnPod returns the number of port slots that ports on somePod take.
func slotsOnPod(ports prefixes.Set) int {
	blocks, err := ports.Blocks()
	if err != nil {
		return prefixes.MaxPortRanges
	}
	for _, slots := range blocks.Slots() {
		return slots
	}
	return 0
}

// warnOfPods adds the warnings about the pods that a policy selects, and about the pods that it opens.
func warnOfPods(p *policy.Policy, warnings *policy.Warnings) {
	if p.PodSelector != nil {
		warnings.AddProblem(policy.SelectsPods, policy.Problem{Path: "podSelector", Message: "the policy applies only to the pods that podSelector selects; " +
			"pods that no policy of the namespace selects stay open, or are denied in the strict mode of AWS VPC CNI"})
	}
	if p.DefaultAction == policy.Allow {
		return
	}
	for i, d := range p.Destinations {
		if d.Pods == nil {
			continue
		}
		switch {
		case d.Pods.Namespace == metav1.NamespaceSystem && len(d.Pods.Labels) == 0:
			warnings.Add(policy.OpensNodes, i, "namespace", "%s opens every pod of %s; some run on the network of their node, so it opens nodes too; name pods", d.Name, d.Pods.Namespace)
		case len(d.Pods.Labels) > 0:
			warnings.Add(policy.ServiceSelector, i, "pods", "%s: AWS VPC CNI opens the cluster IP of a Service only if the Service's own selector has these labels", d.Name)
		}
	}
}
