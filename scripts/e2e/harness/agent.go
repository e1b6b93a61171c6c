package harness

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// savedRanges is the ConfigMap in which the agent saves its AWS ranges.
const savedRanges = "egress-ranges"

// StartAgent runs egress-agent without leader election. It has only the rights that deploy/ grants. When the test ends,
// StartAgent deletes the ranges that the agent has saved.
func StartAgent(t testing.TB, args ...string) *Process {
	t.Helper()
	kubeconfig, err := Control(t).ServiceAccountKubeconfig(t.Context(), AgentNamespace, AgentName)
	require.NoError(t, err)
	t.Cleanup(func() { DeleteSavedRanges(t) })
	return StartProcess(t, AgentName, append([]string{
		"--kubeconfig", kubeconfig, "--ip-family", "ipv4", "--leader-elect=false",
	}, args...)...)
}

// StartAgentWithRanges is StartAgent with the ranges of RangesFile.
func StartAgentWithRanges(t testing.TB, args ...string) *Process {
	t.Helper()
	return StartAgent(t, append([]string{"--ranges-file", RangesFile}, args...)...)
}

// DeleteSavedRanges deletes the ranges that the agent has saved, if there are any.
func DeleteSavedRanges(t testing.TB) {
	t.Helper()
	err := Control(t).Admin.CoreV1().ConfigMaps(AgentNamespace).Delete(context.Background(), savedRanges, metav1.DeleteOptions{})
	if !apierrors.IsNotFound(err) {
		require.NoError(t, err)
	}
}

// AwaitSavedRanges waits until the ConfigMap of saved ranges exists and isExpected returns true for it. adjective
// completes the message "egress-ranges is not …".
func AwaitSavedRanges(t testing.TB, adjective string, isExpected func(*corev1.ConfigMap) bool) *corev1.ConfigMap {
	t.Helper()
	var found *corev1.ConfigMap
	require.Eventually(t, func() bool {
		configMap, err := Control(t).Admin.CoreV1().ConfigMaps(AgentNamespace).Get(context.Background(), savedRanges, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false
		}
		require.NoError(t, err)
		found = configMap
		return isExpected(configMap)
	}, Timeout, 10*time.Millisecond, "%s is not %s", savedRanges, adjective)
	return found
}

// SampleRanges returns a document of testdata/ranges.
func SampleRanges(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(Root + "/testdata/ranges/" + name)
	require.NoError(t, err)
	return string(data)
}
