package shell

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"egress-agent/scripts/e2e/harness"
)

// downloads serves an index of envtest and an archive of three programs, as the Kubernetes project does. It returns the
// URL of the index.
func downloads(t *testing.T, checksumOf func(archive []byte) string) string {
	t.Helper()
	version := strings.TrimSpace(run(t, filepath.Join(root, "scripts/e2e"), "go", "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes"))
	var archive bytes.Buffer
	compressed := gzip.NewWriter(&archive)
	files := tar.NewWriter(compressed)
	for _, program := range []string{"etcd", "kube-apiserver", "kubectl"} {
		text := "#!/bin/sh\necho downloaded " + program + "\n"
		require.NoError(t, files.WriteHeader(&tar.Header{Name: "controller-tools/envtest/" + program, Mode: 0o755, Size: int64(len(text))}))
		_, err := files.Write([]byte(text))
		require.NoError(t, err)
	}
	require.NoError(t, files.Close())
	require.NoError(t, compressed.Close())
	name := fmt.Sprintf("envtest-%s-%s-%s.tar.gz", version, runtime.GOOS, runtime.GOARCH)
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	mux.HandleFunc("/index.yaml", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "releases:\n  %s:\n    %s:\n      hash: %s\n      selfLink: %s/%s\n", version, name, checksumOf(archive.Bytes()), server.URL, name)
	})
	mux.HandleFunc("/"+name, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(archive.Bytes()) })
	return server.URL + "/index.yaml"
}

func sha512Of(archive []byte) string { return fmt.Sprintf("%x", sha512.Sum512(archive)) }

// stubGo returns a folder with a program go that takes the place of the real one when a control plane's modules are
// listed and built: minutes with the real one. list and build are commands of bash.
func stubGo(t *testing.T, list, build string) string {
	t.Helper()
	realGo, err := exec.LookPath("go")
	require.NoError(t, err)
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/bash\nset -eu\ncase \" $* \" in\n*' list -deps '*) %s ;;\n*' build -v '*) %s ;;\n*) exec %q \"$@\" ;;\nesac\n", list, build, realGo)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go"), []byte(script), 0o700))
	return dir
}

// buildPrograms is a command of bash that writes the programs that "go build -o DIR PACKAGE..." would.
const buildPrograms = `while [ "$1" != -o ]; do shift; done
  for package in "${@:3}"; do
    echo "$package" >&2; name=${package##*/}; [ "$name" != v3 ] || name=server
    printf '#!/bin/sh\necho built %s\n' "$name" >"$2/$name"; chmod +x "$2/$name"
  done`

// controlPlane is the command control-plane.sh for a new folder, with stubs in front of PATH.
func controlPlane(t *testing.T, stubs string, environment []string, programs ...string) (command *exec.Cmd, folder string) {
	folder = filepath.Join(t.TempDir(), "programs")
	command = exec.Command(filepath.Join(root, "scripts/control-plane.sh"), append([]string{folder}, programs...)...)
	path := os.Getenv("PATH")
	if stubs != "" {
		path = stubs + ":" + path
	}
	command.Env = append(os.Environ(), append([]string{"KUBEBUILDER_ASSETS=", "PATH=" + path}, environment...)...)
	return command, folder
}

var planePrograms = []string{"etcd", "kube-apiserver", "kubectl"}

func requirePrograms(t *testing.T, folder, origin string, programs ...string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	require.Len(t, entries, len(programs), "nothing else is left: %v", entries)
	for _, program := range programs {
		name := program
		if origin == "built" && program == "etcd" {
			name = "server"
		}
		require.Equal(t, origin+" "+name+"\n", run(t, folder, "./"+program))
	}
}

func TestControlPlaneIsDownloaded(t *testing.T) {
	t.Parallel()
	index := downloads(t, sha512Of)
	command, folder := controlPlane(t, stubGo(t, "exit 9", "exit 9"), []string{"ENVTEST_INDEX=" + index}, planePrograms...)
	output, err := command.CombinedOutput()
	require.NoError(t, err, string(output))
	require.Regexp(t, `\Acontrol-plane: the local control plane needs etcd kube-apiserver kubectl, once\n.*downloading.*\n.*downloaded in \d+ s\n\z`, string(output))
	requirePrograms(t, folder, "downloaded", planePrograms...)

	again := exec.Command(command.Path, command.Args[1:]...)
	again.Env = command.Env
	output, err = again.CombinedOutput()
	require.NoError(t, err)
	require.Empty(t, string(output), "nothing is left to do")
}

// TestControlPlaneIsBuilt checks what happens if the downloads cannot be used.
func TestControlPlaneIsBuilt(t *testing.T) {
	t.Parallel()
	wrong := downloads(t, func([]byte) string { return strings.Repeat("0", 128) })
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	for _, test := range []struct{ name, index, says string }{
		{"a wrong checksum", wrong, "cannot download them, so it builds them: .*checksum"},
		{"no network", closed.URL, "cannot download them, so it builds them: .*connection refused"},
		{"no downloads wanted", "none", "needs etcd kube-apiserver kubectl, once\ncontrol-plane: downloading Go modules"},
	} {
		t.Run(test.name, func(t *testing.T) {
			command, folder := controlPlane(t, stubGo(t, "echo a; echo b; echo c", buildPrograms), []string{"ENVTEST_INDEX=" + test.index}, planePrograms...)
			output, err := command.CombinedOutput()
			require.NoError(t, err, string(output))
			require.Regexp(t, test.says, string(output))
			require.Contains(t, string(output), "control-plane: built etcd kube-apiserver kubectl in ")
			requirePrograms(t, folder, "built", planePrograms...)
		})
	}
}

// TestControlPlaneSaysWhatIsWrong checks that each failure ends with the ways out, and leaves nothing.
func TestControlPlaneSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	const list = "echo a"
	const otherWay = "control-plane: the programs can also come from elsewhere: set KUBEBUILDER_ASSETS to a folder with etcd kube-apiserver kubectl\n"
	for _, test := range []struct{ name, list, build, assets, says string }{
		{name: "no modules", list: "echo 'go: k8s.io/kubernetes: dial tcp: no such host' >&2; exit 1", build: "exit 9",
			says: "go: k8s.io/kubernetes: dial tcp: no such host\ncontrol-plane: the Go modules cannot be downloaded: check the network, and the proxy that 'go env GOPROXY' prints\n" + otherWay},
		{name: "a full disk", list: list, build: "echo 'write /tmp/x: no space left on device' >&2; exit 1",
			says: "control-plane: the disk is full: free 3 GB, or set GOCACHE and TMPDIR to folders of another disk\n" + otherWay},
		{name: "another failure", list: list, build: "echo '# example.com/x' >&2; exit 1",
			says: "# example.com/x\n" + otherWay},
		{name: "no folder", list: list, build: "exit 9", assets: "/nonexistent",
			says: "control-plane: KUBEBUILDER_ASSETS is not a folder: /nonexistent\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			command, folder := controlPlane(t, stubGo(t, test.list, test.build), []string{"ENVTEST_INDEX=none", "KUBEBUILDER_ASSETS=" + test.assets}, planePrograms...)
			output, err := command.CombinedOutput()
			require.Error(t, err)
			require.True(t, strings.HasSuffix(string(output), test.says), string(output))
			requirePrograms(t, folder, "built")
		})
	}
}

// TestInterruptedControlPlaneLeavesNothing interrupts the build. Like go build, the stub then exits with status 1.
func TestInterruptedControlPlaneLeavesNothing(t *testing.T) {
	t.Parallel()
	command, folder := controlPlane(t, stubGo(t, "echo a", `sleep 60 & trap 'kill $!; exit 1' INT; : >"$0.runs"; wait`), []string{"ENVTEST_INDEX=none"}, planePrograms...)
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stub := strings.TrimPrefix(command.Env[len(command.Env)-2], "PATH=")
	var output bytes.Buffer
	command.Stderr = &output
	require.NoError(t, command.Start())
	harness.Eventually(t, "the build runs", func() bool {
		_, err := os.Stat(filepath.Join(strings.Split(stub, ":")[0], "go.runs"))
		return err == nil
	})
	require.NoError(t, syscall.Kill(-command.Process.Pid, syscall.SIGINT), "as Ctrl-C does")
	require.EqualError(t, command.Wait(), "exit status 130")
	require.True(t, strings.HasSuffix(output.String(), "\ncontrol-plane: interrupted\n"), output.String())
	requirePrograms(t, folder, "built")
	deadline := time.Now().Add(harness.Timeout)
	for syscall.Kill(-command.Process.Pid, 0) == nil { // until no process of the group is left
		require.True(t, time.Now().Before(deadline), "a process still runs")
		time.Sleep(20 * time.Millisecond)
	}
}
