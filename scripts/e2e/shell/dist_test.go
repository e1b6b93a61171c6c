package shell

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/spdx/tools-golang/json"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"
	"github.com/stretchr/testify/require"

	"egress-agent/scripts/e2e/harness"
	"egress-agent/scripts/e2e/markdown"
)

// A release has further platforms, by the same commands: to compile the libraries for them takes minutes.
const (
	release   = "v9.8.7"
	platforms = "linux/amd64 linux/arm64"
)

// TestDistIsReproducible makes a release in two folders with the same commit, compares all bytes, and checks what is in
// the files.
func TestDistIsReproducible(t *testing.T) {
	harness.SkipUnlessAll(t) // it builds both programs for two platforms
	dir := repository(t)
	other := filepath.Join(t.TempDir(), "another folder")
	run(t, dir, "git", "clone", "--quiet", ".", other)
	files := dist(t, dir)
	require.Equal(t, files, dist(t, other))

	folder := filepath.Join(dir, "bin/dist")
	run(t, folder, "sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS")
	require.Len(t, strings.Split(strings.TrimSpace(files["SHA256SUMS"]), "\n"), len(files)-1, "every other file has a checksum")

	t.Log("each archive has both programs; that of this machine runs and is of the version")
	for platform := range strings.FieldsSeq(platforms) {
		platform = strings.ReplaceAll(platform, "/", "_")
		archive := "egress-control_" + release + "_" + platform + ".tar.gz"
		require.Contains(t, files, archive)
		require.Equal(t, "egress-agent\negress-webhook\n", run(t, folder, "tar", "-tzf", archive))
	}
	unpacked := t.TempDir()
	run(t, folder, "tar", "-xzf", "egress-control_"+release+"_"+runtime.GOOS+"_"+runtime.GOARCH+".tar.gz", "-C", unpacked)
	for _, program := range []string{"egress-agent", "egress-webhook"} {
		require.Contains(t, run(t, unpacked, "./"+program, "--version"), program+" "+release+" (commit ")
	}
	rendered := run(t, unpacked, "./egress-agent", "render", "-f", filepath.Join(harness.Root, "examples/demo/tenant-a.yaml"),
		"--ranges-file", filepath.Join(harness.Root, "testdata/ranges/ip-ranges.json"))
	require.Contains(t, rendered, "kind: NetworkPolicy")

	t.Log("deploy/README.md deploys the release: a real API server stores install.yaml, with its images and a certificate")
	require.NoError(t, os.Rename(filepath.Join(folder, "install.yaml"), filepath.Join(dir, "install.yaml")))
	document, err := markdown.Read(filepath.Join(root, "deploy/README.md"))
	require.NoError(t, err)
	commands := document.Section("Deploy")
	require.Len(t, commands, 1)
	apply, ok := strings.CutSuffix(commands[0].Script, "make certs\n")
	require.True(t, ok, commands[0].Script)
	t.Setenv("KUBECONFIG", harness.Control(t).Kubeconfig)
	t.Setenv("PATH", harness.ControlPlaneDir+":"+os.Getenv("PATH"))
	run(t, dir, "bash", "-euo", "pipefail", "-c", apply)
	certs := exec.Command("make", "certs", "TIMEOUT=1s") // the cluster has no Pods, for which make certs waits in the end
	certs.Dir, certs.Env = dir, append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=", "BIN=bin")
	output, err := certs.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(output), "certs.sh: failed: Waiting until they are ready\n")
	require.NotEmpty(t, harness.Kubectl(t, "", "get", "secret", "-n", harness.AgentNamespace, "egress-webhook-tls", "-o", "jsonpath={.data.tls\\.crt}"))
	require.NotEmpty(t, harness.Kubectl(t, "", "get", "validatingwebhookconfiguration", "egress-webhook", "-o", "jsonpath={.webhooks[0].clientConfig.caBundle}"))
	images := harness.Kubectl(t, "", "get", "deployments", "-n", harness.AgentNamespace, "-o", "jsonpath={.items[*].spec.template.spec.containers[*].image}")
	require.Equal(t, "registry.example.com/team/egress-agent:"+release+" registry.example.com/team/egress-webhook:"+release, images)
	require.NotContains(t, files["install.yaml"], "kind: Certificate")
	require.Contains(t, files["install-cert-manager.yaml"], "kind: Certificate")

	requireBillOfMaterials(t, files["egress-control_"+release+".spdx.json"], filepath.Join(dir, "bin/release"))
}

// dist makes a release in a repository, and returns its files by their names.
func dist(t *testing.T, dir string) map[string]string {
	t.Helper()
	run(t, dir, "make", "dist", "VERSION="+release, "PLATFORMS="+platforms, "REGISTRY=registry.example.com/team")
	files := make(map[string]string)
	entries, err := os.ReadDir(filepath.Join(dir, "bin/dist"))
	require.NoError(t, err)
	for _, entry := range entries {
		data, err := os.ReadFile(filepath.Join(dir, "bin/dist", entry.Name()))
		require.NoError(t, err)
		files[entry.Name()] = string(data)
	}
	return files
}

// requireBillOfMaterials requires that the document lists each program with its checksum and its modules.
func requireBillOfMaterials(t *testing.T, text, programs string) {
	t.Helper()
	bill, err := json.Read(strings.NewReader(text))
	require.NoError(t, err)
	require.Equal(t, "SPDX-2.3", bill.SPDXVersion)
	packages := make(map[string]*spdx.Package)
	for _, p := range bill.Packages {
		packages[string(p.PackageSPDXIdentifier)] = p
	}
	contains := make(map[string][]string) // the names of modules, by the file of a program
	for _, r := range bill.Relationships {
		a, b := packages[string(r.RefA.ElementRefID)], packages[string(r.RefB.ElementRefID)]
		require.NotNil(t, b, "%v", r)
		if a == nil {
			require.Equal(t, "DESCRIBES", r.Relationship)
			data, err := os.ReadFile(filepath.Join(programs, b.PackageFileName))
			require.NoError(t, err)
			sum := sha256.Sum256(data)
			require.Equal(t, hex.EncodeToString(sum[:]), b.PackageChecksums[0].Value)
			require.Equal(t, release, b.PackageVersion)
			continue
		}
		require.Equal(t, "CONTAINS", r.Relationship)
		require.True(t, strings.HasPrefix(b.PackageExternalReferences[0].Locator, "pkg:golang/"))
		contains[a.PackageFileName] = append(contains[a.PackageFileName], b.PackageName)
	}
	require.Len(t, contains, 4, "two programs for two platforms")
	for platform := range strings.FieldsSeq(platforms) {
		platform = strings.ReplaceAll(platform, "/", "_")
		require.Subset(t, contains[platform+"/egress-agent"], []string{"std", "k8s.io/client-go", "k8s.io/api"})
		require.Contains(t, contains[platform+"/egress-webhook"], "k8s.io/api")
		require.NotContains(t, contains[platform+"/egress-webhook"], "k8s.io/client-go")
	}
}

func TestDistRefuses(t *testing.T) {
	t.Parallel()
	dir := repository(t)
	run(t, dir, "git", "tag", "v1.0.0")
	run(t, dir, "git", "commit", "--quiet", "--allow-empty", "--message", "One more")
	refuses := func(says, version string, environment ...string) {
		t.Helper()
		command := exec.Command("scripts/dist.sh", version)
		command.Dir = dir
		command.Env = append(os.Environ(), append([]string{"BIN=bin", "REGISTRY="}, environment...)...)
		output, err := command.CombinedOutput()
		require.Error(t, err)
		require.Equal(t, "dist: "+says+"\n", string(output))
	}
	refuses("VERSION is missing: make dist VERSION=v1.2.3", "")
	refuses("1.2.3 is not a version such as v1.2.3 or v1.2.3-rc.1", "1.2.3")
	refuses(`v1.2.3\;id is not a version such as v1.2.3 or v1.2.3-rc.1`, "v1.2.3;id")
	refuses("REGISTRY=a\\ b/ is not the beginning of an image name, such as registry.example.com/team", "v1.2.3", "REGISTRY=a b")
	refuses("linux is not a platform: PLATFORMS takes Go's names, such as linux/amd64", "v1.2.3", "PLATFORMS=linux")
	refuses("the tag v1.0.0 is another commit: run 'git checkout v1.0.0', or choose another VERSION", "v1.0.0")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "README.md"), []byte("edited\n"), 0o600))
	refuses("a release needs a clean working tree: commit or remove what 'git status' lists", "v1.2.3")
}
