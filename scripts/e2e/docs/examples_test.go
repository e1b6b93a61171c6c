package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"egress-agent/scripts/e2e/harness"
	"egress-agent/scripts/e2e/markdown"
)

// validThenRendered matches the output of an example's commands: each policy is valid, and then NetworkPolicies.
var validThenRendered = regexp.MustCompile(`(?s)\A(?:[^\n]*: valid\n)+(kind: NetworkPolicy\n.*)\z`)

// expectedNotes match the lines on stderr that the README of an example announces.
var expectedNotes = map[string]string{
	"except-private-networks": `.*Warning: web opens every IPv4 address except .*\n`,
	"kube-apiserver":          `.*note: api is left out: only the agent knows the addresses of the API server\n`,
	"pods-and-namespaces": `.*Warning: (.*only if the Service's own selector has these labels|` +
		`the policy applies only to the pods that podSelector selects; .*) .*\n`,
}

// showsOutput has the examples whose README.md shows the output of its commands.
var showsOutput = map[string]bool{"audit-trail": true, "compliance-reports": true, "istio-mesh": true, "observe-then-enforce": true}

// TestExamplesPrintGoldens runs the commands in each example's README. validate must find all valid, with no warnings
// except about services that other customers share. render must print the golden, which UPDATE_GOLDEN=1 rewrites. The
// test fails for an unexpected folder, and for a file that the README does not name.
func TestExamplesPrintGoldens(t *testing.T) {
	folders, err := os.ReadDir(harness.Root + "/examples")
	require.NoError(t, err)
	var names []string
	index, err := os.ReadFile(harness.Root + "/examples/README.md")
	require.NoError(t, err)
	for _, folder := range folders {
		name := folder.Name()
		if !folder.IsDir() {
			continue
		}
		require.True(t, name == "demo" || strings.Contains(string(index), "["+name+"]("+name+")"), "examples/README.md does not list %s", name)
		names = append(names, name)
		if name == "demo" {
			continue // make demo runs it
		}
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(harness.Root, "examples", name)
			readme, err := os.ReadFile(dir + "/README.md")
			require.NoError(t, err)
			files, err := os.ReadDir(dir)
			require.NoError(t, err)
			for _, file := range files {
				require.Contains(t, "README.md "+string(readme), file.Name(), "the README does not name this file")
			}
			if showsOutput[name] {
				return // TestMarkdownCommandsPrintShownOutput runs these
			}
			document, err := markdown.Read(dir + "/README.md")
			require.NoError(t, err)
			require.Len(t, document.Commands, 1)
			script := document.Commands[0].Script
			require.Regexp(t, `\Abin/egress-webhook validate -f examples/`+name+`/.*\nbin/egress-agent render -f examples/`+name+`/.*\n\z`, script)
			stdout, stderr, status := runBash(t, harness.Root, script)
			require.Zero(t, status, stderr)
			require.Regexp(t, `\A(.*Warning: .*which also covers every AWS customer's .*\n|`+expectedNotes[name]+`)*\z`, stderr)
			rendered := validThenRendered.FindStringSubmatch(stdout)
			require.NotNil(t, rendered, stdout)
			golden := dir + "/networkpolicy.golden"
			if os.Getenv("UPDATE_GOLDEN") != "" {
				require.NoError(t, os.WriteFile(golden, []byte(rendered[1]), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), rendered[1])
		})
	}
	require.Equal(t, []string{"access-that-expires", "amazon-without-ec2", "audit-trail", "compliance-reports", "custom-services", "demo", "domain-names", "dynamodb", "everything-denied", "except-private-networks", "gitops", "ipv6-cluster", "istio-mesh",
		"kube-apiserver", "observe-then-enforce", "onboarding", "platform-default-deny", "platform-exception", "platform-region", "platform-tree", "pods-and-namespaces", "s3-and-database", "several-clusters", "several-regions", "single-tenant", "udp-and-port-ranges"}, names, "an example is missing or unexpected")
}
