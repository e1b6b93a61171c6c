package deploy

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"egress-agent/scripts/e2e/harness"
)

// right is one verb on one resource, in the agent's namespace or, if namespace is empty, in all namespaces.
type right struct{ namespace, group, resource, name, verb string }

func (r right) String() string {
	return strings.Trim(strings.Join([]string{r.namespace, r.verb, r.resource, r.name}, " "), " ")
}

// TestAgentNeedsEachRight removes each right of the agent in turn, and requires that the agent needs it.
func TestAgentNeedsEachRight(t *testing.T) {
	harness.SkipUnlessAll(t)
	t.Cleanup(func() { harness.Kubectl(t, "", "replace", "-f", harness.Root+"/deploy/base/agent-rbac.yaml") })
	role, err := harness.Control(t).Admin.RbacV1().Roles(harness.AgentNamespace).Get(t.Context(), harness.AgentName, metav1.GetOptions{})
	require.NoError(t, err)
	defaultRole, err := harness.Control(t).Admin.RbacV1().Roles("default").Get(t.Context(), harness.AgentName, metav1.GetOptions{})
	require.NoError(t, err)
	clusterRole, err := harness.Control(t).Admin.RbacV1().ClusterRoles().Get(t.Context(), harness.AgentName, metav1.GetOptions{})
	require.NoError(t, err)

	harness.CreateNamespace(t, "rbac")
	t.Run("all are granted", func(t *testing.T) {
		a := startBusyAgent(t)
		for range 20 {
			a.changeEverything(t)
		}
		require.Contains(t, a.Log(t), `msg="NetworkPolicy written"`)
		require.NotContains(t, a.Log(t), "forbidden")
	})
	count := 0
	for _, from := range []struct {
		namespace string
		rules     []rbacv1.PolicyRule
		grant     func(rules []rbacv1.PolicyRule) error
	}{
		{"", clusterRole.Rules, func(rules []rbacv1.PolicyRule) error {
			changed := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: harness.AgentName}, Rules: rules}
			_, err := harness.Control(t).Admin.RbacV1().ClusterRoles().Update(t.Context(), changed, metav1.UpdateOptions{})
			return err
		}},
		{harness.AgentNamespace, role.Rules, grantRole(t, harness.AgentNamespace)},
		{"default", defaultRole.Rules, grantRole(t, "default")},
	} {
		for _, r := range rights(from.namespace, from.rules) {
			count++
			t.Run(r.String(), func(t *testing.T) {
				require.NoError(t, from.grant(withoutRight(from.rules, r)))
				harness.Eventually(t, "the right is removed", func() bool { return !isGranted(t, r) })
				a := startBusyAgent(t)
				missed := fmt.Sprintf(`cannot %s resource \"%s\"`, r.verb, r.resource)
				harness.Eventually(t, missed, func() bool { a.changeEverything(t); return strings.Contains(a.Log(t), missed) })
			})
		}
		require.NoError(t, from.grant(from.rules))
	}
	require.Equal(t, 23, count)
}

// grantRole returns a function that replaces the rules of the agent's Role in a namespace.
func grantRole(t *testing.T, namespace string) func(rules []rbacv1.PolicyRule) error {
	return func(rules []rbacv1.PolicyRule) error {
		changed := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: harness.AgentName}, Rules: rules}
		_, err := harness.Control(t).Admin.RbacV1().Roles(namespace).Update(t.Context(), changed, metav1.UpdateOptions{})
		return err
	}
}

// rights returns what rules grant. Each rule has one group, one resource, and at most one name.
func rights(namespace string, rules []rbacv1.PolicyRule) []right {
	var all []right
	for _, rule := range rules {
		for _, verb := range rule.Verbs {
			all = append(all, right{namespace, rule.APIGroups[0], rule.Resources[0], strings.Join(rule.ResourceNames, ""), verb})
		}
	}
	return all
}

// withoutRight returns rules without one right.
func withoutRight(rules []rbacv1.PolicyRule, r right) []rbacv1.PolicyRule {
	var left []rbacv1.PolicyRule
	for _, rule := range rules {
		if rule.Resources[0] == r.resource && strings.Join(rule.ResourceNames, "") == r.name {
			rule.Verbs = slices.DeleteFunc(slices.Clone(rule.Verbs), func(verb string) bool { return verb == r.verb })
		}
		if len(rule.Verbs) > 0 {
			left = append(left, rule)
		}
	}
	return left
}

// isGranted reports whether the API server authorizes a right.
func isGranted(t *testing.T, r right) bool {
	review, err := harness.Control(t).Admin.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User:               "system:serviceaccount:" + harness.AgentNamespace + ":" + harness.AgentName,
			ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: r.namespace, Group: r.group, Resource: r.resource, Name: r.name, Verb: r.verb},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	return review.Status.Allowed
}

// busyAgent is an agent that does everything it can do. It may never become ready.
type busyAgent struct {
	*harness.Process
	ranges      string
	changeCount int
}

// startBusyAgent starts an agent without a Lease and without saved ranges.
func startBusyAgent(t *testing.T) *busyAgent {
	forget := func() {
		harness.Kubectl(t, "", "delete", "lease,configmap", "-n", harness.AgentNamespace, harness.AgentName, "egress-ranges", "egress-platform", "rbac", "--ignore-not-found")
	}
	forget()
	kubeconfig, err := harness.Control(t).ServiceAccountKubeconfig(t.Context(), harness.AgentNamespace, harness.AgentName)
	require.NoError(t, err)
	a := &busyAgent{ranges: filepath.Join(t.TempDir(), "ip-ranges.json")}
	copyFile(t, harness.RangesFile, a.ranges)
	log, err := os.Create(filepath.Join(t.TempDir(), "agent.log"))
	require.NoError(t, err)
	command := exec.Command(harness.Binary(t, harness.AgentName), "--kubeconfig", kubeconfig, "--ip-family", "ipv4", "--ranges-file", a.ranges,
		"--settle", "0s", "--http-addr", harness.FreeAddress(t))
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, command.Start())
	a.Process = &harness.Process{Command: command, LogFile: log.Name()}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
		log.Close()
		forget()
		harness.Kubectl(t, "", "delete", "configmap,networkpolicy", "-n", "rbac", "--all")
	})
	return a
}

func copyFile(t *testing.T, from, to string) {
	data, err := os.ReadFile(from)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(to, data, 0o600))
}

// changeEverything changes everything that the agent watches: a platform document, a small policy, a large one, one that appears and
// disappears, a NetworkPolicy that a user deletes and, at the fifth call, the ranges.
func (a *busyAgent) changeEverything(t *testing.T) {
	ctx := context.Background()
	a.changeCount++
	configMaps, policies := harness.Control(t).Admin.CoreV1().ConfigMaps("rbac"), harness.Control(t).Admin.NetworkingV1().NetworkPolicies("rbac")
	for name, entries := range map[string]int{"small": 1, "large": 300, "restored": 1, "fleeting": 1} {
		changing := a.changeCount
		if name == "restored" {
			changing = 0
		}
		text := manyCIDRs(entries, changing)
		if a.changeCount == 1 || name == "fleeting" && a.changeCount%2 == 1 {
			_, err := configMaps.Create(ctx, &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"egress-controller": "managed"}},
				Data:       map[string]string{"policy.json": text},
			}, metav1.CreateOptions{})
			require.NoError(t, err)
		} else if name == "fleeting" {
			require.NoError(t, configMaps.Delete(ctx, name, metav1.DeleteOptions{}))
		} else {
			_, err := configMaps.Patch(ctx, name, types.MergePatchType, fmt.Appendf(nil, `{"data": {"policy.json": %q}}`, text), metav1.PatchOptions{})
			require.NoError(t, err)
		}
	}
	a.changeDocument(t)
	_ = policies.Delete(ctx, "restored", metav1.DeleteOptions{}) // it may not exist
	if a.changeCount == 5 {
		copyFile(t, harness.Root+"/testdata/ranges/ip-ranges-next.json", a.ranges)
	}
	time.Sleep(150 * time.Millisecond)
}

// changeDocument changes a platform document, which the agent then saves for the webhook.
func (a *busyAgent) changeDocument(t *testing.T) {
	documents := harness.Control(t).Admin.CoreV1().ConfigMaps(harness.AgentNamespace)
	text := fmt.Sprintf(`{"namespaces": {"matchLabels": {"a": "b"}}, "allowedDestinations": [{"name": "a", "cidr": "10.0.%d.0/24", "ports": [443]}]}`, a.changeCount%256)
	var err error
	if a.changeCount == 1 {
		_, err = documents.Create(t.Context(), &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: "rbac", Labels: map[string]string{"egress-controller": "platform"}},
			Data:       map[string]string{"platform.json": text},
		}, metav1.CreateOptions{})
	} else {
		_, err = documents.Patch(t.Context(), "rbac", types.MergePatchType, fmt.Appendf(nil, `{"data": {"platform.json": %q}}`, text), metav1.PatchOptions{})
	}
	require.NoError(t, err)
}

// manyCIDRs returns a policy of n CIDRs and one more, which depends on the version.
func manyCIDRs(n, version int) string {
	entries := make([]string, n)
	for i := range entries {
		entries[i] = fmt.Sprintf(`{"name": "n%d", "cidr": "10.%d.%d.0/25", "ports": [443]}`, i, i/256, i%256)
	}
	entries = append(entries, fmt.Sprintf(`{"name": "last", "cidr": "172.16.%d.0/24", "ports": [443]}`, version%256),
		`{"name": "s3", "awsService": "s3", "regions": ["us-east-1"], "ports": [443]}`)
	return `{"allowedDestinations": [` + strings.Join(entries, ",\n") + `]}`
}
