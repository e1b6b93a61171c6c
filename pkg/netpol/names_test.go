package netpol

import (
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/policy"
)

// warningCases are the warnings that need a table, or another address family than the corpus.
var warningCases = []struct {
	name, destination string
	family            Family
	want              []string
}{
	{"addresses are counted", `"name": "s3", "awsService": "s3", "regions": ["us-east-1"]`, IPv4,
		[]string{"s3 opens S3, which also covers every AWS customer's buckets: 512 IPv4 addresses (allowedDestinations[0].awsService)"}},
	{"in both families", `"name": "s3", "awsService": "s3", "regions": ["us-east-1"]`, Dual,
		[]string{"s3 opens S3, which also covers every AWS customer's buckets: 512 IPv4 addresses and over 2^65 IPv6 addresses (allowedDestinations[0].awsService)"}},
	{"in IPv6", `"name": "s3", "awsService": "s3", "regions": ["us-east-1"]`, IPv6,
		[]string{"s3 opens S3, which also covers every AWS customer's buckets: over 2^65 IPv6 addresses (allowedDestinations[0].awsService)"}},
	{"a service without the family", `"name": "things", "awsService": "iot-core", "regions": ["us-east-1"]`, IPv4,
		[]string{"things opens nothing: IOT_CORE has no IPv4 prefixes in its regions (allowedDestinations[0])"}},
	{"a service with the family", `"name": "things", "awsService": "iot-core", "regions": ["us-east-1"]`, Dual, nil},
	{"one region without", `"name": "cdn", "awsService": "cloudfront", "regions": ["us-east-1", "GLOBAL"]`, IPv4,
		[]string{"cdn opens CLOUDFRONT, which also covers every AWS customer's distributions: 256 IPv4 addresses (allowedDestinations[0].awsService)",
			"cdn opens nothing in us-east-1: CLOUDFRONT has no IPv4 prefixes there (allowedDestinations[0].regions[0])"}},
	{"a published service that the table lacks", `"name": "flows", "awsService": "amazon_appflow", "regions": ["us-east-1"]`, IPv4,
		[]string{"flows opens nothing: AMAZON_APPFLOW has no IPv4 prefixes in its regions (allowedDestinations[0])"}},
	{"called from", `"name": "hooks", "awsService": "api_gateway", "regions": ["us-east-1"]`, IPv4,
		[]string{"hooks names API_GATEWAY, from where AWS connects to you; pods do not connect to it (allowedDestinations[0].awsService)",
			"hooks opens nothing: API_GATEWAY has no IPv4 prefixes in its regions (allowedDestinations[0])"}},
	{"an IPv4 CIDR on IPv6", `"name": "db", "cidr": "10.1.0.0/24"`, IPv6,
		[]string{"db opens nothing: 10.1.0.0/24 is not in the cluster's address family, IPv6 (allowedDestinations[0].cidr)"}},
}

func TestWarnings(t *testing.T) {
	for _, test := range warningCases {
		t.Run(test.name, func(t *testing.T) {
			document, problems := policy.Parse([]byte(`{"allowedDestinations": [{"ports": [443], ` + test.destination + `}]}`))
			require.Empty(t, problems)
			p, problems := policy.Validate(document, policy.Names{AWS: NameCheck(testTable(t))})
			require.Empty(t, problems)
			var got []string
			result, problems := compile(p, testTable(t), Options{Family: test.family})
			require.Empty(t, problems)
			for _, warning := range result.Warnings {
				got = append(got, warning.String())
			}
			require.Equal(t, test.want, got)
		})
	}
}

// objectMessages returns the messages about a ConfigMap itself, and not about its policy.json.
func objectMessages() policy.Problems {
	messages := policy.ObjectWarnings("egress-9bc7dm28fk", nil, map[string]string{
		"argocd.argoproj.io/sync-options": "Replace=true,Force=true", "kustomize.toolkit.fluxcd.io/force": "enabled", "helm.sh/hook": "pre-upgrade",
	})
	for _, binary := range []string{"\xff\xfe", "{}"} {
		_, problems := compileDocument(&corev1.ConfigMap{BinaryData: map[string][]byte{policy.Key: []byte(binary)}}, nil, Options{})
		messages = append(messages, problems...)
	}
	_, problems := compileDocument(&corev1.ConfigMap{Data: map[string]string{"Policy.json": "{}"}}, nil, Options{})
	return append(messages, problems...)
}

// TestDocumentedMessages requires that each message in the tables of WEBHOOK.md is a message of the corpus or of
// warningCases. Only the name and the path of the destination may differ.
func TestDocumentedMessages(t *testing.T) {
	var messages []string
	for _, pattern := range []string{"invalid/*.err", "valid/*.warn", "../platform/invalid/*.err"} {
		paths, err := filepath.Glob(filepath.Join(corpus, pattern))
		require.NoError(t, err)
		for _, path := range paths {
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			messages = append(messages, strings.Split(string(data), "\n")...)
		}
	}
	_, keyless := compileDocument(&corev1.ConfigMap{}, nil, Options{})
	messages = append(append(messages, lines(keyless)...), lines(objectMessages())...)
	counts := func(n int) []Count { return []Count{{"b", 5}, {"big", n - 10}, {"c", 5}} }
	var many policy.Warnings
	warnOfPeers(maxPeersInOneStep+1, counts(maxPeersInOneStep+1), &many)
	ports := &policy.Policy{}
	for i := range 40 {
		ports.Destinations = append(ports.Destinations, policy.Destination{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i)}), 24), Ports: everyOther(1+2*i, 1000)})
	}
	_, tooMany := compile(ports, nil, Options{})
	messages = append(messages, lines(tooMany)...)
	exempt, problems := compileDocument(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system"}, Data: map[string]string{policy.Key: `{"allowedDestinations": []}`}}, nil, Options{})
	require.Empty(t, problems)
	messages = append(messages, lines(exempt.Warnings)...)
	for i := range 120 {
		many.Add(policy.EveryPort, i, "", "x opens every port and protocol; name ports to open fewer")
	}
	for _, large := range []string{strings.Repeat("x", policy.MaxDocumentBytes+1), `{"allowedDestinations": [` + strings.Repeat("1,", policy.MaxDestinations) + `1]}`} {
		_, problems := evaluate(large)
		messages = append(messages, lines(problems)...)
	}
	messages = append(append(messages, lines(many.List())...), lines(peerProblems(maxPeers+1, counts(maxPeers+1)))...)
	for _, test := range warningCases {
		messages = append(messages, test.want...)
	}
	messages = append(messages, platformMessages(t)...)
	messages = append(messages, expiryMessages(t)...)
	documentation, err := os.ReadFile("../../WEBHOOK.md")
	require.NoError(t, err)
	_, tables, _ := strings.Cut(string(documentation), "## What it refuses")
	tables, _, _ = strings.Cut(tables, "## Services")
	rows := regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(tables, -1)
	require.Greater(t, len(rows), 35)
	for _, row := range rows {
		quoted := strings.TrimSuffix(row[1], " (…)")
		found := false
		for _, line := range messages {
			_, afterName, _ := strings.Cut(line, " ")
			_, quotedAfterName, _ := strings.Cut(quoted, " ")
			found = found || strings.HasPrefix(line, quoted) || strings.HasPrefix(afterName, quotedAfterName+" (")
		}
		assert.True(t, found, "no policy gets the message %q", quoted)
	}
}

// expiryMessages are the messages about destinations that have expired or expire soon, and that pods of a governed
// namespace may not open.
func expiryMessages(t *testing.T) []string {
	const document = `{"allowedDestinations": [
		{"name": "vpn", "cidr": "10.0.0.0/24", "ports": [443], "expires": "2026-01-31"},
		{"name": "vpn2", "cidr": "10.0.1.0/24", "ports": [443], "expires": "2027-06-30"},
		{"name": "sts", "awsService": "amazon", "without": ["ec2"], "regions": ["us-east-1"], "ports": [443]}]}`
	documents := []PlatformDocument{platformDocument(t, "baseline", `"guardrails": {"maxDays": 90}`)}
	in := Inputs{Options: Options{Family: IPv4}, Now: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), Guardrails: NewGuardrails(documents, nil, IPv4)}
	compiled := CompileConfigMap(tenantPolicy(document), in)
	require.Empty(t, compiled.Problems)
	messages := append(lines(compiled.Refusals(nil)), lines(compiled.Warnings)...)
	in.Now = time.Date(2027, 3, 30, 0, 0, 0, 0, time.UTC)
	soon := CompileConfigMap(tenantPolicy(`{"allowedDestinations": [{"name": "vpn", "cidr": "10.0.0.0/24", "ports": [443], "expires": "2027-03-31"}]}`), in)
	messages = append(messages, lines(soon.Warnings)...)
	in.Guardrails = NewGuardrails([]PlatformDocument{platformDocument(t, "baseline", `"guardrails": {"denied": [{"name": "smtp", "cidr": "0.0.0.0/0", "ports": [25]}]}`)}, nil, IPv4)
	pods := CompileConfigMap(tenantPolicy(`{"allowedDestinations": [{"name": "backend", "pods": {"app": "backend"}, "ports": [25]}]}`), in)
	return append(messages, lines(pods.Refusals(nil))...)
}

// platformMessages are the messages about policies that platform documents refuse.
func platformMessages(t *testing.T) []string {
	guardrails := NewGuardrails([]PlatformDocument{
		platformDocument(t, "baseline", `"guardrails": {"denied": [{"name": "metadata", "cidr": "169.254.169.254/32", "reason": "node credentials"}], "require": ["reason", "deny"]}`),
		platformDocument(t, "region", `"guardrails": {"within": [{"name": "aws-eu", "cidr": "169.254.0.0/16"}, {"name": "corporate", "cidr": "10.0.0.0/8"}]}`),
	}, nil, IPv4)
	var messages []string
	for _, document := range []string{
		`{"allowedDestinations": [{"name": "all", "cidr": "10.0.0.0/7", "ports": [443]}]}`,
		`{"allowedDestinations": [{"name": "web", "cidr": "169.254.169.254/32", "ports": [443]}]}`,
		`{"defaultAction": "allow", "allowedDestinations": []}`,
	} {
		compiled := CompileConfigMap(tenantPolicy(document), Inputs{Options: Options{Family: IPv4}, Guardrails: guardrails})
		require.Empty(t, compiled.Problems)
		messages = append(messages, lines(compiled.Refusals(nil))...)
	}
	reserved := tenantPolicy(`{}`)
	reserved.Name = "egress-platform-x"
	return append(messages, lines(CompileConfigMap(reserved, Inputs{}).Problems)...)
}
