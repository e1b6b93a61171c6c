package docs

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"egress-agent/scripts/e2e/harness"
	"egress-agent/scripts/e2e/markdown"
)

// TestMarkdownCommandsPrintShownOutput runs each command that a Markdown file shows and that no other test runs. It
// compares the output with the output that the file shows. Both programs run on the control plane that kubectl uses.
// README.md comes first, because the other files continue from it.
func TestMarkdownCommandsPrintShownOutput(t *testing.T) {
	harness.StartAgentWithRanges(t)
	harness.StartRegisteredWebhook(t)
	dir := copyRepository(t)
	t.Cleanup(func() {
		harness.Kubectl(t, "", "delete", "namespace", "payments", "shop", "orders", "--wait=false", "--ignore-not-found")
	})
	stages := ciTargets(t)
	for _, file := range markdownFiles(t) {
		document, err := markdown.Read(filepath.Join(harness.Root, file))
		require.NoError(t, err)
		for _, c := range document.Commands {
			switch {
			case file == "deploy/README.md" && c.Section == "Deploy": // TestDistIsReproducible runs this section
			case file == "deploy/README.md" && c.Section == "Deploy images of your own":
				require.Contains(t, stages, "test-deployed", "test-deployed runs this section")
			case strings.HasPrefix(file, "examples/") && !showsOutput[filepath.Base(filepath.Dir(file))]:
				require.Regexp(t, `^examples/[^/]+/README.md$`, file, "TestExamplesPrintGoldens runs these")
			case isCovered(c, stages):
			default:
				requirePrints(t, dir, file, c)
			}
		}
	}
}

// markdownFiles returns the repository's Markdown files, sorted.
func markdownFiles(t *testing.T) []string {
	t.Helper()
	files := strings.Fields(git(t, harness.Root, "ls-files", "--cached", "--others", "--exclude-standard", "*.md"))
	require.Contains(t, files, "README.md")
	return files
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	command := exec.Command("git", args...)
	command.Dir = dir
	output, err := command.Output()
	require.NoError(t, err, "git %v", args)
	return string(output)
}

// copyRepository returns a new repository with the current files of this one and the built programs.
func copyRepository(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for file := range strings.Lines(git(t, harness.Root, "ls-files", "--cached", "--others", "--exclude-standard")) {
		file = strings.TrimSuffix(file, "\n")
		source, err := os.Open(filepath.Join(harness.Root, file))
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted, but not committed yet
		}
		require.NoError(t, err)
		defer source.Close()
		info, err := source.Stat()
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(file)), 0o700))
		target, err := os.OpenFile(filepath.Join(dir, file), os.O_CREATE|os.O_WRONLY, info.Mode())
		require.NoError(t, err)
		_, err = io.Copy(target, source)
		require.NoError(t, errors.Join(err, target.Close()))
	}
	git(t, dir, "init", "--quiet")
	git(t, dir, "add", "--all")
	git(t, dir, "-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "--quiet", "--message", "As it is")
	absolute, err := filepath.Abs(harness.BinDir)
	require.NoError(t, err)
	require.NoError(t, os.Symlink(absolute, filepath.Join(dir, "bin")))
	return dir
}

var (
	madeTarget    = regexp.MustCompile(`(?m)^(?:.*(?:&&|\|\||;))? *(?:stage )?make ([a-z-]+)`)
	neededTargets = regexp.MustCompile(`(?m)^([a-z-]+): ([a-z -]+)`)
)

// ciTargets returns the Makefile targets that CI runs, and their prerequisites.
func ciTargets(t *testing.T) map[string]bool {
	t.Helper()
	read := func(file string) string {
		data, err := os.ReadFile(filepath.Join(harness.Root, file))
		require.NoError(t, err)
		return string(data)
	}
	needs := make(map[string][]string)
	for _, found := range neededTargets.FindAllStringSubmatch(read("Makefile"), -1) {
		needs[found[1]] = strings.Fields(found[2])
	}
	stages := make(map[string]bool)
	var add func(target string)
	add = func(target string) {
		if !stages[target] {
			stages[target] = true
			for _, needed := range needs[target] {
				add(needed)
			}
		}
	}
	for _, found := range madeTarget.FindAllStringSubmatch(read(".ci/run"), -1) {
		add(found[1])
	}
	return stages
}

// isCovered reports whether the commands only run targets that CI runs as well.
func isCovered(c markdown.Command, stages map[string]bool) bool {
	for line := range strings.Lines(c.Script) {
		target, isMake := strings.CutPrefix(strings.TrimSpace(line), "make ")
		if !isMake || !stages[target] {
			return false
		}
	}
	return true
}

// readOnlyCommands matches a block that only reads. The test repeats it until the programs have done their work.
var readOnlyCommands = regexp.MustCompile(`\A(kubectl (get|describe|events|.*--dry-run=server) .*\n)+\z`)

// requirePrints runs commands in a folder. It requires their exit status and, if the file shows it, their output.
func requirePrints(t *testing.T, dir, file string, c markdown.Command) {
	t.Helper()
	deadline := time.Now().Add(harness.Timeout)
	for {
		output, _, status := runBash(t, dir, "exec 2>&1\n"+c.Script, "KUBECONFIG="+harness.Control(t).Kubeconfig,
			"PATH="+harness.ControlPlaneDir+string(os.PathListSeparator)+os.Getenv("PATH"))
		if status == c.Status && (c.Output == "" || c.Prints(output)) {
			return
		}
		if !readOnlyCommands.MatchString(c.Script) || time.Now().After(deadline) {
			require.FailNowf(t, "the file shows another result", "%s:%d: exit status %d, not %d, of\n%s\nIt printed\n%s\nand not\n%s", file, c.Line, status, c.Status, c.Script, output, c.Output)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// runBash runs a script with further variables in its environment.
func runBash(t *testing.T, dir, script string, environment ...string) (stdout, stderr string, status int) {
	t.Helper()
	command := exec.Command("bash", "-eo", "pipefail", "-c", script)
	command.Dir = dir
	// If make runs this test, its variables must not reach a make in the script.
	command.Env = append(append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL="), environment...)
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	err := command.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	return out.String(), errs.String(), command.ProcessState.ExitCode()
}

// TestMarkdownLinksResolve checks each link to a file of this repository or to a heading in one.
func TestMarkdownLinksResolve(t *testing.T) {
	documents := make(map[string]*markdown.Document)
	for _, file := range markdownFiles(t) {
		document, err := markdown.Read(filepath.Join(harness.Root, file))
		require.NoError(t, err)
		documents[file] = document
	}
	for file, document := range documents {
		for _, link := range document.Links {
			if strings.HasPrefix(link.Target, "https://") {
				continue
			}
			target, anchor, _ := strings.Cut(link.Target, "#")
			to := file
			if target != "" {
				to = filepath.Join(filepath.Dir(file), target)
			}
			_, err := os.Stat(filepath.Join(harness.Root, to))
			require.NoError(t, err, "%s:%d links to %s", file, link.Line, link.Target)
			if anchor != "" {
				require.Contains(t, documents, to, "%s:%d links to a heading of %s", file, link.Line, to)
				require.Contains(t, documents[to].Anchors, anchor, "%s:%d links to %s", file, link.Line, link.Target)
			}
		}
	}
}

// TestTablesHaveHeaders requires a header above the rows of each table. After an empty line, rows are no table.
func TestTablesHaveHeaders(t *testing.T) {
	for _, file := range markdownFiles(t) {
		text, err := os.ReadFile(filepath.Join(harness.Root, file))
		require.NoError(t, err)
		lines := strings.Split(string(text), "\n")
		isCode := false
		for i, line := range lines {
			if strings.HasPrefix(line, "```") {
				isCode = !isCode
			}
			if !isCode && strings.HasPrefix(line, "| ") && (i == 0 || !strings.HasPrefix(lines[i-1], "|")) {
				require.True(t, i+1 < len(lines) && strings.HasPrefix(lines[i+1], "|---"), "%s:%d: %s", file, i+1, line)
			}
		}
	}
}

// TestReadmeIsShort limits the size of README.md. Details belong to the pages that it links to.
func TestReadmeIsShort(t *testing.T) {
	const maxBytes = 10 << 10
	info, err := os.Stat(harness.Root + "/README.md")
	require.NoError(t, err)
	require.LessOrEqual(t, info.Size(), int64(maxBytes), "move details to cmd, deploy or scripts/README.md")
}

// policyAndNetworkPolicy matches the first two blocks of README.md: a policy and its NetworkPolicy.
var policyAndNetworkPolicy = regexp.MustCompile("(?s)```yaml\n(.*?)```.*?```yaml\n(.*?)```")

// TestReadmePolicyRenders renders the policy at the top of README.md. The result must be the NetworkPolicy beside it,
// which leaves out the DNS rule, labels and annotations.
func TestReadmePolicyRenders(t *testing.T) {
	readme, err := os.ReadFile(harness.Root + "/README.md")
	require.NoError(t, err)
	blocks := policyAndNetworkPolicy.FindSubmatch(readme)
	require.NotNil(t, blocks)
	file := filepath.Join(t.TempDir(), "policy.yaml")
	require.NoError(t, os.WriteFile(file, blocks[1], 0o600))
	var shown, rendered networkingv1.NetworkPolicy
	require.NoError(t, yaml.UnmarshalStrict(blocks[2], &shown))
	stdout, stderr, status := runBash(t, harness.Root, "bin/egress-agent render --ip-family ipv4 -f "+file+" --ranges-file testdata/ranges/ip-ranges.json")
	require.Zero(t, status, stderr)
	require.NoError(t, yaml.UnmarshalStrict([]byte(stdout), &rendered))
	require.EqualValues(t, 53, rendered.Spec.Egress[0].Ports[0].Port.IntVal, "the first rule is for DNS")
	rendered.Spec.Egress = rendered.Spec.Egress[1:]
	rendered.Labels, rendered.Annotations = nil, nil
	require.Equal(t, shown, rendered)
}

// TestShownSizesMatchPrograms compares the sizes in scripts/README.md with the built programs.
func TestShownSizesMatchPrograms(t *testing.T) {
	readme, err := os.ReadFile(harness.Root + "/scripts/README.md")
	require.NoError(t, err)
	found := regexp.MustCompile(`egress-agent is ([0-9.]+) MB.* egress-webhook ([0-9.]+) MB`).FindSubmatch(readme)
	require.NotNil(t, found, "scripts/README.md has the sizes")
	for i, program := range []string{"egress-agent", "egress-webhook"} {
		shown, err := strconv.ParseFloat(string(found[i+1]), 64)
		require.NoError(t, err)
		info, err := os.Stat(filepath.Join(harness.BinDir, program))
		require.NoError(t, err)
		require.InDelta(t, float64(info.Size())/1e6, shown, 0.2, "%s, in MB: correct scripts/README.md", program)
	}
}
