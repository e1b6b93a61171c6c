package shell

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

// TestWorkflowRunsMakeTargets compares the workflow's commands with the Makefile, README.md and .ci/run: it runs nothing
// else, with no right but to read.
func TestWorkflowRunsMakeTargets(t *testing.T) {
	text := func(file string) string {
		data, err := os.ReadFile(root + "/" + file)
		require.NoError(t, err)
		return string(data)
	}
	type step struct {
		Run, Uses string
		With      map[string]any
	}
	var workflow struct {
		Permissions map[string]string
		Jobs        map[string]struct {
			If          string
			Permissions any
			Steps       []step
		}
	}
	require.NoError(t, yaml.Unmarshal([]byte(text(".github/workflows/test.yaml")), &workflow))
	require.Equal(t, map[string]string{"contents": "read"}, workflow.Permissions)

	var targets []string
	for name, job := range workflow.Jobs {
		require.Nil(t, job.Permissions, "%s takes the workflow's permissions", name)
		for _, step := range job.Steps {
			if step.Uses != "" {
				require.Regexp(t, `^actions/[a-z-]+@v[0-9]+\.[0-9]+\.[0-9]+$`, step.Uses, "pinned by version")
				if strings.HasPrefix(step.Uses, "actions/setup-go@") {
					require.Equal(t, "go.mod", step.With["go-version-file"])
				}
				continue
			}
			target, ok := strings.CutPrefix(step.Run, "make ")
			require.True(t, ok, "%s: %s", name, step.Run)
			targets = append(targets, target)
			require.Equal(t, target == "test-all", strings.Contains(job.If, "schedule"), "%s: only the long tests wait for the night", target)
		}
	}
	slices.Sort(targets)
	require.Equal(t, []string{"lint", "test", "test-all", "tidy-check"}, targets)
	for _, target := range targets {
		require.Contains(t, text("Makefile"), "\n"+target+":")
		require.Contains(t, text(".ci/run"), "stage make "+target+"\n")
	}
}
