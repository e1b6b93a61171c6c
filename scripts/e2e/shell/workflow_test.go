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
	workflow := readWorkflow(t, "test.yaml")

	var targets []string
	for name, job := range workflow.Jobs {
		require.Nil(t, job.Permissions, "%s takes the workflow's permissions", name)
		for _, step := range job.Steps {
			if step.Uses != "" {
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
		require.Contains(t, textOf(t, "Makefile"), "\n"+target+":")
		require.Contains(t, textOf(t, ".ci/run"), "stage make "+target+"\n")
	}
}

// TestReleaseWorkflow checks that only the job that creates the release may write, that it waits for the tests, and that
// it publishes what make dist makes and the images that install.yaml names.
func TestReleaseWorkflow(t *testing.T) {
	workflow := readWorkflow(t, "release.yaml")
	require.Len(t, workflow.Jobs, 2)
	require.Equal(t, "./.github/workflows/test.yaml", workflow.Jobs["test"].Uses)
	release := workflow.Jobs["release"]
	require.Equal(t, "test", release.Needs)
	require.Equal(t, map[string]any{"contents": "write"}, release.Permissions)
	require.Equal(t, map[string]string{"VERSION": "${{ github.ref_name }}", "REGISTRY": "${{ vars.REGISTRY }}"}, release.Env, "make reads both")
	var commands []string
	for _, step := range release.Steps {
		require.NotContains(t, step.Run, "${{", "an expression in a script could run what a tag's name says")
		if step.Run != "" {
			commands = append(commands, step.Run)
		}
	}
	require.Equal(t, []string{
		"make dist",
		`docker login "${REGISTRY%%/*}" --username "$REGISTRY_USER" --password-stdin <<<"$REGISTRY_PASSWORD"`,
		`make images PUSH=1 IMG_AGENT="$REGISTRY/egress-agent:$VERSION" IMG_WEBHOOK="$REGISTRY/egress-webhook:$VERSION"`,
		`gh release create "$VERSION" --verify-tag --generate-notes bin/dist/*`,
	}, commands)
}

type workflow struct {
	Permissions map[string]string
	Jobs        map[string]struct {
		If, Uses, Needs string
		Permissions     any
		Env             map[string]string
		Steps           []struct {
			Run, Uses string
			With      map[string]any
		}
	}
}

// readWorkflow reads a workflow, and checks what holds for each: it may only read, its actions are pinned by version, and
// go.mod says the version of Go.
func readWorkflow(t *testing.T, name string) workflow {
	t.Helper()
	var w workflow
	require.NoError(t, yaml.Unmarshal([]byte(textOf(t, ".github/workflows/"+name)), &w))
	require.Equal(t, map[string]string{"contents": "read"}, w.Permissions)
	for _, job := range w.Jobs {
		for _, step := range job.Steps {
			if step.Uses == "" {
				continue
			}
			require.Regexp(t, `^actions/[a-z-]+@v[0-9]+\.[0-9]+\.[0-9]+$`, step.Uses, "pinned by version")
			if strings.HasPrefix(step.Uses, "actions/setup-go@") {
				require.Equal(t, "go.mod", step.With["go-version-file"])
			}
		}
	}
	return w
}

func textOf(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(root + "/" + file)
	require.NoError(t, err)
	return string(data)
}
