package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"egress-agent/pkg/netpol"
)

func versionOf(rules ...networkingv1.NetworkPolicyEgressRule) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{Spec: networkingv1.NetworkPolicySpec{Egress: rules}}
}

// withDomains returns a version that opens names. domains is the value of netpol.DomainsAnnotation.
func withDomains(domains string) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{netpol.DomainsAnnotation: domains}}}
}

// rule returns a rule for CIDRs with TCP ports; none means every port.
func rule(cidrs string, ports ...int) networkingv1.NetworkPolicyEgressRule {
	var r networkingv1.NetworkPolicyEgressRule
	for _, cidr := range strings.Fields(cidrs) {
		r.To = append(r.To, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: cidr}})
	}
	for _, port := range ports {
		number, protocol := intstr.FromInt32(int32(port)), corev1.ProtocolTCP
		r.Ports = append(r.Ports, networkingv1.NetworkPolicyPort{Port: &number, Protocol: &protocol})
	}
	return r
}

func podRule(app string, ports ...int) networkingv1.NetworkPolicyEgressRule {
	r := rule("", ports...)
	r.To = []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}}}
	return r
}

func TestCompare(t *testing.T) {
	name := intstr.FromString("https")
	named := rule("10.1.0.0/24")
	named.Ports = []networkingv1.NetworkPolicyPort{{Port: &name}}
	except := rule("10.0.0.0/8", 443)
	except.To[0].IPBlock.Except = []string{"10.1.0.0/16"}
	first := intstr.FromInt32(8000)
	last, udp := int32(8100), corev1.ProtocolUDP
	ports := rule("10.1.0.0/24")
	ports.Ports = []networkingv1.NetworkPolicyPort{{Port: &first, EndPort: &last, Protocol: &udp}, {}}
	for _, test := range []struct {
		name           string
		old, new       *networkingv1.NetworkPolicy
		opened, closed string
	}{
		{"created", nil, versionOf(rule("10.1.0.0/24 10.3.0.0/24", 443)), `[{"to":["10.1.0.0/24","10.3.0.0/24"],"ports":["TCP 443"]}]`, `null`},
		{"deleted", versionOf(rule("10.1.0.0/24", 443)), nil, `null`, `[{"to":["10.1.0.0/24"],"ports":["TCP 443"]}]`},
		{"equal in another shape", versionOf(rule("10.0.0.0/25 10.0.0.128/25", 443)), versionOf(rule("10.0.0.0/24", 443)), `null`, `null`},
		{"a part", versionOf(rule("10.0.0.0/24", 443)), versionOf(rule("10.0.0.0/25", 443, 80)), `[{"to":["10.0.0.0/25"],"ports":["TCP 80"]}]`, `[{"to":["10.0.0.128/25"],"ports":["TCP 443"]}]`},
		{"every port", versionOf(rule("10.0.0.0/24", 443)), versionOf(rule("10.1.0.0/24")), `[{"to":["10.1.0.0/24"]}]`, `[{"to":["10.0.0.0/24"],"ports":["TCP 443"]}]`},
		{"everything", versionOf(rule("128.0.0.0/1", 443)), versionOf(networkingv1.NetworkPolicyEgressRule{}),
			`[{"to":["0.0.0.0/1","::/0"]},{"to":["128.0.0.0/1"],"ports":["SCTP 1-65535","TCP 1-442","TCP 444-65535","UDP 1-65535"]}]`, `null`},
		{"pods", versionOf(podRule("a", 80), podRule("b", 80)), versionOf(podRule("a", 80), podRule("c", 80)), `[{"to":["pods app=c"],"ports":["TCP 80"]}]`, `[{"to":["pods app=b"],"ports":["TCP 80"]}]`},
		{"pods with other ports", versionOf(podRule("a", 80)), versionOf(podRule("a", 80), podRule("a", 81)), `[{"to":["pods app=a"],"ports":["TCP 80","TCP 81"]}]`, `[{"to":["pods app=a"],"ports":["TCP 80"]}]`},
		{"domains", withDomains(`[{"domains":["a.example.com","b.example.com"],"ports":[{"protocol":"TCP","port":443}]}]`), withDomains(`[{"domains":["b.example.com"],"ports":[{"protocol":"TCP","port":443}]},{"domains":["*.c.example.com"]}]`),
			`[{"to":["*.c.example.com"]}]`, `[{"to":["a.example.com"],"ports":["TCP 443"]}]`},
		{"a named port", nil, versionOf(named), `[{"to":["10.1.0.0/24 on [{\"port\":\"https\"}]"]}]`, `null`},
		{"except", nil, versionOf(except), `[{"to":["10.0.0.0/8 except [10.1.0.0/16]"],"ports":["TCP 443"]}]`, `null`},
		{"ranges and a port without a number", nil, versionOf(ports), `[{"to":["10.1.0.0/24"],"ports":["TCP 1-65535","UDP 8000-8100"]}]`, `null`},
	} {
		t.Run(test.name, func(t *testing.T) {
			change := Compare(test.old, test.new)
			require.Empty(t, change.Unknown)
			opened, err := json.Marshal(change.Opened)
			require.NoError(t, err)
			closed, err := json.Marshal(change.Closed)
			require.NoError(t, err)
			require.Equal(t, test.opened, string(opened))
			require.Equal(t, test.closed, string(closed))
		})
	}
}

func TestCompareIsCapped(t *testing.T) {
	var cidrs []string
	for i := range 150 {
		cidrs = append(cidrs, fmt.Sprintf("10.%d.0.0/24", i))
	}
	change := Compare(nil, versionOf(rule(strings.Join(cidrs, " "), 443), podRule("a", 80)))
	require.Len(t, change.Opened, 1)
	require.Len(t, change.Opened[0].To, maxTo)
	require.Equal(t, 51, change.OpenedMore)
}

func TestLogWritesOneLine(t *testing.T) {
	var out bytes.Buffer
	log := NewLog(&out, "egress-webhook", func() time.Time { return time.Date(2026, 11, 27, 12, 0, 0, 0, time.FixedZone("", 3600)) })
	log.Write(Entry{Event: Admitted, Namespace: "shop", Name: "web", User: strings.Repeat("u", 300) + "\n", Groups: 2, Operation: "CREATE", Warnings: make([]string, 50)})
	require.Equal(t, 1, strings.Count(out.String(), "\n"))
	var e Entry
	require.NoError(t, json.Unmarshal(out.Bytes(), &e))
	require.True(t, e.Audit)
	require.Equal(t, "2026-11-27T11:00:00Z", e.Time.Format(time.RFC3339))
	require.Len(t, []rune(e.User), maxText)
	require.Len(t, e.Warnings, maxWarnings)
	var none *Log
	none.Write(Entry{})
}
