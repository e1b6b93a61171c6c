// Package shell runs the Makefile and the scripts with values that a user may give, without a cluster.
package shell

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const root = "../../.."

// TestMakeRunsNothingGiven gives make values that a shell or make would run if a recipe contained them as text.
func TestMakeRunsNothingGiven(t *testing.T) {
	tools := tools(t)
	for _, variable := range []string{"tenant-onboard NS", "deploy OVERLAYS", "deploy IMG_AGENT", "images ARCHS", "images IMG_AGENT", "images CONTAINER_TOOL", "logs TAIL", "logs KUBECTL", "fuzz FUZZTIME", "try RANGES"} {
		t.Run(variable, func(t *testing.T) {
			t.Parallel()
			ran := filepath.Join(t.TempDir(), "ran")
			target, name, _ := strings.Cut(variable, " ")
			// One value for all: text after a quote has no effect in places where the quote breaks nothing.
			given := "`touch " + ran + "` $(touch " + ran + ") $(shell touch " + ran + `) "; touch ` + ran + `; " '; touch ` + ran + "; '"
			for _, how := range []string{"argument", "environment"} {
				command := exec.Command("make", "--no-print-directory", target)
				command.Dir = root
				// Without Go, so that make builds nothing, and without a cluster.
				command.Env = []string{"PATH=" + tools, "HOME=" + t.TempDir(), "KUBECONFIG=/none", "IMG_AGENT=x:v1", "IMG_WEBHOOK=x:v1"}
				if how == "argument" {
					command.Args = append(command.Args, name+"="+given)
				} else {
					command.Env = append(command.Env, name+"="+given)
				}
				output, err := command.CombinedOutput()
				require.Error(t, err, string(output))
				require.NoFileExists(t, ran, "given as an %s: %s", how, output)
			}
		})
	}
}

// TestOnboardTakesNames requires that the script rejects a value that is not a namespace's name before it calls
// kubectl.
func TestOnboardTakesNames(t *testing.T) {
	for name, says := range map[string]string{
		"":            "NS is missing: make tenant-onboard NS=tenant-a",
		"Tenant-A":    "Tenant-A is not a namespace name: use at most 63 lower-case letters, digits and -, such as NS=tenant-a",
		"a b":         `a\ b is not a namespace name`,
		"-n":          "-n is not a namespace name",
		"\x1b[31m":    `$'\E[31m' is not a namespace name`,
		"a.b":         "a.b is not a namespace name",
		"tenant-a\nb": `$'tenant-a\nb' is not a namespace name`,
	} {
		command := exec.Command(root+"/scripts/deploy.sh", "onboard", name)
		command.Env = append(os.Environ(), "KUBECTL=/none/kubectl", "OVERLAYS=")
		output, err := command.CombinedOutput()
		require.Error(t, err)
		require.Contains(t, string(output), "deploy.sh: "+says)
	}
}

// tools returns a folder with the commands that the scripts need, without Go and kubectl.
func tools(t *testing.T) string {
	dir := t.TempDir()
	for _, name := range []string{"bash", "sh", "env", "dirname", "basename", "touch", "grep", "sed", "sort", "cat", "mkdir", "awk"} {
		path, err := exec.LookPath(name)
		require.NoError(t, err)
		require.NoError(t, os.Symlink(path, filepath.Join(dir, name)))
	}
	return dir
}
