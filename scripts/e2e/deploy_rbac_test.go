package e2e

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
)

const (
	agentName      = "egress-agent"
	agentNamespace = "egress-system"
)

// right is one verb on one resource, in the agent's own namespace or, where that is empty, in all.
type right struct{ namespace, group, resource, name, verb string }

func (r right) String() string {
	return strings.Trim(strings.Join([]string{r.namespace, r.verb, r.resource, r.name}, " "), " ")
}

// TestRBAC takes each right of the agent away in turn: it misses every one, so that none is granted in vain.
func TestRBAC(t *testing.T) {
	long(t)
	t.Cleanup(func() { kubectl(t, "", "replace", "-f", root+"/deploy/base/agent-rbac.yaml") })
	role, err := control.Admin.RbacV1().Roles(agentNamespace).Get(t.Context(), agentName, metav1.GetOptions{})
	require.NoError(t, err)
	clusterRole, err := control.Admin.RbacV1().ClusterRoles().Get(t.Context(), agentName, metav1.GetOptions{})
	require.NoError(t, err)

	namespace(t, "rbac")
	t.Run("all are granted", func(t *testing.T) {
		a := agitate(t)
		for range 20 {
			a.stir(t)
		}
		require.Contains(t, a.logged(t), `msg="NetworkPolicy written"`)
		require.NotContains(t, a.logged(t), "forbidden")
	})
	count := 0
	for _, from := range []struct {
		namespace string
		rules     []rbacv1.PolicyRule
		grant     func(rules []rbacv1.PolicyRule) error
	}{
		{"", clusterRole.Rules, func(rules []rbacv1.PolicyRule) error {
			changed := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: agentName}, Rules: rules}
			_, err := control.Admin.RbacV1().ClusterRoles().Update(t.Context(), changed, metav1.UpdateOptions{})
			return err
		}},
		{agentNamespace, role.Rules, func(rules []rbacv1.PolicyRule) error {
			changed := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: agentNamespace, Name: agentName}, Rules: rules}
			_, err := control.Admin.RbacV1().Roles(agentNamespace).Update(t.Context(), changed, metav1.UpdateOptions{})
			return err
		}},
	} {
		for _, r := range rights(from.namespace, from.rules) {
			count++
			t.Run(r.String(), func(t *testing.T) {
				require.NoError(t, from.grant(without(from.rules, r)))
				eventually(t, "it is taken away", func() bool { return !granted(t, r) })
				a := agitate(t)
				missed := fmt.Sprintf(`cannot %s resource \"%s\"`, r.verb, r.resource)
				eventually(t, missed, func() bool { a.stir(t); return strings.Contains(a.logged(t), missed) })
			})
		}
		require.NoError(t, from.grant(from.rules))
	}
	require.Equal(t, 16, count)
}

// rights lists what rules grant. Each has one group and one resource, and at most one name.
func rights(namespace string, rules []rbacv1.PolicyRule) []right {
	var all []right
	for _, rule := range rules {
		for _, verb := range rule.Verbs {
			all = append(all, right{namespace, rule.APIGroups[0], rule.Resources[0], strings.Join(rule.ResourceNames, ""), verb})
		}
	}
	return all
}

// without returns rules less one right.
func without(rules []rbacv1.PolicyRule, r right) []rbacv1.PolicyRule {
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

// granted asks the API server.
func granted(t *testing.T, r right) bool {
	review, err := control.Admin.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User:               "system:serviceaccount:" + agentNamespace + ":" + agentName,
			ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: r.namespace, Group: r.group, Resource: r.resource, Name: r.name, Verb: r.verb},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	return review.Status.Allowed
}

// agitated is an agent that is kept busy with all that it ever does. It may never be ready.
type agitated struct {
	*process
	ranges string
	stirs  int
}

// agitate starts an agent that finds neither a Lease nor kept ranges.
func agitate(t *testing.T) *agitated {
	forget := func() {
		kubectl(t, "", "delete", "lease,configmap", "-n", agentNamespace, agentName, "egress-ranges", "--ignore-not-found")
	}
	forget()
	kubeconfig, err := control.ServiceAccountKubeconfig(t.Context(), agentNamespace, agentName)
	require.NoError(t, err)
	a := &agitated{ranges: filepath.Join(t.TempDir(), "ip-ranges.json")}
	copyFile(t, ranges, a.ranges)
	log, err := os.Create(filepath.Join(t.TempDir(), "agent.log"))
	require.NoError(t, err)
	command := exec.Command(filepath.Join(binaries(), agentName), "--kubeconfig", kubeconfig, "--ip-family", "ipv4", "--ranges-file", a.ranges,
		"--settle", "0s", "--http-addr", freeAddress(t))
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, command.Start())
	a.process = &process{command: command, log: log.Name()}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
		log.Close()
		forget()
		kubectl(t, "", "delete", "configmap,networkpolicy", "-n", "rbac", "--all")
	})
	return a
}

func copyFile(t *testing.T, from, to string) {
	data, err := os.ReadFile(from)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(to, data, 0o600))
}

// stir changes everything that the agent looks at: a small policy and a large one, one that comes and goes, a
// NetworkPolicy that somebody deletes and, after a while, the ranges.
func (a *agitated) stir(t *testing.T) {
	ctx := context.Background()
	a.stirs++
	configMaps, policies := control.Admin.CoreV1().ConfigMaps("rbac"), control.Admin.NetworkingV1().NetworkPolicies("rbac")
	for name, entries := range map[string]int{"small": 1, "large": 300, "restored": 1, "fleeting": 1} {
		changing := a.stirs
		if name == "restored" {
			changing = 0
		}
		text := manyCIDRs(entries, changing)
		if a.stirs == 1 || name == "fleeting" && a.stirs%2 == 1 {
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
	_ = policies.Delete(ctx, "restored", metav1.DeleteOptions{}) // where it is there
	if a.stirs == 5 {
		copyFile(t, root+"/testdata/ranges/ip-ranges-next.json", a.ranges)
	}
	time.Sleep(150 * time.Millisecond)
}

// manyCIDRs is a policy of so many CIDRs; the last changes from one version to the next.
func manyCIDRs(n, version int) string {
	entries := make([]string, n)
	for i := range entries {
		entries[i] = fmt.Sprintf(`{"name": "n%d", "cidr": "10.%d.%d.0/25", "ports": [443]}`, i, i/256, i%256)
	}
	entries = append(entries, fmt.Sprintf(`{"name": "last", "cidr": "172.16.%d.0/24", "ports": [443]}`, version%256),
		`{"name": "s3", "awsService": "s3", "regions": ["us-east-1"], "ports": [443]}`)
	return `{"allowedDestinations": [` + strings.Join(entries, ",\n") + `]}`
}
