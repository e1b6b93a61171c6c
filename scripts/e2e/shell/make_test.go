// Package shell runs the Makefile and the scripts with what a person may give them, without a cluster.
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

// TestMakeRunsNothingGiven gives make text that a shell, or make, would run were it pasted.
func TestMakeRunsNothingGiven(t *testing.T) {
	tools := tools(t)
	for _, variable := range []string{"tenant-onboard NS", "deploy OVERLAYS", "deploy IMG_AGENT", "images ARCHS", "images IMG_AGENT", "images CONTAINER_TOOL", "logs TAIL", "logs KUBECTL", "fuzz FUZZTIME"} {
		t.Run(variable, func(t *testing.T) {
			t.Parallel()
			ran := filepath.Join(t.TempDir(), "ran")
			target, name, _ := strings.Cut(variable, " ")
			// All of them in one: what follows a break is not reached where that breaks nothing.
			given := "`touch " + ran + "` $(touch " + ran + ") $(shell touch " + ran + `) "; touch ` + ran + `; " '; touch ` + ran + "; '"
			for _, how := range []string{"argument", "environment"} {
				command := exec.Command("make", "--no-print-directory", target)
				command.Dir = root
				// No Go, so that nothing is built, and no cluster.
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

// TestOnboardTakesNames says what is no name of a namespace before it asks any cluster.
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

// tools is a folder with the commands that scripts need, but for Go and kubectl.
func tools(t *testing.T) string {
	dir := t.TempDir()
	for _, name := range []string{"bash", "sh", "env", "dirname", "basename", "touch", "grep", "sed", "sort", "cat", "mkdir", "awk"} {
		path, err := exec.LookPath(name)
		require.NoError(t, err)
		require.NoError(t, os.Symlink(path, filepath.Join(dir, name)))
	}
	return dir
}
