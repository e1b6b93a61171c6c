package status

import (
	"cmp"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/analysis/flows"
	"egress-agent/pkg/policy"
)

const (
	webPolicy = `{"podSelector": {"matchLabels": {"app": "web"}}, "allowedDestinations": [
		{"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]}, {"name": "legacy", "cidr": "10.2.0.0/24", "ports": [22]},
		{"name": "past", "cidr": "10.3.0.0/24", "ports": [22], "expires": "2026-01-01"}, {"name": "api", "entity": "kube-apiserver"}]}`
	observePolicy = `{"defaultAction": "allow", "podSelector": {"matchLabels": {"app": "job"}}, "allowedDestinations": [{"name": "s3", "cidr": "10.4.0.0/24", "ports": [443]}]}`
	cronPolicy    = `{"defaultAction": "allow", "podSelector": {"matchLabels": {"app": "cron"}}, "allowedDestinations": [{"name": "mail", "cidr": "10.6.0.0/24", "ports": [25]}]}`
)

// TestAddTraffic has a namespace with a policy that denies, one that observes and a NetworkPolicy that a tenant wrote,
// and a second namespace.
func TestAddTraffic(t *testing.T) {
	now := time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)
	other := configMap("egress", `{"allowedDestinations": []}`)
	other.Namespace = "tenant-b"
	inOther := made(t, "egress", `{"allowedDestinations": []}`, nil)
	inOther.Namespace = "tenant-b"
	ofTenant := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant-a", Name: "mine"}, Spec: networkingv1.NetworkPolicySpec{
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
		PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
		Egress: []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{
			{IPBlock: &networkingv1.IPBlock{CIDR: "10.5.0.0/16", Except: []string{"10.5.1.0/24"}}}}}},
	}}
	cluster := Cluster{
		ConfigMaps:      []*corev1.ConfigMap{configMap("web", webPolicy), configMap("job", observePolicy), configMap("cron", cronPolicy), other},
		NetworkPolicies: []*networkingv1.NetworkPolicy{made(t, "web", webPolicy, nil), made(t, "job", observePolicy, nil), made(t, "cron", cronPolicy, nil), inOther, ofTenant},
		Options:         options,
	}
	pods := flows.NewCluster()
	for address, pod := range map[string]flows.Pod{
		"10.0.0.1": {Namespace: "tenant-a", Labels: map[string]string{"app": "web"}}, "10.0.0.2": {Namespace: "tenant-a", Labels: map[string]string{"app": "web"}},
		"10.0.0.3": {Namespace: "tenant-a", Labels: map[string]string{"app": "job"}}, "10.0.0.4": {Namespace: "tenant-b"},
	} {
		pods.AddPod(netip.MustParseAddr(address), pod)
	}
	all := []flows.Flow{
		flowTo("10.0.0.1", "10.1.0.9", 5432), flowTo("10.0.0.1", "10.1.0.9", 443), flowTo("10.0.0.2", "10.1.0.9", 443), flowTo("10.0.0.1", "10.3.0.1", 22), flowTo("10.0.0.1", "10.4.0.1", 443),
		flowTo("10.0.0.2", "10.5.0.1", 1), flowTo("10.0.0.2", "10.5.1.1", 1),
		flowTo("10.0.0.3", "10.4.0.1", 443), flowTo("10.0.0.3", "10.6.0.1", 25), flowTo("10.0.0.3", "10.1.0.9", 5432), // now open, and not with defaultAction deny
		flowTo("10.0.0.4", "10.1.0.9", 5432),
		{Source: netip.MustParseAddr("10.0.0.4"), Destination: netip.MustParseAddr("10.9.9.9"), Port: 1, Protocol: policy.TCP, Denied: 1},
	}
	slices.SortFunc(all, func(a, b flows.Flow) int {
		return cmp.Or(a.Destination.Compare(b.Destination), int(a.Port)-int(b.Port), a.Source.Compare(b.Source))
	})
	report := NewReport("", now, nil, cluster)
	require.Nil(t, report.Traffic)
	report.AddTraffic(cluster, all, pods)
	require.Equal(t, []Traffic{
		{Namespace: "tenant-a", Flows: 10, Denied: []DeniedFlows{{"10.1.0.9:443/TCP", 2, 2}, {"10.1.0.9:5432/TCP", 1, 1}, {"10.4.0.1:443/TCP", 1, 1}, {"10.5.1.1:1/TCP", 1, 1}, {"10.6.0.1:25/TCP", 1, 1}}, Unused: []string{"web/legacy"}},
		{Namespace: "tenant-b", Flows: 2, Denied: []DeniedFlows{{"10.1.0.9:5432/TCP", 1, 1}}, Unused: []string{}},
	}, report.Traffic)
	used := make(map[string]int)
	for _, p := range report.Policies {
		for _, d := range p.Destinations {
			if d.Flows != nil {
				used[p.Name+"/"+d.Name] = *d.Flows
			}
		}
	}
	require.Equal(t, map[string]int{"web/db": 2, "web/legacy": 0, "job/s3": 2, "cron/mail": 1}, used)

	// Without pods, every flow is one of the only namespace, and every NetworkPolicy may apply to it.
	cluster.ConfigMaps, cluster.NetworkPolicies = cluster.ConfigMaps[:1], cluster.NetworkPolicies[:1]
	report = NewReport("", now, nil, cluster)
	report.AddTraffic(cluster, all, nil)
	require.Equal(t, 12, report.Traffic[0].Flows)
	require.Len(t, report.Traffic[0].Denied, 5)
}

// TestAddTrafficKeepsGuardrails has a policy that observes, and a guardrail that closes what its destination opens.
func TestAddTrafficKeepsGuardrails(t *testing.T) {
	cut := made(t, "job", observePolicy, nil, func(n *networkingv1.NetworkPolicy) {
		n.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "10.4.0.128/25"}}}}}
	})
	cluster := Cluster{ConfigMaps: []*corev1.ConfigMap{configMap("job", observePolicy)}, NetworkPolicies: []*networkingv1.NetworkPolicy{cut}, Options: options}
	report := NewReport("", time.Time{}, nil, cluster)
	report.AddTraffic(cluster, []flows.Flow{flowTo("10.0.0.3", "10.4.0.1", 443), flowTo("10.0.0.3", "10.4.0.200", 443)}, nil)
	require.Equal(t, []DeniedFlows{{"10.4.0.1:443/TCP", 1, 1}}, report.Traffic[0].Denied)
}

func flowTo(source, destination string, port uint16) flows.Flow {
	return flows.Flow{Source: netip.MustParseAddr(source), Destination: netip.MustParseAddr(destination), Port: port, Protocol: policy.TCP, Accepted: 1}
}
