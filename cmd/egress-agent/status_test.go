package main

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/cmd/egress-agent/internal/page"
	"egress-agent/cmd/internal/cli"
	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/platform"
	"egress-agent/pkg/policy"
	"egress-agent/pkg/status"
)

// hostile is a name of a destination that a tenant may choose.
const hostile = `</script><script>alert(1)</script>"'&` + "`"

// sampleReport returns a report with policies in several states, and the table of its ranges.
func sampleReport(t *testing.T) (*status.Report, *awsranges.Table) {
	table, err := awsranges.ReadFile(ranges)
	require.NoError(t, err)
	cluster := status.Cluster{Table: table, Options: netpol.Options{Family: netpol.IPv4, AllowDNS: true, MaxPortSlots: netpol.DefaultPortSlots}}
	confirmed := time.Date(2026, 11, 24, 7, 30, 0, 0, time.UTC)
	add := func(namespace, name, document string) *corev1.ConfigMap {
		configMap := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: "uid"}, Data: map[string]string{policy.Key: document}}
		cluster.ConfigMaps = append(cluster.ConfigMaps, configMap)
		return configMap
	}
	apply := func(configMap *corev1.ConfigMap, table *awsranges.Table) {
		compiled := netpol.CompileConfigMap(configMap, netpol.Inputs{
			Table: table, Options: cluster.Options, Now: confirmed, APIServer: []netip.AddrPort{netip.MustParseAddrPort("172.20.0.1:443")},
		})
		require.Empty(t, compiled.Problems)
		cluster.NetworkPolicies = append(cluster.NetworkPolicies, netpol.NetworkPolicyFor(configMap, compiled))
	}
	const s3AndDatabase = `{"allowedDestinations": [{"name": "s3", "awsService": "s3", "regions": ["us-east-1", "us-west-2"], "ports": [443]}, {"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]}]}`
	apply(add("tenant-a", "egress", s3AndDatabase), table)
	apply(add("tenant-a", "names", `{"allowedDestinations": [{"name": "`+strings.ReplaceAll(hostile, `"`, `\"`)+`", "cidr": "10.2.0.0/16"}]}`), table)
	apply(add("tenant-b", "open", `{"defaultAction": "allow", "allowedDestinations": []}`), table)
	add("tenant-b", "waits", s3AndDatabase)
	invalid := add("tenant-c", "typo", `{"allowedDestinations": [{"name": "s3", "awsService": "s3", "regions": ["us-east-1"], "ports": [443]}]}`)
	apply(invalid, table)
	invalid.Data[policy.Key] = `{"allowedDestinations": [{"name": "s3", "awsService": "<b>s4</b>"}]}`
	add("tenant-c", "taken", s3AndDatabase)
	apply(add("tenant-d", "partly", s3AndDatabase), nil)
	const eachField = `{"podSelector": {"matchLabels": {"app": "web"}}, "allowedDestinations": [
		{"name": "sts", "awsService": "amazon", "without": ["s3"], "regions": ["us-east-1"], "ports": [443], "reason": "<b>tokens</b>"},
		{"name": "net", "cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"], "ports": [443], "expires": "2026-11-30"},
		{"name": "old", "cidr": "192.168.0.0/24", "ports": [443], "expires": "2026-10-31"},
		{"name": "backend", "pods": {"app": "backend"}, "namespace": "shop", "ports": [8080]},
		{"name": "api", "entity": "kube-apiserver"}]}`
	apply(add("tenant-e", "fields", eachField), table)
	baseline, problems := platform.Parse([]byte(`{"namespaces": {}, "allowedDestinations": [], "guardrails": {"require": ["reason"], "maxDays": 30}}`), policy.Names{})
	require.Empty(t, problems)
	documents := []netpol.PlatformDocument{{Name: "baseline", Document: baseline}}
	cluster.Governing = func(namespace string) []netpol.PlatformDocument {
		if namespace != "tenant-d" {
			return nil
		}
		return documents
	}
	base := netpol.BaseConfigMap("tenant-d", documents[0])
	compiledBase := netpol.CompileConfigMap(base, netpol.Inputs{Table: table, Options: cluster.Options, Origin: netpol.Origin{Kind: netpol.Base, Source: "egress-system/baseline"}})
	require.Empty(t, compiledBase.Problems)
	cluster.NetworkPolicies = append(cluster.NetworkPolicies, netpol.NetworkPolicyFor(base, compiledBase))
	rule := networkingv1.NetworkPolicyEgressRule{To: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8"}}}}
	addNetworkPolicy := func(namespace, name string, labels map[string]string, rules ...networkingv1.NetworkPolicyEgressRule) {
		cluster.NetworkPolicies = append(cluster.NetworkPolicies, &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			Spec: networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}, PodSelector: metav1.LabelSelector{MatchLabels: labels}, Egress: rules}})
	}
	addNetworkPolicy("tenant-c", "taken", nil, rule)
	addNetworkPolicy("tenant-a", "legacy", nil, networkingv1.NetworkPolicyEgressRule{})
	addNetworkPolicy("tenant-a", "web", map[string]string{"app": "web"}, rule)
	inUse := status.NewRanges("ConfigMap egress-system/egress-ranges", table)
	inUse.Confirmed = &confirmed
	return status.NewReport("https://10.0.0.1:6443", confirmed.Add(5*time.Hour+31*time.Minute), inUse, cluster), table
}

// TestStatusGolden compares the output of status with testdata/status. UPDATE_GOLDEN=1 rewrites the files.
func TestStatusGolden(t *testing.T) {
	const dir = "../../testdata/status"
	files := map[string]string{"text": "table.txt", "wide": "wide.txt", "json": "report.json", "html": "page.html", "markdown": "report.md", "csv": "report.csv", "report": "openreports.yaml"}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, len(files)+1, "each golden needs a test, and each test a golden")
	check := func(file, got string) {
		if os.Getenv("UPDATE_GOLDEN") != "" {
			require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(got), 0o644))
		}
		want, err := os.ReadFile(filepath.Join(dir, file))
		require.NoError(t, err)
		require.Equal(t, string(want), got, file)
	}
	for format, file := range files {
		r, table := sampleReport(t)
		var stdout, stderr bytes.Buffer
		require.Equal(t, cli.ExitInvalid, writeReport(r, table, format, "egress-agent status", &stdout, &stderr))
		check(file, stdout.String())
		if format == "text" || format == "wide" {
			check("reasons.txt", stderr.String())
		} else {
			require.Empty(t, stderr.String(), "the output has the reasons")
		}
	}
}

func TestStatusExitStatus(t *testing.T) {
	r, table := sampleReport(t)
	r.Policies = r.Policies[:2]
	for _, format := range []string{"text", "wide", "json", "html"} {
		require.Equal(t, cli.ExitOK, writeReport(r, table, format, "", &bytes.Buffer{}, &bytes.Buffer{}), "both are applied")
	}
	r.Policies = nil
	var stdout bytes.Buffer
	require.Equal(t, cli.ExitOK, writeReport(r, table, "text", "", &stdout, &bytes.Buffer{}))
	require.Empty(t, stdout.String())
	require.Equal(t, "No policies found.", noPoliciesMessage(""))
	require.Equal(t, "No policies found in tenant-a namespace.", noPoliciesMessage("tenant-a"))
}

// TestStatusShowsTraffic prints what policies would deny, and which destinations no connection used.
func TestStatusShowsTraffic(t *testing.T) {
	r, table := sampleReport(t)
	r.Policies = r.Policies[:1]
	used, unused := 12, 0
	r.Policies[0].Destinations[0].Flows, r.Policies[0].Destinations[1].Flows = &used, &unused
	r.Traffic = []status.Traffic{{Namespace: "tenant-a", Flows: 1250, Unused: []string{"egress/db"}}}
	for i := range 12 {
		r.Traffic[0].Denied = append(r.Traffic[0].Denied, status.DeniedFlows{Destination: fmt.Sprintf("10.9.0.%d:443/TCP", i), Sources: 2, Records: 3})
	}
	for format, last := range map[string]string{
		"text": "tenant-a: and 2 more destinations; -o wide shows all\n", "wide": "tenant-a: would be denied: 10.9.0.11:443/TCP (sources: 2, records: 3)\n",
	} {
		var stdout, stderr bytes.Buffer
		require.Equal(t, cli.ExitInvalid, writeReport(r, table, format, "", &stdout, &stderr))
		require.Equal(t, "NAMESPACE   FLOWS   DENIED   UNUSED\ntenant-a    1250    12       1\n", stdout.String())
		require.Contains(t, stderr.String(), "tenant-a: would be denied: 10.9.0.0:443/TCP (sources: 2, records: 3)\n")
		require.Contains(t, stderr.String(), last+"tenant-a/egress/db: unused: no connection used it\n")
	}
	var html bytes.Buffer
	require.Equal(t, cli.ExitInvalid, writeReport(r, table, "html", "", &html, &bytes.Buffer{}))
	require.Equal(t, 1, strings.Count(html.String(), "used by 12 connections of the logs"))
	require.Equal(t, 1, strings.Count(html.String(), "unused: no connection of the logs"))
	r.Traffic[0].Denied = nil
	require.Equal(t, cli.ExitOK, writeReport(r, table, "text", "", &bytes.Buffer{}, &bytes.Buffer{}))
}

func TestStatusColoursStates(t *testing.T) {
	r, _ := sampleReport(t)
	require.Equal(t, "HEADING Applied\ntenant-a   \x1b[32mApplied\x1b[0m   1\ntenant-b   \x1b[31mInvalid\x1b[0m\ntenant-c   \x1b[33mPending\x1b[0m\n",
		colourStates("HEADING Applied\ntenant-a   Applied   1\ntenant-b   Invalid\ntenant-c   Pending\n",
			[]status.Policy{{State: status.Applied}, {State: status.Invalid}, {State: status.Pending}}))
	var text bytes.Buffer
	require.NoError(t, writeTable(&text, r, false))
	require.NotContains(t, text.String(), "\x1b", "output that is not a terminal has no colours")
}

// TestPageEscapes puts markup into each text that a tenant or the author of a NetworkPolicy can write.
func TestPageEscapes(t *testing.T) {
	r, table := sampleReport(t)
	r.Cluster, r.Ranges.Source, r.Ranges.Refused = hostile, hostile, hostile
	for i := range r.Policies {
		p := &r.Policies[i]
		p.Namespace, p.Name, p.NetworkPolicy, p.Messages = hostile, hostile, hostile, []string{hostile}
		p.Destinations = []status.Destination{{Name: hostile, CIDR: hostile, Ports: []string{hostile}}, {Name: hostile, Service: hostile, Regions: []string{hostile}}, {Name: hostile, Service: "S3", Regions: []string{hostile}}}
		p.OtherPolicies = []status.OtherPolicy{{Name: hostile, PodSelector: hostile}}
	}
	template, err := os.ReadFile("internal/page/page.html")
	require.NoError(t, err)
	var html bytes.Buffer
	require.NoError(t, page.Write(&html, r, table))
	require.Equal(t, strings.Count(string(template), "<script"), strings.Count(html.String(), "<script"))
	require.Equal(t, strings.Count(string(template), "</script"), strings.Count(html.String(), "</script"))
	require.NotContains(t, html.String(), `"'&`)
	require.Contains(t, html.String(), "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&amp;`")
}

// TestPageHasPrefixesOnce writes the page for a thousand policies that name the same large service.
func TestPageHasPrefixesOnce(t *testing.T) {
	r, table := manyPolicies(t, 1000)
	var html bytes.Buffer
	require.NoError(t, page.Write(&html, r, table))
	require.Equal(t, 1, strings.Count(html.String(), "198.18.16.0/20"))
	require.Equal(t, 1000, strings.Count(html.String(), ` class="item policy all Applied"`))
	require.Less(t, html.Len(), 1500*1000, "bytes, at 1,500 a policy")
	again := html.String()
	html.Reset()
	require.NoError(t, page.Write(&html, r, table))
	require.Equal(t, again, html.String(), "equal input gives equal bytes")
}

func manyPolicies(t *testing.T, n int) (*status.Report, *awsranges.Table) {
	table, err := awsranges.ReadFile(ranges)
	require.NoError(t, err)
	cluster := status.Cluster{Table: table, Options: netpol.Options{Family: netpol.IPv4, AllowDNS: true, MaxPortSlots: netpol.DefaultPortSlots}}
	for i := range n {
		configMap := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: fmt.Sprintf("tenant-%04d", i), Name: "egress"}, Data: map[string]string{policy.Key: fmt.Sprintf(
			`{"allowedDestinations": [{"name": "aws", "awsService": "amazon", "ports": [443]}, {"name": "db", "cidr": "10.%d.%d.0/24", "ports": [5432]}]}`, i/256, i%256)}}
		compiled := netpol.CompileConfigMap(configMap, netpol.Inputs{Table: table, Options: cluster.Options})
		require.Empty(t, compiled.Problems)
		cluster.ConfigMaps = append(cluster.ConfigMaps, configMap)
		cluster.NetworkPolicies = append(cluster.NetworkPolicies, netpol.NetworkPolicyFor(configMap, compiled))
	}
	return &status.Report{Cluster: "https://10.0.0.1:6443", Policies: status.Policies(cluster)}, table
}

// TestStatusExplainsWrongUsage checks the errors that status finds without a cluster.
func TestStatusExplainsWrongUsage(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	t.Setenv("KUBECONFIG", filepath.Join(dir, "none"))
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	notYAML, noServer := write("not-yaml", "clusters: [\n"), write("no-server", "apiVersion: v1\nkind: Config\ncurrent-context: gone\n")
	for _, test := range []struct {
		name   string
		args   []string
		stderr string
	}{
		{"format", []string{"-o", "yaml"}, "egress-agent status: invalid -o \"yaml\": must be text, wide, json, html, markdown, csv or report\nRun 'egress-agent status --help' for usage.\n"},
		{"namespace", []string{"-n", "Tenant A"}, "egress-agent status: invalid -n \"Tenant A\": "},
		{"argument", []string{"tenant-a"}, "egress-agent status: unexpected argument \"tenant-a\"\n"},
		{"no kubeconfig", nil, "egress-agent status: no cluster: kubeconfig " + dir + "/none is missing or empty; give --kubeconfig FILE or set KUBECONFIG\n"},
		{"missing", []string{"--kubeconfig", dir + "/missing"}, "egress-agent status: kubeconfig " + dir + "/missing: stat " + dir + "/missing: no such file or directory; correct it or give another one with --kubeconfig FILE\n"},
		{"not YAML", []string{"--kubeconfig", notYAML}, "egress-agent status: kubeconfig " + notYAML + ": error loading config file"},
		{"no such context", []string{"--kubeconfig", noServer}, "egress-agent status: kubeconfig " + noServer + ": "},
		{"ranges", []string{"--ranges-file", dir + "/missing"}, "egress-agent status: open " + dir + "/missing: no such file or directory\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, stdout, stderr := shell(t, "", append([]string{"status"}, test.args...)...)
			require.Equal(t, 2, status)
			require.Empty(t, stdout)
			require.True(t, strings.HasPrefix(stderr, test.stderr), stderr)
			if !strings.Contains(stderr, "for usage") {
				require.Equal(t, 1, strings.Count(stderr, "\n"), "one line: %s", stderr)
			}
		})
	}
}

// TestCSVRunsNoFormula writes destinations whose names a spreadsheet would take for a formula.
func TestCSVRunsNoFormula(t *testing.T) {
	report := &status.Report{Policies: []status.Policy{{Namespace: "a", Name: "p"}}}
	for _, name := range []string{"=HYPERLINK(1)", "+1", "-1", "@SUM", "\tx", "plain"} {
		report.Policies[0].Destinations = append(report.Policies[0].Destinations, status.Destination{Name: name, CIDR: "10.0.0.0/8"})
	}
	var out bytes.Buffer
	require.NoError(t, writeCSV(&out, report))
	rows, err := csv.NewReader(&out).ReadAll()
	require.NoError(t, err)
	var names []string
	for _, row := range rows[1:] {
		names = append(names, row[7])
	}
	require.Equal(t, []string{"'=HYPERLINK(1)", "'+1", "'-1", "'@SUM", `\tx`, "plain"}, names)
}
