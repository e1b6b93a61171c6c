package mirror

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/scripts/e2e/harness"
)

// TestMirrorFollowsPolicies follows copies: made, repaired, changed, in conflict, and gone with their policies.
func TestMirrorFollowsPolicies(t *testing.T) {
	w := newWorld(t, "tenant-a", "tenant-b")
	w.createNamespace(w.hub, "later")
	w.put("tenant-a", "egress", policy(1), func(c *corev1.ConfigMap) {
		c.Labels["app.kubernetes.io/instance"] = "argo"
		c.Annotations = map[string]string{"egress-controller/inherit": "true", "argocd.argoproj.io/tracking-id": "x"}
		c.Data["README"] = "not a policy"
	})
	w.put("later", "egress", policy(2), nil)
	w.put("kube-system", "egress", policy(3), nil)
	w.put("tenant-b", "taken", policy(4), nil)
	w.put("tenant-b", "unlabelled", policy(4), nil)
	w.put("tenant-b", "large", `{"x": "`+strings.Repeat("x", 256<<10)+`"}`, nil)
	w.put("tenant-b", "chain", policy(5), func(c *corev1.ConfigMap) { c.Labels[originLabel] = "another-hub" })
	for name, labels := range map[string]map[string]string{"taken": {"egress-controller": "managed"}, "unlabelled": nil} {
		_, err := w.here.CoreV1().ConfigMaps("tenant-b").Create(t.Context(), &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Data: map[string]string{"policy.json": "mine"},
		}, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	m := w.start()

	made := w.awaitDocument("tenant-a", "egress", policy(1))
	system, err := w.hub.CoreV1().Namespaces().Get(t.Context(), "kube-system", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"egress-controller": "managed", originLabel: string(system.UID)}, made.Labels)
	require.Equal(t, map[string]string{"egress-controller/inherit": "true"}, made.Annotations)
	require.Equal(t, map[string]string{"policy.json": policy(1)}, made.Data)

	harness.Eventually(t, "each policy has its state", func() bool {
		return m.Metric(t, `egress_agent_mirror_policies{state="copied"}`) == 1 &&
			m.Metric(t, `egress_agent_mirror_policies{state="conflict"}`) == 2 &&
			m.Metric(t, `egress_agent_mirror_policies{state="unfit"}`) == 1 &&
			m.Metric(t, `egress_agent_mirror_policies{state="no_namespace"}`) == 1
	})
	require.Nil(t, w.find("kube-system", "egress"))
	require.Nil(t, w.find("tenant-b", "chain"))
	w.awaitLog(m, `namespace=tenant-b name=taken state=conflict error="a ConfigMap of this name exists`)
	w.awaitLog(m, `namespace=tenant-b name=unlabelled state=conflict`)
	w.awaitLog(m, `namespace=tenant-b name=large state=unfit error="the hub's policy.json has 262`)
	require.Greater(t, m.Metric(t, "egress_agent_mirror_hub_listed_timestamp_seconds"), float64(time.Now().Add(-time.Hour).Unix()))

	// What somebody edits or deletes here comes back. What others add to the metadata stays.
	w.edit("tenant-a", "egress", func(c *corev1.ConfigMap) {
		c.Data, c.Annotations["egress-controller/inherit"], c.Annotations["team"] = map[string]string{"policy.json": "{}", "more": "x"}, "no", "mine"
	})
	repaired := w.awaitDocument("tenant-a", "egress", policy(1))
	require.Equal(t, map[string]string{"egress-controller/inherit": "true", "team": "mine"}, repaired.Annotations)
	require.Len(t, repaired.Data, 1)
	w.edit("tenant-a", "egress", func(c *corev1.ConfigMap) { delete(c.Labels, "egress-controller") })
	harness.Eventually(t, "the label is back", func() bool { return w.find("tenant-a", "egress").Labels["egress-controller"] == "managed" })
	harness.Kubectl(t, "", "delete", "configmap", "-n", "tenant-a", "egress")
	w.awaitDocument("tenant-a", "egress", policy(1))

	// The hub's changes follow, and so does a namespace that appears later, or whose ConfigMap gets out of the way.
	w.put("tenant-a", "egress", policy(6), nil)
	require.NotContains(t, w.awaitDocument("tenant-a", "egress", policy(6)).Annotations, "egress-controller/inherit")
	w.createNamespace(w.here, "later")
	w.awaitDocument("later", "egress", policy(2))
	require.Equal(t, "mine", w.find("tenant-b", "taken").Data["policy.json"])
	harness.Kubectl(t, "", "delete", "configmap", "-n", "tenant-b", "taken")
	w.awaitDocument("tenant-b", "taken", policy(4))

	// A single policy may go at once.
	w.remove("tenant-a", "egress")
	w.awaitGone("tenant-a", "egress")
	require.Contains(t, w.find(harness.AgentNamespace, program).Data["deletions.json"], `"count":1`)

	// After a restart, nothing is written. Off, nothing acts, and the copies stay.
	m.Stop(t)
	require.NotContains(t, m.Log(t), "context canceled")
	mark := w.mark()
	m = w.start()
	harness.Eventually(t, "all are checked", func() bool { return m.Metric(t, `egress_agent_mirror_policies{state="copied"}`) == 2 })
	m.Stop(t)
	require.Empty(t, w.writes(mark))
	require.Equal(t, []string{"taken"}, w.copies("tenant-b"))
}

// TestMirrorHoldsMassDeletions empties the hub, and accepts this with the token.
func TestMirrorHoldsMassDeletions(t *testing.T) {
	w := newWorld(t, "mass")
	w.putMany("mass", 0, 10)
	m := w.start()
	w.awaitCopies("mass", 10)
	w.proxy.set(down) // so that the mirror sees all deletions at once, however slow they are
	w.removeAll(w.hub)
	w.proxy.set(nil)
	w.awaitLog(m, `msg="deletions held" owed=10 copies=10 deletedInLastHour=0`)
	require.EqualValues(t, 10, m.Metric(t, "egress_agent_mirror_deletions_held"))
	w.putMany("mass", 10, 11) // what the hub has more is copied meanwhile
	w.awaitDocument("mass", "p-10", policy(10))
	require.Len(t, w.copies("mass"), 11)
	m.Stop(t)
	if !harness.RunsAll() {
		return
	}
	// A restart holds, too. The token accepts exactly this set.
	m = w.start("--accept-deletions", token(m, t))
	w.awaitCopies("mass", 1)
	require.Contains(t, m.Log(t), "verb=delete")
	require.Nil(t, w.find(harness.AgentNamespace, program), "accepted deletions do not count")
}

// TestMirrorReportsABadHub gives the mirror hubs that it cannot follow. It logs one line for each, without credentials,
// and changes nothing.
func TestMirrorReportsABadHub(t *testing.T) {
	w := newWorld(t, "bad")
	w.put("bad", "egress", policy(1), nil)
	good := w.readKubeconfig()
	const secret = "s3cr3t-t0k3n"
	self := harness.Control(t).Kubeconfig
	for _, test := range []struct{ cause, kubeconfig string }{
		{"the kubeconfig is invalid", "token: " + secret + "\n\t- " + secret},
		{"the kubeconfig is invalid", secret},
		{"the kubeconfig is invalid", ""},
		{"the kubeconfig is invalid", strings.Replace(good, "current-context: hub", "current-context: "+"none", 1)},
		{"the hub does not accept the credentials", strings.Replace(good, "tokenFile: token", "token: "+secret, 1)},
		{"the hub is this cluster", readFile(t, self)},
		{"no answer from the hub", strings.Replace(good, w.proxy.url, "https://"+harness.FreeAddress(t), 1)},
	} {
		t.Run(test.cause, func(t *testing.T) {
			w.replaceKubeconfig(test.kubeconfig)
			m := w.startUnready()
			w.awaitLog(m, `msg="hub lost, retrying" cause="`+test.cause+`"`)
			m.Kill(t)
			require.NotContains(t, m.Log(t), secret)
			require.Equal(t, 1, strings.Count(m.Log(t), "level=WARN"), m.Log(t))
		})
	}
	require.NoError(t, os.Remove(w.kubeconfig))
	m := w.startUnready()
	w.awaitLog(m, `cause="the kubeconfig cannot be read"`)
	require.Nil(t, w.find("bad", "egress"))

	// The hub is followed as soon as the file is right.
	w.replaceKubeconfig(good)
	w.awaitLog(m, `msg="hub followed"`)
	w.awaitDocument("bad", "egress", policy(1))
	require.NotContains(t, m.Log(t), readFile(t, w.tokenFile))
}
