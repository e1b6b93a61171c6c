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

// Timeout is how long a test waits for a result. On an idle machine a result takes milliseconds.
const Timeout = 30 * time.Second

// RunsAll reports whether also the tests that take long run. They run if E2E_ALL is set, as make test-all does.
func RunsAll() bool { return os.Getenv("E2E_ALL") != "" }

// SkipUnlessAll skips a test that takes long, unless RunsAll returns true.
func SkipUnlessAll(t testing.TB) {
	t.Helper()
	if !RunsAll() {
		t.Skip("make test-all runs this test, because it takes long")
	}
}

// Eventually waits until isTrue returns true. condition is the text of the condition in the failure message.
func Eventually(t testing.TB, condition string, isTrue func() bool) {
	t.Helper()
	require.Eventually(t, isTrue, Timeout, 20*time.Millisecond, "not true in time: %s", condition)
}

// AwaitEvent waits for an Event about a ConfigMap, and returns the Event.
func AwaitEvent(t testing.TB, namespace, name, reason string) corev1.Event {
	t.Helper()
	return AwaitEventOn(t, namespace, "ConfigMap", name, reason, func(corev1.Event) bool { return true })
}

// AwaitEventOn waits for an Event about an object for which isExpected returns true, and returns the Event.
func AwaitEventOn(
	t testing.TB, namespace, kind, name, reason string, isExpected func(corev1.Event) bool,
) corev1.Event {
	t.Helper()
	var found corev1.Event
	require.Eventually(t, func() bool {
		events, err := Control(t).Admin.CoreV1().Events(namespace).List(context.Background(), metav1.ListOptions{
			FieldSelector: "involvedObject.kind=" + kind + ",involvedObject.name=" + name + ",reason=" + reason,
		})
		require.NoError(t, err)
		i := slices.IndexFunc(events.Items, isExpected)
		if i >= 0 {
			found = events.Items[i]
		}
		return i >= 0
	}, Timeout, 20*time.Millisecond, "no Event %s on %s %s/%s", reason, kind, namespace, name)
	return found
}

// AwaitQuiet returns once no NetworkPolicy has changed for two seconds.
func AwaitQuiet(t testing.TB) {
	t.Helper()
	for previous := networkPolicyVersions(t); ; {
		time.Sleep(2 * time.Second)
		current := networkPolicyVersions(t)
		if current == previous {
			return
		}
		previous = current
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
