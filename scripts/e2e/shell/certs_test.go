package shell

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"egress-agent/scripts/e2e/harness"
)

// TestCertsKeepsServedCAs runs scripts/certs.sh with a stub of kubectl, and Pods that serve their own certificates.
func TestCertsKeepsServedCAs(t *testing.T) {
	harness.SkipUnlessAll(t)
	dir := t.TempDir()
	cas := make(map[string]string) // CA, by the name of the folder with its certificate
	for _, name := range []string{"a", "b", "x"} {
		output, err := exec.Command(root+"/scripts/generate-certs.sh", filepath.Join(dir, name), "egress-webhook.egress-system.svc", "egress-webhook.egress-system.svc.cluster.local").CombinedOutput()
		require.NoError(t, err, string(output))
		ca, err := os.ReadFile(filepath.Join(dir, name, "ca.crt"))
		require.NoError(t, err)
		cas[name] = string(ca)
	}
	for _, test := range []struct {
		name   string
		secret string // the folder with its certificate, or "" without a Secret
		bundle string // the CAs that API servers trust before
		pods   string // the certificate that each Pod serves; ? is a Pod that does not answer
		rotate bool
		want   string // the old CAs that API servers must trust afterwards
	}{
		{"unchanged", "b", "b", "bb", false, "b"},
		{"rotated", "b", "b", "bb", true, "b"},
		{"rotated, after a rotation that was cut off", "b", "ba", "ab", true, "ba"},
		{"rotated again, once no Pod serves the first", "b", "ba", "bb", true, "b"},
		{"three of them", "b", "bax", "axb", true, "bax"},
		{"an old CA that no Pod needs", "b", "ba", "bb", false, "b"},
		{"an old CA that a Pod needs", "b", "ba", "ba", false, "ba"},
		{"a Pod that does not answer", "b", "ba", "b?", false, "ba"},
		{"a Pod that does not answer, rotated", "b", "bax", "?b", true, "bax"},
		{"the Secret's CA is missing", "b", "a", "ab", false, "ba"},
		{"the Secret is missing", "", "a", "aa", false, "a"},
		{"no Pods", "b", "ba", "", false, "b"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel() // a rotation waits for seconds
			state := t.TempDir()
			bundle := ""
			for _, name := range test.bundle {
				bundle += cas[string(name)]
			}
			require.NoError(t, os.WriteFile(filepath.Join(state, "bundle"), []byte(bundle), 0o600))
			if test.secret != "" {
				output, err := exec.Command("cp", "-r", filepath.Join(dir, test.secret)+"/.", state).CombinedOutput()
				require.NoError(t, err, string(output))
			}
			stub, err := filepath.Abs("testdata/kubectl")
			require.NoError(t, err)
			command := exec.Command(root + "/scripts/certs.sh")
			command.Env = append(os.Environ(), "KUBECTL="+stub, "STATE="+state, "OVERLAYS=", "ANNOUNCED=")
			pods := ""
			for i, serves := range test.pods {
				pods += fmt.Sprintf(" pod%d", i)
				if serves != '?' {
					command.Env = append(command.Env, fmt.Sprintf("PORT_pod%d=%d", i, serve(t, filepath.Join(dir, string(serves)))))
				}
			}
			command.Env = append(command.Env, "PODS="+pods)
			if test.rotate {
				command.Env = append(command.Env, "ROTATE=1")
			}
			output, err := command.CombinedOutput()
			require.NoError(t, err, string(output))

			after, err := os.ReadFile(filepath.Join(state, "bundle"))
			require.NoError(t, err)
			current, err := os.ReadFile(filepath.Join(state, "ca.crt"))
			require.NoError(t, err)
			require.Contains(t, string(after), string(current), "the Secret's CA is trusted")
			for name, ca := range cas {
				require.Equal(t, strings.Contains(test.want, name), strings.Contains(string(after), ca), "CA %s is trusted\n%s", name, output)
			}
			count := len(test.want)
			if test.rotate || test.secret == "" {
				count++
			}
			require.Equal(t, count, strings.Count(string(after), "BEGIN CERTIFICATE"))
		})
	}
}

// serve serves TLS with the certificate in a folder, and returns the port.
func serve(t *testing.T, dir string) int {
	certificate, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	require.NoError(t, err)
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener.Addr().(*net.TCPAddr).Port
}
