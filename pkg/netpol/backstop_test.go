package netpol

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"egress-agent/pkg/internal/policytest"
	"egress-agent/pkg/platform"
	"egress-agent/pkg/policy"
)

func TestBackstop(t *testing.T) {
	table, options := testTable(t), Options{Family: IPv4}
	document := platformDocument(t, "baseline", `"allowedDestinations": [{"name": "relay", "cidr": "10.3.0.25/32", "ports": [25]}], "guardrails": {"denied": [
		{"name": "metadata", "cidr": "169.254.169.254/32"}, {"name": "mail", "cidr": "10.3.0.24/31", "ports": [25, {"port": 465, "endPort": 587}]}]}`)
	backstop, err := Backstop(document, []PlatformDocument{document}, table, options, DefaultNamespace)
	require.NoError(t, err)
	data, err := json.Marshal(backstop)
	require.NoError(t, err)
	require.JSONEq(t, `{"apiVersion": "networking.k8s.aws/v1alpha1", "kind": "ClusterNetworkPolicy",
		"metadata": {"name": "egress-platform-baseline", "labels": {"app.kubernetes.io/managed-by": "egress-agent"}},
		"spec": {"tier": "Admin", "priority": 100,
			"subject": {"namespaces": {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", "kube-public", "kube-node-lease", "egress-system"]}]}},
			"egress": [
				{"name": "metadata", "action": "Deny", "to": [{"networks": ["169.254.169.254/32"]}]},
				{"name": "mail", "action": "Deny", "to": [{"networks": ["10.3.0.24/32"]}], "ports": [{"portNumber": {"protocol": "TCP", "port": 25}}, {"portRange": {"protocol": "TCP", "start": 465, "end": 587}}]},
				{"name": "mail-3", "action": "Deny", "to": [{"networks": ["10.3.0.25/32"]}], "ports": [{"portRange": {"protocol": "TCP", "start": 465, "end": 587}}]}]}}`, string(data))
	for name, other := range map[string]PlatformDocument{
		"warn":   platformDocument(t, "warn", `"guardrails": {"mode": "warn", "denied": [{"name": "a", "cidr": "10.0.0.0/8"}]}`),
		"within": platformDocument(t, "within", `"guardrails": {"within": [{"name": "a", "cidr": "10.0.0.0/8"}]}`),
		"opened": platformDocument(t, "opened", `"allowedDestinations": [{"name": "a", "cidr": "10.0.0.0/8"}], "guardrails": {"denied": [{"name": "a", "cidr": "10.1.0.0/16"}]}`),
	} {
		none, err := Backstop(other, []PlatformDocument{other}, table, options, DefaultNamespace)
		require.NoError(t, err)
		require.Nil(t, none, name)
	}
	service := platformDocument(t, "service", `"guardrails": {"denied": [{"name": "buckets", "awsService": "s3"}]}`)
	_, err = Backstop(service, nil, nil, options, DefaultNamespace)
	require.EqualError(t, err, "buckets: the ranges of s3 are not loaded; give --ranges-file")
}

func TestBackstopStaysWithinLimits(t *testing.T) {
	var entries []policy.Destination
	for i := range 2600 { // no two are siblings
		entries = append(entries, policy.Destination{Name: fmt.Sprint("a", i), CIDR: netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/32", i/250, i%250))})
	}
	document := PlatformDocument{"many", &platform.Document{Guardrails: platform.Guardrails{Mode: platform.Enforce, Denied: entries}}}
	_, err := Backstop(document, nil, nil, Options{Family: IPv4}, DefaultNamespace)
	require.EqualError(t, err, "a100: a ClusterNetworkPolicy has at most 100 rules of 2500 CIDRs each: split the document")
	var ports []string
	for port := 1; port <= 202; port += 2 {
		ports = append(ports, fmt.Sprint(port))
	}
	_, err = Backstop(platformDocument(t, "ports", `"guardrails": {"denied": [{"name": "a", "cidr": "10.0.0.0/8", "ports": [`+strings.Join(ports, ",")+`]}]}`), nil, nil, Options{Family: IPv4}, DefaultNamespace)
	require.EqualError(t, err, "a: 101 ports and port ranges: a rule of a ClusterNetworkPolicy has at most 100")
}

// The backstop denies exactly what the document denies and no base opens.
func TestBackstopMatchesNaiveReading(t *testing.T) {
	table, random := testTable(t), rand.New(rand.NewPCG(7, 7))
	for range rounds(300) {
		documents := randomDocuments(random)
		for _, document := range documents {
			document.Guardrails.Mode = platform.Enforce
			backstop, err := Backstop(document, documents, table, Options{Family: Dual}, DefaultNamespace)
			require.NoError(t, err)
			for _, address := range policytest.ProbeAddresses(&policy.Policy{Destinations: document.Guardrails.Denied}, table, random) {
				for _, port := range []uint16{1, 53, 80, 443, 65535} {
					want := policyAllows(&policy.Policy{Destinations: document.Guardrails.Denied}, table, Dual, address, policy.TCP, port)
					for _, other := range documents {
						if other.Base != nil && policyAllows(other.Base, table, Dual, address, policy.TCP, port) {
							want = false
						}
					}
					require.Equal(t, want, denies(backstop, address, int(port)), "%s %d", address, port)
				}
			}
		}
	}
}

func denies(backstop *ClusterNetworkPolicy, address netip.Addr, port int) bool {
	if backstop == nil {
		return false
	}
	for _, rule := range backstop.Spec.Egress {
		hasPort := rule.Ports == nil
		for _, p := range rule.Ports {
			hasPort = hasPort || p.PortNumber != nil && p.PortNumber.Protocol == "TCP" && p.PortNumber.Port == port ||
				p.PortRange != nil && p.PortRange.Protocol == "TCP" && p.PortRange.Start <= port && port <= p.PortRange.End
		}
		for _, peer := range rule.To {
			for _, network := range peer.Networks {
				if hasPort && netip.MustParsePrefix(network).Contains(address) {
					return true
				}
			}
		}
	}
	return false
}
