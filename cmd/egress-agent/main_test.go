package main

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/util/validation"
)

// shell runs the program with arguments and standard input, and returns its exit status and its output.
func shell(t *testing.T, stdin string, args ...string) (status int, stdout, stderr string) {
	var out, errs bytes.Buffer
	status = run(t.Context(), args, strings.NewReader(stdin), &out, &errs)
	return status, out.String(), errs.String()
}

const (
	ranges = "../../testdata/ranges/ip-ranges.json"
	seed   = "../../testdata/policy/valid/seed.json"
	broken = "../../testdata/policy/invalid/port-70000.json"
	demo   = "../../examples/demo/tenant-a.yaml"
)

// TestRenderGolden compares the output of render with testdata/render. UPDATE_GOLDEN=1 rewrites the files.
func TestRenderGolden(t *testing.T) {
	tests := []struct {
		golden string
		args   []string
	}{
		{"seed.yaml", []string{"-f", seed, "--ranges-file", ranges}},
		{"two.yaml", []string{"-f", demo, "../../examples/demo/tenant-b.yaml", "--ranges-file", ranges}},
		{"seed.json", []string{"-f", seed, "--ranges-file", ranges, "-o", "json"}},
		{"ipv6.yaml", []string{"-f", seed, "--ranges-file", ranges, "--ip-family", "ipv6"}},
		{"dual-dns-cidr.yaml", []string{"-f", seed, "--ranges-file", ranges, "--ip-family", "dual", "--dns-cidr", "169.254.20.10/32"}},
		{"no-dns.yaml", []string{"-f", seed, "--ranges-file", ranges, "--allow-dns=false"}},
		{"allow.yaml", []string{"-f", "../../testdata/policy/valid/allow.json"}},
		{"nothing.yaml", []string{"-f", "../../testdata/policy/valid/nothing.json"}},
	}
	goldens, err := os.ReadDir("../../testdata/render")
	require.NoError(t, err)
	require.Len(t, goldens, len(tests), "each golden needs a test, and each test a golden")
	for _, test := range tests {
		t.Run(test.golden, func(t *testing.T) {
			status, stdout, stderr := shell(t, "", append([]string{"render"}, test.args...)...)
			require.Zero(t, status, stderr)
			golden := "../../testdata/render/" + test.golden
			if os.Getenv("UPDATE_GOLDEN") != "" {
				require.NoError(t, os.WriteFile(golden, []byte(stdout), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), stdout)
		})
	}
}

func TestRenderReportsWarningsAndProblems(t *testing.T) {
	status, stdout, stderr := shell(t, "", "render", "-f", seed)
	require.Equal(t, 2, status, "the NetworkPolicy lacks a destination")
	require.Equal(t, seed+": Warning: s3 opens S3, which also covers every AWS customer's buckets (allowedDestinations[0].awsService)\n"+
		seed+": s3 is left out: no AWS ranges are loaded; give --ranges-file\n", stderr)
	require.Contains(t, stdout, "10.1.0.0/24")

	status, stdout, stderr = shell(t, "", "render", "-f", broken, seed, "--ranges-file", ranges)
	require.Equal(t, 1, status)
	require.Contains(t, stderr, broken+": Invalid port: 70000; must be a whole number from 1 to 65535 (allowedDestinations[0].ports[0])\n")
	require.Equal(t, 1, strings.Count(stdout, "kind: NetworkPolicy"), "render still prints the valid policy")

	status, stdout, _ = shell(t, "", "render", "-f", broken, "-o", "json")
	require.Equal(t, 1, status)
	var list struct {
		Kind  string
		Items []any
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &list))
	require.Equal(t, "List", list.Kind)
	require.Equal(t, []any{}, list.Items)

	status, stdout, stderr = shell(t, "", "render", "-f", seed, "-o", "table")
	require.Equal(t, 2, status)
	require.Empty(t, stdout)
	require.Equal(t, "egress-agent render: invalid -o \"table\": must be yaml, json, serviceentry or clusternetworkpolicy\nRun 'egress-agent render --help' for usage.\n", stderr)
}

func TestHelpAndUsageErrors(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"help"}, {"render", "-h"}} {
		status, stdout, stderr := shell(t, "", args...)
		require.Zero(t, status)
		require.Empty(t, stderr)
		require.Contains(t, stdout, "Usage:")
		require.Contains(t, stdout, "Exit status:")
	}
	for _, test := range []struct {
		args   []string
		stderr string
	}{
		{[]string{"rendr"}, "egress-agent: unknown command \"rendr\"\n"},
		{[]string{""}, "egress-agent: unknown command \"\"\n"},
		{[]string{"--ranges-url", "http://example.com/x", "--namespace", "A", "--removal-hold", "-1s", "--accept-ranges", "latest"},
			"egress-agent: invalid --ranges-url \"http://example.com/x\": must begin with https://; for a file give --ranges-file\n" +
				"egress-agent: invalid --namespace \"A\": " + validation.IsDNS1123Label("A")[0] + "\n" +
				"egress-agent: invalid --removal-hold -1s: must be at least 0s\n" +
				"egress-agent: invalid --accept-ranges \"latest\": must be a document's syncToken, such as 1787411825\n"},
		{[]string{"--workers", "0", "--refresh-interval", "1ms"},
			"egress-agent: invalid --workers 0: must be at least 1\negress-agent: invalid --refresh-interval 1ms: must be at least 1s\n"},
		{[]string{"--dns-cidr", "10.0.0.0/8", "--allow-dns=false"}, "egress-agent: DNS CIDRs need the DNS rule: remove either --dns-cidr or --allow-dns=false\n"},
	} {
		status, stdout, stderr := shell(t, "", test.args...)
		require.Equal(t, 2, status)
		require.Empty(t, stdout)
		require.Equal(t, test.stderr+"Run 'egress-agent --help' for usage.\n", stderr)
	}
	status, _, stderr := shell(t, "", "--kubeconfig", "/none")
	require.Equal(t, 2, status)
	require.Contains(t, stderr, "/none: no such file or directory")
}

func TestExplainAnswersEachTarget(t *testing.T) {
	twoPolicies := []string{"explain", "-f", demo, "../../examples/demo/tenant-b.yaml", "--ranges-file", ranges}
	status, stdout, stderr := shell(t, "", append(twoPolicies, "--to", "198.18.0.1:443")...)
	require.Equal(t, 1, status, "one namespace denies it")
	require.Empty(t, stderr)
	require.Equal(t, demo+": tenant-a/egress: 198.18.0.1:443/TCP allowed by s3 (allowedDestinations[0]): S3 us-east-1: 198.18.0.0/25, syncToken 1700000000\n"+
		"../../examples/demo/tenant-b.yaml: tenant-b/egress: 198.18.0.1:443/TCP denied: no destination covers 198.18.0.1, an address of AMAZON us-east-1, S3 us-east-1\n", stdout)

	status, stdout, _ = shell(t, "", "explain", "-f", demo, "--ranges-file", ranges, "--to", "10.1.0.9:5432", "-o", "json")
	require.Equal(t, 0, status)
	require.JSONEq(t, `[{"file": "`+demo+`", "namespace": "tenant-a", "name": "egress", "to": "10.1.0.9:5432/TCP", "allowed": true, "nearest": [],
		"reasons": [{"name": "database", "path": "allowedDestinations[1]", "prefix": "10.1.0.0/24"}]}]`, stdout)

	denyAll := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: more, namespace: tenant-a, labels: {egress-controller: managed}}\ndata: {policy.json: '{\"allowedDestinations\": []}'}\n"
	status, _, _ = shell(t, denyAll, "explain", "-f", demo, "-", "--ranges-file", ranges, "--to", "10.1.0.9:5432")
	require.Equal(t, 0, status, "policies of a namespace add up")

	status, stdout, stderr = shell(t, "", "explain", "-f", broken, "--to", "10.1.0.9:5432")
	require.Equal(t, 1, status)
	require.Empty(t, stdout)
	require.Contains(t, stderr, "Invalid port: 70000")
	overLimit := `{"allowedDestinations": [{"name": "db", "cidr": "10.1.0.0/24", "ports": [5432, 5434]}]}`
	status, stdout, stderr = shell(t, overLimit, "explain", "-f", "-", "--to", "10.1.0.9:5432", "--max-port-slots", "3")
	require.Equal(t, 1, status)
	require.Empty(t, stdout, "the agent does not apply a policy over the limit, so it allows nothing")
	require.Contains(t, stderr, "Too many ports: 10.1.0.0/24 has 2 ports")
	twoTargets := []string{"explain", "-f", demo, "../../examples/demo/tenant-b.yaml", "--ranges-file", ranges, "--to", "10.1.0.9:5432", "--to", "192.0.2.1:1/UDP"}
	status, stdout, _ = shell(t, "", twoTargets...)
	require.Equal(t, 1, status)
	require.Equal(t, []string{"10.1.0.9:5432/TCP allowed", "192.0.2.1:1/UDP denied:", "10.1.0.9:5432/TCP denied:", "192.0.2.1:1/UDP denied:"},
		regexp.MustCompile(`\S+/(TCP|UDP) \S+`).FindAllString(stdout, -1), "each policy answers each target")
	status, stdout, _ = shell(t, "", append(twoTargets, "-o", "json")...)
	require.Equal(t, 1, status)
	var answers []answer
	require.NoError(t, json.Unmarshal([]byte(stdout), &answers))
	require.Len(t, answers, 4)
	require.Equal(t, "192.0.2.1:1/UDP", answers[1].To)
	status, _, _ = shell(t, "", "explain", "-f", demo, "--ranges-file", ranges, "--to", "192.0.2.1:1", "--to", "10.1.0.9:5432")
	require.Equal(t, 1, status, "one denied target is enough, also if it is not the last")
	status, _, _ = shell(t, "", "explain", "-f", demo, "--ranges-file", ranges, "--to", "10.1.0.8:5432", "--to", "10.1.0.9:5432")
	require.Equal(t, 0, status)
	status, _, stderr = shell(t, "", "explain", "-f", demo, "--to", "a", "--to", "b")
	require.Equal(t, 2, status)
	require.Equal(t, 2, strings.Count(stderr, "invalid --to: "))
	for _, to := range []string{"", "db:5432"} {
		status, stdout, stderr = shell(t, "", "explain", "-f", demo, "--to", to)
		require.Equal(t, 2, status)
		require.Empty(t, stdout)
		require.Contains(t, stderr, "egress-agent explain: invalid --to: ")
	}
}

func TestDiffComparesRanges(t *testing.T) {
	arguments := []string{"diff", "-f", demo, "../../examples/demo/tenant-b.yaml", "--ranges-file", ranges, "--against", "../../testdata/ranges/ip-ranges-next.json"}
	status, stdout, stderr := shell(t, "", arguments...)
	require.Equal(t, 0, status)
	require.Empty(t, stderr)
	require.Equal(t, demo+": tenant-a/egress: s3 (allowedDestinations[0]): + 198.18.5.0/24 TCP 443\n"+
		demo+": tenant-a/egress: s3 (allowedDestinations[0]): - 198.18.4.0/24 TCP 443\n"+
		"../../examples/demo/tenant-b.yaml: tenant-b/egress: unchanged\n", stdout)

	status, stdout, _ = shell(t, "", append(arguments, "-o", "json")...)
	require.Equal(t, 0, status)
	require.JSONEq(t, `[
		{"file": "`+demo+`", "namespace": "tenant-a", "name": "egress", "state": "changed",
			"opens": [{"name": "s3", "path": "allowedDestinations[0]", "ports": ["TCP 443"], "prefixes": ["198.18.5.0/24"]}],
			"closes": [{"name": "s3", "path": "allowedDestinations[0]", "ports": ["TCP 443"], "prefixes": ["198.18.4.0/24"]}]},
		{"file": "../../examples/demo/tenant-b.yaml", "namespace": "tenant-b", "name": "egress", "state": "unchanged", "opens": [], "closes": []}]`, stdout)

	status, stdout, _ = shell(t, "", append(arguments, "-o", "markdown")...)
	require.Equal(t, 0, status)
	require.Equal(t, `#### tenant-a/egress: changed

| | addresses | ports | entry |
|---|---|---|---|
| opens | 198.18.5.0/24 | TCP 443 | s3 (allowedDestinations\[0\]) |
| closes | 198.18.4.0/24 | TCP 443 | s3 (allowedDestinations\[0\]) |

#### tenant-b/egress: unchanged

`, stdout)

	_, stdout, _ = shell(t, "", "diff", "-f", demo, demo, "--ranges-file", ranges, "--against", ranges)
	require.Equal(t, strings.Repeat(demo+": tenant-a/egress: unchanged\n", 2), stdout, "diff compares each of two policies with the same name with itself")

	status, _, stderr = shell(t, "", "diff", "-f", demo, "--ranges-file", ranges)
	require.Equal(t, 2, status)
	require.Contains(t, stderr, "nothing to compare: give --base FILE, or --ranges-file OLD and --against NEW\n")
	status, _, stderr = shell(t, "", "diff", "-f", demo, "--ranges-file", ranges, "--against", demo)
	require.Equal(t, 2, status)
	require.Contains(t, stderr, demo+": not an ip-ranges document")
	status, _, stderr = shell(t, "", "diff", "-f", broken, "--ranges-file", ranges, "--against", ranges)
	require.Equal(t, 1, status)
	require.Equal(t, 1, strings.Count(stderr, "Invalid port: 70000"), "diff prints a problem once, not once for each table: %s", stderr)
}
