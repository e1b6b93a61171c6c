package harness

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Kubectl runs the real kubectl as administrator, requires that it succeeds, and returns its standard output.
func Kubectl(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	stdout, stderr, err := TryKubectl(t, stdin, args...)
	require.NoError(t, err, "kubectl %s: %s", strings.Join(args, " "), stderr)
	return stdout
}

// TryKubectl is Kubectl for a command that may fail.
func TryKubectl(t testing.TB, stdin string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	command := exec.Command(filepath.Join(ControlPlaneDir, "kubectl"), args...)
	command.Env = append(os.Environ(), "KUBECONFIG="+Control(t).Kubeconfig)
	command.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	err = command.Run()
	return out.String(), errs.String(), err
}

// CreateNamespace creates a namespace, and deletes it when the test ends. Each of labels is KEY=VALUE.
func CreateNamespace(t testing.TB, name string, labels ...string) {
	t.Helper()
	object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: make(map[string]string)}}
	for _, label := range labels {
		key, value, _ := strings.Cut(label, "=")
		object.Labels[key] = value
	}
	namespaces := Control(t).Admin.CoreV1().Namespaces()
	_, err := namespaces.Create(t.Context(), object, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := namespaces.Delete(context.Background(), name, metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
			require.NoError(t, err)
		}
	})
}
