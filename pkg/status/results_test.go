package status

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestResults(t *testing.T) {
	const document = `{"allowedDestinations": [
		{"name": "good", "cidr": "10.1.0.0/24", "ports": [443], "reason": "db", "expires": "2027-12-31"},
		{"name": "wide", "cidr": "10.0.0.0/7", "ports": [443], "reason": "x"}, {"name": "limit", "cidr": "11.0.0.0/8", "ports": [443], "reason": "x"},
		{"name": "open", "cidr": "10.3.0.0/24", "reason": "x"}, {"name": "api", "entity": "kube-apiserver", "reason": "x"},
		{"name": "s3", "awsService": "s3", "ports": [443], "reason": "x"}, {"name": "bare", "cidr": "10.4.0.0/24", "ports": [1]},
		{"name": "soon", "cidr": "10.5.0.0/24", "ports": [1], "reason": "x", "expires": "2026-12-26"}, {"name": "later", "cidr": "10.6.0.0/24", "ports": [1], "reason": "x", "expires": "2026-12-27"},
		{"name": "past", "cidr": "10.7.0.0/24", "ports": [1], "reason": "x", "expires": "2026-01-31"}]}`
	now := time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)
	foreign := func(name string, rule networkingv1.NetworkPolicyEgressRule) *networkingv1.NetworkPolicy {
		return &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant-a", Name: name, Labels: map[string]string{"app.kubernetes.io/managed-by": "egress-agent"}},
			Spec: networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}, Egress: []networkingv1.NetworkPolicyEgressRule{rule}}}
	}
	block := networkingv1.NetworkPolicyEgressRule{To: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8"}}}}
	cluster := Cluster{
		ConfigMaps: []*corev1.ConfigMap{configMap("web", document), configMap("bad", invalid), configMap("watch", open), configMap("waits", document)},
		NetworkPolicies: []*networkingv1.NetworkPolicy{made(t, "web", document, testTable(t)), made(t, "watch", open, testTable(t)),
			foreign("all", networkingv1.NetworkPolicyEgressRule{}), foreign("some", block)},
		Options: options, Table: testTable(t), Now: now,
	}
	var found []string
	for _, r := range Results(Policies(cluster), now) {
		if r.Policy != "waits" || r.Rule == RuleApplied {
			found = append(found, fmt.Sprintf("%s %s %s %s/%s", r.Outcome, r.Severity, r.Rule, r.Policy, r.Destination))
		}
		require.NotEmpty(t, r.Message)
	}
	require.Equal(t, []string{
		"fail high applied bad/", "fail high everything watch/", "fail high wide web/wide", "fail high leak all/", "fail medium every-port web/open",
		"warn medium applied waits/", "warn medium expiry web/soon", "warn medium leak some/",
		"warn low every-region web/s3", "warn low reason web/bare", "warn low expiry web/past",
		"pass info applied watch/", "pass info applied web/",
	}, found)
}

// TestOpenReportIsBounded has a namespace with more results than a report may have.
func TestOpenReportIsBounded(t *testing.T) {
	report := &Report{Policies: []Policy{{Namespace: "a", Name: "p", State: Applied, Messages: []string{strings.Repeat("é", 5000)}}}}
	require.Equal(t, OpenReportSummary{Pass: 1}, report.OpenReports()[0].Summary)
	require.Equal(t, maxReportMessage, len([]rune(report.OpenReports()[0].Results[0].Message)))
	for i := range maxReportResults {
		report.Policies[0].Destinations = append(report.Policies[0].Destinations, Destination{Name: fmt.Sprint(i), CIDR: "10.0.0.0/24", Ports: []string{"TCP 1"}})
	}
	got := report.OpenReports()[0]
	require.Len(t, got.Results, maxReportResults)
	require.Equal(t, OpenReportSummary{Warn: maxReportResults - 1, Skip: 1}, got.Summary)
	require.Equal(t, "further results, none of them worse: 2; egress-agent status shows all", got.Results[maxReportResults-1].Message)
	report.Policies[0].Destinations = report.Policies[0].Destinations[1:]
	require.Equal(t, OpenReportSummary{Warn: maxReportResults - 1, Pass: 1}, report.OpenReports()[0].Summary, "as many as fit")
	require.Equal(t, []OpenReport{}, (&Report{}).OpenReports())
}
