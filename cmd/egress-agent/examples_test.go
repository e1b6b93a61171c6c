package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestExamples runs the commands that each example's README shows, with the built programs: validate says
// that all is valid, with no warning but of services that others share, and render prints the golden.
// UPDATE_GOLDEN=1 rewrites those. A scenario, or a file that its README does not name, too many fails.
func TestExamples(t *testing.T) {
	const root = "../.."
	folders, err := os.ReadDir(root + "/examples")
	require.NoError(t, err)
	var names []string
	bin := t.TempDir()
	output, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, root+"/cmd/...").CombinedOutput()
	require.NoError(t, err, "%s", output)
	command := regexp.MustCompile(`(?m)^bin/(egress-\w+) (.*)$`)
	for _, folder := range folders {
		name := folder.Name()
		names = append(names, name)
		if name == "demo" {
			continue // make demo runs it
		}
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(root, "examples", name)
			readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
			require.NoError(t, err)
			shown := command.FindAllStringSubmatch(string(readme), -1)
			require.Len(t, shown, 2)
			var stdout, stderr [2]strings.Builder
			for i, verb := range []string{"egress-webhook validate", "egress-agent render"} {
				require.True(t, strings.HasPrefix(shown[i][1]+" "+shown[i][2], verb+" -f examples/"+name+"/"), shown[i][0])
				program := exec.CommandContext(t.Context(), filepath.Join(bin, shown[i][1]), strings.Fields(shown[i][2])...)
				program.Dir, program.Stdout, program.Stderr = root, &stdout[i], &stderr[i]
				require.NoError(t, program.Run(), stderr[i].String())
			}
			require.Regexp(t, `\A(.*Warning: .*which also covers every AWS customer's .*\n)*\z`, stderr[0].String())
			require.Regexp(t, `\A(.*: valid\n)+\z`, stdout[0].String())
			files, err := os.ReadDir(dir)
			require.NoError(t, err)
			for _, file := range files {
				require.Contains(t, "README.md "+string(readme), file.Name(), "a file too many")
			}
			golden := filepath.Join(dir, "networkpolicy.golden")
			if os.Getenv("UPDATE_GOLDEN") != "" {
				require.NoError(t, os.WriteFile(golden, []byte(stdout[1].String()), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), stdout[1].String())
		})
	}
	require.Equal(t, []string{"custom-services", "demo", "dynamodb", "everything-denied", "gitops", "ipv6-cluster", "onboarding",
		"s3-and-database", "several-regions", "single-tenant", "udp-and-port-ranges"}, names, "a scenario is missing, or one too many")
}
