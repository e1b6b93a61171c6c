package mirror

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"egress-agent/scripts/e2e/cluster"
	"egress-agent/scripts/e2e/harness"
)

// TestAdmissionPolicyBindsTheMirror uses the mirror's token for what the mirror never does. Its rights allow it, and the
// ValidatingAdmissionPolicy of the component does not.
func TestAdmissionPolicyBindsTheMirror(t *testing.T) {
	w := newWorld(t, "bound")
	mirror, err := cluster.Bare(w.local)
	require.NoError(t, err)
	ctx := t.Context()
	labelled := func(labels ...string) *corev1.ConfigMap {
		c := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x", Labels: make(map[string]string)}}
		for _, label := range labels {
			key, value, _ := strings.Cut(label, "=")
			c.Labels[key] = value
		}
		return c
	}
	copyLabels := []string{managed, originLabel + "=hub"}
	create := func(client *kubernetes.Clientset, namespace string, c *corev1.ConfigMap) error {
		_, err := client.CoreV1().ConfigMaps(namespace).Create(ctx, c, metav1.CreateOptions{})
		return err
	}
	update := func(labels ...string) error {
		_, err := mirror.CoreV1().ConfigMaps("bound").Update(ctx, labelled(labels...), metav1.UpdateOptions{})
		return err
	}
	remove := func(client *kubernetes.Clientset) error {
		return client.CoreV1().ConfigMaps("bound").Delete(context.Background(), "x", metav1.DeleteOptions{})
	}
	const onlyCopies, changesOnlyCopies = "writes only copies", "changes only its copies"
	harness.Eventually(t, "the policy is enforced", func() bool {
		err := create(mirror, "bound", labelled())
		if err == nil {
			require.NoError(t, remove(w.here))
		}
		return err != nil && strings.Contains(err.Error(), onlyCopies)
	})
	require.ErrorContains(t, create(mirror, "bound", labelled(managed)), onlyCopies)
	require.ErrorContains(t, create(mirror, "bound", labelled(originLabel+"=hub")), onlyCopies)
	require.ErrorContains(t, create(mirror, "bound", labelled("egress-controller=platform", originLabel+"=hub")), onlyCopies)
	for _, namespace := range []string{"kube-system", "kube-public", "kube-node-lease", harness.AgentNamespace} {
		require.ErrorContains(t, create(mirror, namespace, labelled(copyLabels...)), "writes nothing into the namespaces")
	}

	for _, labels := range [][]string{nil, {managed}} { // ConfigMaps of others
		require.NoError(t, create(w.here, "bound", labelled(labels...)))
		require.ErrorContains(t, update(copyLabels...), changesOnlyCopies)
		require.ErrorContains(t, remove(mirror), changesOnlyCopies)
		require.NoError(t, remove(w.here))
	}
	require.NoError(t, create(mirror, "bound", labelled(copyLabels...)))
	require.ErrorContains(t, update(managed), onlyCopies)
	require.NoError(t, update(copyLabels...))
	require.NoError(t, remove(mirror))

	require.NoError(t, create(w.here, "bound", labelled("a=b")), "others are not bound")
	require.NoError(t, remove(w.here))
	record := labelled()
	record.Name = program
	require.NoError(t, create(mirror, harness.AgentNamespace, record), "the record of deletions")
}

// TestMirrorNeedsEachRight removes each right of the mirror in turn, here and on the hub, and requires that the mirror
// needs it.
func TestMirrorNeedsEachRight(t *testing.T) {
	harness.SkipUnlessAll(t)
	w := newWorld(t, "rights")
	count := 0
	for _, side := range []struct {
		client *kubernetes.Clientset
		role   string
		user   string
	}{
		{w.here, program, "system:serviceaccount:" + harness.AgentNamespace + ":" + program},
		{w.hub, "egress-mirror-hub", "system:serviceaccount:" + program + ":" + program},
	} {
		roles := side.client.RbacV1().ClusterRoles()
		granted, err := roles.Get(t.Context(), side.role, metav1.GetOptions{})
		require.NoError(t, err)
		grant := func(rules []rbacv1.PolicyRule) {
			_, err := roles.Update(context.Background(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: side.role}, Rules: rules}, metav1.UpdateOptions{})
			require.NoError(t, err)
		}
		t.Cleanup(func() { grant(granted.Rules) })
		for i, rule := range granted.Rules {
			for j, verb := range rule.Verbs {
				count++
				t.Run(side.role+" "+verb+" "+rule.Resources[0], func(t *testing.T) {
					less := granted.DeepCopy().Rules
					if less[i].Verbs = slices.Delete(less[i].Verbs, j, j+1); len(less[i].Verbs) == 0 {
						less = slices.Delete(less, i, i+1)
					}
					grant(less)
					w.busy(t, fmt.Sprintf(`User \"%s\" cannot %s resource \"%s\"`, side.user, verb, rule.Resources[0]))
				})
			}
		}
		grant(granted.Rules)
	}
	require.Equal(t, 12, count)
}

// busy makes the mirror do everything that it can do, until its log has a text.
func (w *world) busy(t *testing.T, text string) {
	t.Helper()
	w.removeAll(w.hub)
	w.removeAll(w.here)
	_ = w.here.CoreV1().ConfigMaps(harness.AgentNamespace).Delete(t.Context(), program, metav1.DeleteOptions{})
	w.putMany("rights", 0, 2)
	m := w.startUnready()
	defer m.Kill(t)
	for i := 2; !strings.Contains(m.Log(t), text); i++ {
		require.Less(t, i, 500, "not in time: %s\n%s", text, m.Log(t))
		w.put("rights", "p-0", policy(i), nil)
		if i%20 == 0 { // a copy to create and, after the settle, one to delete
			w.putMany("rights", i, i+1)
		}
		if i == 21 {
			w.remove("rights", "p-20")
		}
		sleep(100)
	}
}
