package policytest

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"egress-agent/pkg/policy"
)

// OwnNamespace is the namespace of the policies of RandomLanguagePolicy.
const OwnNamespace = "team-a"

// Pod is a pod of the small cluster that tests enumerate.
type Pod struct {
	Namespace string
	Labels    labels.Set
	Address   netip.Addr
}

// Pods are all pods of the small cluster. Some have addresses that RandomPolicy opens as CIDRs.
func Pods() []Pod {
	var pods []Pod
	for i, namespace := range []string{OwnNamespace, "monitoring"} {
		for k, set := range []labels.Set{{}, {"app": "web"}, {"app": "db"}, {"app": "web", "tier": "front"}} {
			address := netip.AddrFrom4([4]byte{198, 18, byte(i), byte(k * 64)})
			if k == 1 {
				address = netip.AddrFrom4([4]byte{100, 64, byte(i), byte(k)})
			}
			pods = append(pods, Pod{namespace, set, address})
		}
	}
	return pods
}

// RandomLanguagePolicy returns a policy that may use every kind of destination and every field. Its destinations expire
// at some of moments, or never.
func RandomLanguagePolicy(random *rand.Rand, moments []time.Time) *policy.Policy {
	p := RandomPolicy(random)
	for i := range p.Destinations {
		d := &p.Destinations[i]
		if random.IntN(3) == 0 {
			d.CIDR, d.Service, d.Regions, d.Without, d.Except = netip.Prefix{}, "", nil, nil, nil
			d.Pods = &policy.Pods{
				Namespace: []string{"", OwnNamespace, "monitoring", "other"}[random.IntN(4)],
				Labels:    []map[string]string{nil, {"app": "web"}, {"app": "db"}, {"app": "web", "tier": "front"}}[random.IntN(4)],
			}
		}
		if random.IntN(4) == 0 {
			d.Expires = moments[random.IntN(len(moments))]
		}
	}
	if random.IntN(3) == 0 {
		p.PodSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	}
	return p
}

// Selects reports whether a NetworkPolicy of OwnNamespace applies to a pod.
func Selects(spec networkingv1.NetworkPolicySpec, pod Pod) bool {
	return pod.Namespace == OwnNamespace && matches(&spec.PodSelector, pod.Labels)
}

// AllowsPod reports whether a NetworkPolicy of OwnNamespace allows a connection to a pod, as Kubernetes defines it.
func AllowsPod(spec networkingv1.NetworkPolicySpec, pod Pod, protocol policy.Protocol, port uint16) bool {
	return slices.ContainsFunc(spec.Egress, func(rule networkingv1.NetworkPolicyEgressRule) bool {
		isPeer := len(rule.To) == 0 || slices.ContainsFunc(rule.To, func(peer networkingv1.NetworkPolicyPeer) bool {
			if peer.IPBlock != nil {
				return netip.MustParsePrefix(peer.IPBlock.CIDR).Contains(pod.Address)
			}
			isInNamespace := pod.Namespace == OwnNamespace
			if peer.NamespaceSelector != nil {
				isInNamespace = matches(peer.NamespaceSelector, labels.Set{"kubernetes.io/metadata.name": pod.Namespace})
			}
			return isInNamespace && (peer.PodSelector == nil || matches(peer.PodSelector, pod.Labels))
		})
		return isPeer && allowsPort(rule.Ports, protocol, port)
	})
}

func matches(selector *metav1.LabelSelector, set labels.Set) bool {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && parsed.Matches(set)
}
