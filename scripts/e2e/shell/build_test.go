package shell

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestBuildSaysWhatIsWrong checks that a build that fails ends with one line that names the way out.
func TestBuildSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, goPrints, says string }{
		{"no Go", "", "build: Go is not installed: install Go 1.26.0 or later, see https://go.dev/dl\n"},
		{"an old Go", "go: go.mod requires go >= 1.26.0 (running go 1.25.1; GOTOOLCHAIN=local)",
			"build: this Go is too old: install Go 1.26.0 or later, see https://go.dev/dl\n"},
		{"no proxy", `go: k8s.io/api@v0.37.2: Get "https://proxy.example.com/k8s.io/api/@v/v0.37.2.mod": dial tcp: lookup proxy.example.com: no such host`,
			"build: the Go modules cannot be downloaded: check the network, and the proxy that 'go env GOPROXY' prints\n"},
		{"a proxy that refuses", "go: k8s.io/api@v0.37.2: reading https://proxy.example.com/k8s.io/api/@v/v0.37.2.mod: 403 Forbidden",
			"build: the Go modules cannot be downloaded: check the network, and the proxy that 'go env GOPROXY' prints\n"},
		{"a full disk", "write /tmp/go-build1/b001/_pkg_.a: no space left on device",
			"build: the disk is full: free 3 GB, or set GOCACHE and TMPDIR to folders of another disk\n"},
		{"an error in the code", "pkg/policy/parse.go:1:1: expected operand", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			stubs := t.TempDir()
			for _, program := range []string{"bash", "dirname", "sed", "grep", "tee", "mktemp", "rm", "git"} {
				file, err := exec.LookPath(program)
				require.NoError(t, err)
				require.NoError(t, os.Symlink(file, filepath.Join(stubs, program)))
			}
			want := test.says
			if test.goPrints != "" {
				script := "#!/bin/sh\necho '" + test.goPrints + "' >&2\nexit 1\n"
				require.NoError(t, os.WriteFile(filepath.Join(stubs, "go"), []byte(script), 0o700))
				want = test.goPrints + "\n" + test.says
			}
			command := exec.Command(filepath.Join(root, "scripts/build.sh"))
			command.Env = []string{"PATH=" + stubs, "BIN=" + t.TempDir(), "TMPDIR=" + os.TempDir()}
			output, err := command.CombinedOutput()
			require.Error(t, err)
			require.Equal(t, want, string(output))
		})
	}
}
