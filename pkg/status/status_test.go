package status

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

const (
	valid   = `{"allowedDestinations": [{"name": "s3", "awsService": "s3", "regions": ["us-east-1"], "ports": [443]}, {"name": "db", "cidr": "10.1.0.0/24", "ports": [5432, {"port": 8000, "endPort": 8100, "protocol": "UDP"}]}]}`
	edited  = `{"allowedDestinations": [{"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]}]}`
	ours    = `{"allowedDestinations": [{"name": "ours", "awsService": "OUR_OWN", "ports": [443]}]}`
	open    = `{"defaultAction": "allow", "allowedDestinations": [{"name": "s3", "awsService": "s3"}]}`
	invalid = `{"allowedDestinations": [{"name": "db", "cidr": "10.1.0.0/99"}]}`
)

var options = netpol.Options{Family: netpol.IPv4, AllowDNS: true, MaxPortSlots: netpol.DefaultPortSlots}

func testTable(t *testing.T) *awsranges.Table {
	table, err := awsranges.ReadFile("../../testdata/ranges/ip-ranges.json")
	require.NoError(t, err)
	return table
}

func configMap(name, document string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant-a", Name: name, UID: "uid-1"}, Data: map[string]string{policy.Key: document}}
}

// made returns the NetworkPolicy that the agent makes from a policy and a table, with the edits that a person then
// makes. The table may be nil.
func made(t *testing.T, name, document string, table *awsranges.Table, edits ...func(*networkingv1.NetworkPolicy)) *networkingv1.NetworkPolicy {
	source := configMap(name, document)
	networkPolicy := netpol.NetworkPolicyFor(source, netpol.CompileConfigMap(source, netpol.Inputs{Table: table, Options: options}))
	for _, edit := range edits {
		edit(networkPolicy)
	}
	return networkPolicy
}

func TestPoliciesReturnsStates(t *testing.T) {
	table := testTable(t)
	custom, err := awsranges.Parse([]byte(`{"syncToken": "1", "createDate": "", "prefixes": [{"ip_prefix": "10.7.0.0/16", "region": "GLOBAL", "service": "OUR_OWN", "network_border_group": "GLOBAL"}], "ipv6_prefixes": []}`))
	require.NoError(t, err)
	withCustom := awsranges.Merge(table, custom)
	openRule := func(n *networkingv1.NetworkPolicy) {
		n.Spec.Egress = append(n.Spec.Egress, networkingv1.NetworkPolicyEgressRule{})
	}
	notOurs := func(n *networkingv1.NetworkPolicy) { n.Labels, n.OwnerReferences = nil, nil }
	const (
		notYet   = "There is no NetworkPolicy yet; the agent is behind or not running"
		earlier  = "NetworkPolicy egress was made from an earlier version of the policy; the agent is behind or not running"
		byHand   = "A person edited NetworkPolicy egress, and the agent has not restored it yet; the agent is behind or not running"
		noRanges = `The AWS ranges of these destinations are not loaded yet: ["s3"]; the other destinations are applied`
		stays    = `The AWS ranges of these destinations are not loaded yet: ["s3"]; the NetworkPolicy stays as it is until they are loaded`
		mistake  = "Invalid CIDR format: 10.1.0.0/99 (allowedDestinations[0].cidr)"
	)
	for _, test := range []struct {
		name     string
		document string
		current  *networkingv1.NetworkPolicy
		table    *awsranges.Table
		hidden   bool
		options  netpol.Options
		want     State
		messages []string
	}{
		{"applied", valid, made(t, "egress", valid, table), table, false, options, Applied, nil},
		{"nothing there yet", valid, nil, table, false, options, Pending, []string{notYet}},
		{"edited policy", edited, made(t, "egress", valid, table), table, false, options, Pending, []string{earlier}},
		{"corrected policy", edited, made(t, "egress", invalid, table), table, false, options, Pending, []string{earlier}},
		{"edited by hand", valid, made(t, "egress", valid, table, openRule), table, false, options, Pending, []string{byHand}},
		{"label removed", valid, made(t, "egress", valid, table, func(n *networkingv1.NetworkPolicy) { n.Labels = nil }), table, false, options, Pending, []string{byHand}},
		{"being deleted", valid, made(t, "egress", valid, table, func(n *networkingv1.NetworkPolicy) { n.DeletionTimestamp = &metav1.Time{} }), table, false, options, Pending,
			[]string{"NetworkPolicy egress is being deleted; the agent creates it again after that"}},
		{"of others", valid, made(t, "egress", edited, table, notOurs), table, false, options, NameConflict,
			[]string{"NetworkPolicy egress exists and egress-agent does not manage it, so this policy is not applied; rename the ConfigMap or the NetworkPolicy"}},
		{"of others, and invalid", invalid, made(t, "egress", edited, table, notOurs), table, false, options, NameConflict,
			[]string{"NetworkPolicy egress exists and egress-agent does not manage it, so this policy is not applied; rename the ConfigMap or the NetworkPolicy"}},
		{"invalid", invalid, made(t, "egress", valid, table), table, false, options, Invalid, []string{mistake, "Until it is corrected, the last valid policy stays in force"}},
		{"invalid from the start", invalid, made(t, "egress", invalid, table), table, false, options, Invalid, []string{mistake, "Until it is corrected, all egress but DNS is denied"}},
		{"no ranges", valid, made(t, "egress", valid, nil), nil, false, options, RangesUnavailable, []string{noRanges}},
		{"no ranges any more", valid, made(t, "egress", valid, table), nil, false, options, RangesUnavailable, []string{stays}},
		{"invalid without DNS", invalid, made(t, "egress", invalid, table), table, false, netpol.Options{Family: netpol.IPv4}, Invalid, []string{mistake, "Until it is corrected, all egress is denied"}},
		{"no ranges, edited since", valid, made(t, "egress", edited, nil), nil, false, options, RangesUnavailable, []string{stays}},
		{"no ranges needed", edited, made(t, "egress", edited, nil), nil, false, options, Applied, nil},
		{"ranges loaded since", valid, made(t, "egress", valid, nil), table, false, options, Pending,
			[]string{`NetworkPolicy egress was made before the AWS ranges of these destinations were loaded: ["s3"]; the agent is behind or not running`}},
		{"hidden ranges, applied", valid, made(t, "egress", valid, table), nil, true, options, Applied, nil},
		{"hidden ranges, applied in part", valid, made(t, "egress", valid, nil), nil, true, options, RangesUnavailable, []string{noRanges}},
		{"hidden ranges, nothing there yet", valid, nil, nil, true, options, Pending, []string{notYet}},
		{"hidden ranges, invalid", invalid, nil, nil, true, options, Invalid, []string{mistake, "Until it is corrected, all egress but DNS is denied"}},
		{"other flags than the agent's", valid, made(t, "egress", valid, table), table, false, netpol.Options{Family: netpol.IPv6, MaxPortSlots: 1}, Applied, nil},
		{"custom ranges that only the agent has", ours, made(t, "egress", ours, withCustom), table, true, options, Applied, nil},
		{"custom ranges that are gone", ours, made(t, "egress", ours, withCustom), table, false, options, Applied,
			[]string{`The ranges no longer have the names ["OUR_OWN"], so their addresses are closed; remove these names from the policy, or replace them`}},
		{"everything", open, made(t, "egress", open, table), table, false, options, Applied, nil},
		{"everything, without ranges", open, made(t, "egress", open, nil), nil, false, options, Applied, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			cluster := Cluster{ConfigMaps: []*corev1.ConfigMap{configMap("egress", test.document)}, Table: test.table, RangesIncomplete: test.hidden, Options: test.options}
			if test.current != nil {
				cluster.NetworkPolicies = append(cluster.NetworkPolicies, test.current)
			}
			policies := Policies(cluster)
			require.Len(t, policies, 1)
			require.Equal(t, test.want, policies[0].State)
			require.Equal(t, test.messages, append([]string(nil), policies[0].Messages...))
		})
	}
}

func TestPoliciesReturnsDestinationsAndOthers(t *testing.T) {
	table := testTable(t)
	require.Equal(t, []Policy{}, Policies(Cluster{}))
	newNetworkPolicy := func(name string, types []networkingv1.PolicyType, egress ...networkingv1.NetworkPolicyEgressRule) *networkingv1.NetworkPolicy {
		return &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant-a", Name: name}, Spec: networkingv1.NetworkPolicySpec{PolicyTypes: types, Egress: egress}}
	}
	egress := []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
	web := newNetworkPolicy("web", nil, networkingv1.NetworkPolicyEgressRule{To: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8"}}}})
	web.Spec.PodSelector = metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	elsewhere := newNetworkPolicy("elsewhere", egress, networkingv1.NetworkPolicyEgressRule{})
	elsewhere.Namespace = "tenant-b"
	moreDocument := strings.NewReplacer("10.1.0.0/24", "10.1.0.0/16", "5432", "5433").Replace(edited)
	first := configMap("a-first", valid)
	first.Namespace = "tenant-0"
	policies := Policies(Cluster{
		ConfigMaps: []*corev1.ConfigMap{configMap("more", moreDocument), configMap("egress", valid), first},
		NetworkPolicies: []*networkingv1.NetworkPolicy{
			made(t, "more", moreDocument, table), made(t, "egress", valid, table), web, elsewhere,
			newNetworkPolicy("all", egress, networkingv1.NetworkPolicyEgressRule{}),
			newNetworkPolicy("deny", egress),
			newNetworkPolicy("ingress", []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}),
		},
		Table: table, Options: options,
	})
	require.Len(t, policies, 3)
	require.Equal(t, "tenant-0", policies[0].Namespace)
	require.Equal(t, []OtherPolicy{}, policies[0].OtherPolicies)
	require.Zero(t, policies[0].PortSlots, "nothing is in force")
	require.Empty(t, policies[0].NetworkPolicy)
	require.Nil(t, policies[0].Destinations[0].CIDRs, "nothing is in force")

	one, two := 1, 2
	p := policies[1]
	require.Equal(t, "egress", p.Name)
	require.Equal(t, policy.Deny, p.DefaultAction)
	require.Equal(t, []Destination{
		{Name: "s3", Service: "S3", Regions: []string{"us-east-1"}, Ports: []string{"TCP 443"}, CIDRs: &two},
		{Name: "db", CIDR: "10.1.0.0/24", Ports: []string{"TCP 5432", "UDP 8000-8100"}, CIDRs: &one},
	}, withoutSource(p.Destinations))
	require.Equal(t, 3, p.CIDRs)
	require.Equal(t, 5, p.PortSlots, "two of the policy, one of 10.1.0.0/16 in the other policy, and two of DNS")
	require.Equal(t, []OtherPolicy{{Name: "all", AllowsEverything: true}, {Name: "more", IsFromPolicy: true}, {Name: "web", PodSelector: "app=web"}}, withoutSpecs(p.OtherPolicies))
	require.Same(t, &web.Spec, p.OtherPolicies[2].Spec)

	conflict := Policies(Cluster{ConfigMaps: []*corev1.ConfigMap{configMap("web", valid)}, NetworkPolicies: []*networkingv1.NetworkPolicy{web}, Options: options})[0]
	require.Equal(t, NameConflict, conflict.State)
	require.Equal(t, []OtherPolicy{{Name: "web", PodSelector: "app=web"}}, withoutSpecs(conflict.OtherPolicies), "the NetworkPolicy with the policy's name allows egress too")
	require.Zero(t, conflict.CIDRs)

	require.Equal(t, "more", policies[2].Name)
	require.Equal(t, 5, policies[2].PortSlots, "10.1.0.0/24 is inside its 10.1.0.0/16")
	require.Equal(t, []OtherPolicy{{Name: "all", AllowsEverything: true}, {Name: "egress", IsFromPolicy: true}, {Name: "web", PodSelector: "app=web"}}, withoutSpecs(policies[2].OtherPolicies))
}

func withoutSpecs(others []OtherPolicy) []OtherPolicy {
	var copied []OtherPolicy
	for _, other := range others {
		other.Spec = nil
		copied = append(copied, other)
	}
	return copied
}

// TestPoliciesChecksNamespace checks policies that are not applied because of their namespace, or because of the other
// policies of the namespace.
func TestPoliciesChecksNamespace(t *testing.T) {
	system := configMap("egress", edited)
	system.Namespace = "kube-system"
	policies := Policies(Cluster{ConfigMaps: []*corev1.ConfigMap{system}, Options: options})
	require.Equal(t, NamespaceExempt, policies[0].State)
	require.Equal(t, []string{"The agent writes nothing in kube-system, because the cluster or the agent itself runs there; put the policy into the namespace of the pods"}, policies[0].Messages)

	const crowd = `{"allowedDestinations": [{"name": "net", "cidr": "10.0.0.0/8", "ports": [1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31,33,35,37,39,41,43]}]}`
	denied := netpol.Assess(configMap("egress", edited), nil, netpol.Inputs{Options: options, Exceeded: policy.Problems{{Message: "Too many ports"}}}).Desired[0]
	policies = Policies(Cluster{
		ConfigMaps:      []*corev1.ConfigMap{configMap("egress", edited), configMap("other", crowd)},
		NetworkPolicies: []*networkingv1.NetworkPolicy{denied, made(t, "other", crowd, nil)}, Options: options,
	})
	require.Equal(t, Invalid, policies[0].State)
	require.Contains(t, policies[0].Messages[0], "Too many ports: 10.1.0.0/24 has 23 ports and port ranges, and DNS takes 2; AWS VPC CNI enforces at most 24 for a CIDR: merge or remove ports of this or the namespace's other policies")
	require.Equal(t, Applied, policies[1].State)
}

// withoutSource returns the destinations without the policy's own.
func withoutSource(destinations []Destination) []Destination {
	for i := range destinations {
		destinations[i].Source = policy.Destination{}
	}
	return destinations
}

// TestPoliciesShowsEachField checks the fields that few policies have, and a destination that has expired.
func TestPoliciesShowsEachField(t *testing.T) {
	const document = `{"podSelector": {"matchLabels": {"app": "web"}}, "allowedDestinations": [
		{"name": "sts", "awsService": "amazon", "without": ["s3"], "regions": ["us-east-1"], "ports": [443], "reason": "tokens"},
		{"name": "net", "cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"], "ports": [443], "expires": "2027-04-05"},
		{"name": "old", "cidr": "192.168.0.0/24", "ports": [443], "expires": "2027-03-31"},
		{"name": "backend", "pods": {"app": "backend"}, "namespace": "shop", "ports": [8080]},
		{"name": "api", "entity": "kube-apiserver"}]}`
	table, err := awsranges.ReadFile("../../testdata/ranges/ip-ranges.json")
	require.NoError(t, err)
	now := time.Date(2027, 4, 1, 0, 0, 0, 0, time.UTC)
	object := netpol.Assess(configMap("egress", document), nil, netpol.Inputs{
		Table: table, Options: options, Now: now, APIServer: []netip.AddrPort{netip.MustParseAddrPort("172.20.0.1:443")},
	}).Desired[0]
	policies := Policies(Cluster{ConfigMaps: []*corev1.ConfigMap{configMap("egress", document)}, NetworkPolicies: []*networkingv1.NetworkPolicy{object}, Table: table, Options: options, Now: now})
	p := policies[0]
	require.Equal(t, Applied, p.State)
	require.Equal(t, "app=web", p.PodSelector)
	require.Equal(t, []string{
		"These destinations have expired and open nothing: old on 2027-03-31",
		"These destinations expire and then open nothing: within 7 days: net on 2027-04-05",
	}, p.Messages)
	text, err := json.Marshal(p.Destinations)
	require.NoError(t, err)
	require.JSONEq(t, `[
		{"name": "sts", "service": "AMAZON", "without": ["S3"], "regions": ["us-east-1"], "ports": ["TCP 443"], "cidrs": 2, "reason": "tokens"},
		{"name": "net", "cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"], "ports": ["TCP 443"], "cidrs": 8, "expires": "2027-04-06T00:00:00Z"},
		{"name": "old", "cidr": "192.168.0.0/24", "ports": ["TCP 443"], "expires": "2027-04-01T00:00:00Z", "expired": true},
		{"name": "backend", "peer": "pods app=backend of namespace shop", "ports": ["TCP 8080"]},
		{"name": "api", "peer": "kube-apiserver", "cidrs": 1}]`, string(text))
}
