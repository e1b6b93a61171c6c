package shell

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"egress-agent/scripts/e2e/harness"
)

// TestVersionFollowsTags builds both programs in a copy of the repository, as "make images" and "make build" do, and
// compares what --version prints with the copy's tags and edits.
func TestVersionFollowsTags(t *testing.T) {
	harness.SkipUnlessAll(t) // it builds the programs several times
	dir := repository(t)
	version := func(folder string, programs ...string) string {
		t.Helper()
		var version string
		for i, program := range programs {
			printed := run(t, dir, "./"+folder+"/"+program, "--version")
			found := regexp.MustCompile(`^` + program + ` (\S+) \(commit ([0-9a-f]{40})( \(modified\))? of \S+, go1\.\S+\)\n$`).FindStringSubmatch(printed)
			require.NotNil(t, found, printed)
			require.Equal(t, run(t, dir, "git", "rev-parse", "HEAD"), found[2]+"\n")
			require.True(t, i == 0 || found[1] == version, "%s is another version than %s", program, programs[0])
			version = found[1]
		}
		return version
	}
	short := func() string { return strings.TrimSpace(run(t, dir, "git", "rev-parse", "--short", "HEAD")) }

	t.Log("without a tag: the commit")
	run(t, dir, "make", "build")
	require.Equal(t, short(), version("bin", "egress-agent", "egress-webhook"))

	t.Log("at a tag, in the images: the tag. A tag that is no version does not count")
	run(t, dir, "git", "tag", "v0.3.0")
	run(t, dir, "git", "tag", "latest")
	arch := strings.TrimSpace(run(t, dir, "go", "env", "GOARCH"))
	tool := filepath.Join(t.TempDir(), "tool") // builds no image: what would go into one lies in bin/images
	require.NoError(t, os.WriteFile(tool, []byte("#!/bin/sh\n"), 0o700))
	run(t, dir, "make", "images", "IMG_AGENT=example.com/agent:v1", "IMG_WEBHOOK=example.com/webhook:v1", "ARCHS="+arch, "CONTAINER_TOOL="+tool)
	require.Equal(t, "v0.3.0", version("bin/images/"+arch, "egress-agent", "egress-webhook"))

	t.Log("after a tag, with an edit: the tag, the number of commits, the commit, and -dirty")
	run(t, dir, "git", "commit", "--quiet", "--allow-empty", "--message", "One more")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "README.md"), []byte("edited\n"), 0o600))
	run(t, dir, "make", "build")
	require.Equal(t, "v0.3.0-1-g"+short()+"-dirty", version("bin", "egress-agent", "egress-webhook"))

	t.Log("built by hand: the version that Go stamps")
	run(t, dir, "git", "checkout", "--quiet", "--force", "v0.3.0")
	run(t, dir, "env", "CGO_ENABLED=0", "go", "build", "-trimpath", "-buildvcs=true", "-o", "bin/", "./cmd/egress-webhook")
	require.Equal(t, "v0.3.0", version("bin", "egress-webhook"))
}

// repository returns a new repository of one commit, with the files of this one as they are now.
func repository(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	bash := exec.Command("bash", "-euo", "pipefail", "-c", `git ls-files -z --cached --others --exclude-standard |
		while IFS= read -rd '' file; do if [ -e "$file" ]; then printf '%s\0' "$file"; fi; done |
		tar -c --null --files-from=- | tar -x -C "$0"`, dir)
	bash.Dir = root
	output, err := bash.CombinedOutput()
	require.NoError(t, err, string(output))
	run(t, dir, "git", "init", "--quiet")
	run(t, dir, "git", "config", "user.name", "test")
	run(t, dir, "git", "config", "user.email", "test@example.com")
	run(t, dir, "git", "add", "--all")
	run(t, dir, "git", "commit", "--quiet", "--message", "As it is")
	return dir
}

// run runs a command in a folder and returns its standard output. make gets no flags of a make that runs this test.
func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	if strings.HasPrefix(name, "./") {
		name = filepath.Join(dir, name)
	}
	command := exec.Command(name, args...)
	command.Dir = dir
	command.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=")
	var errs strings.Builder
	command.Stderr = &errs
	output, err := command.Output()
	require.NoError(t, err, "%s %v: %s%s", name, args, output, errs.String())
	return string(output)
}
