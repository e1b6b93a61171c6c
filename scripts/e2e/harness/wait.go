package harness

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Timeout is how long a test waits for what takes milliseconds on an idle machine.
const Timeout = 30 * time.Second

// RunsAll reports whether tests that take minutes run as well: E2E_ALL is set. make test-all sets it.
func RunsAll() bool { return os.Getenv("E2E_ALL") != "" }

// SkipUnlessAll skips a test that takes minutes, unless RunsAll.
func SkipUnlessAll(t testing.TB) {
	t.Helper()
	if !RunsAll() {
		t.Skip("this test takes minutes: make test-all runs it")
	}
}

// Eventually waits until ok returns true. what names the condition.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, Timeout, 20*time.Millisecond, "not true in time: %s", what)
}

// AwaitEvent waits for an Event on a ConfigMap.
func AwaitEvent(t testing.TB, namespace, name, reason string) corev1.Event {
	t.Helper()
	return AwaitEventOn(t, namespace, "ConfigMap", name, reason, func(corev1.Event) bool { return true })
}

// AwaitEventOn waits for an Event on an object that ok accepts.
func AwaitEventOn(t testing.TB, namespace, kind, name, reason string, ok func(corev1.Event) bool) corev1.Event {
	t.Helper()
	var found corev1.Event
	require.Eventually(t, func() bool {
		events, err := Control(t).Admin.CoreV1().Events(namespace).List(context.Background(), metav1.ListOptions{
			FieldSelector: "involvedObject.kind=" + kind + ",involvedObject.name=" + name + ",reason=" + reason,
		})
		require.NoError(t, err)
		i := slices.IndexFunc(events.Items, ok)
		if i >= 0 {
			found = events.Items[i]
		}
		return i >= 0
	}, Timeout, 20*time.Millisecond, "no Event %s on %s %s/%s", reason, kind, namespace, name)
	return found
}

// AwaitQuiet waits until no NetworkPolicy has changed for two seconds.
func AwaitQuiet(t testing.TB) {
	t.Helper()
	for before := networkPolicyVersions(t); ; {
		time.Sleep(2 * time.Second)
		after := networkPolicyVersions(t)
		if before == after {
			return
		}
		before = after
	}
}

// networkPolicyVersions returns a text that changes with every write to a NetworkPolicy.
func networkPolicyVersions(t testing.TB) string {
	t.Helper()
	list, err := Control(t).Admin.NetworkingV1().NetworkPolicies("").List(context.Background(), metav1.ListOptions{})
	require.NoError(t, err)
	var versions []string
	for _, policy := range list.Items {
		versions = append(versions, policy.Namespace+policy.Name+policy.ResourceVersion)
	}
	return strings.Join(versions, " ")
}
