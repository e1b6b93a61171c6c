package mirror

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"

	"egress-agent/scripts/e2e/cluster"
	"egress-agent/scripts/e2e/harness"
)

// TestFaultPartition cuts the connection to the hub, in two ways, and changes everything meanwhile. The copies stay,
// and edits of them are restored. Afterwards they follow.
func TestFaultPartition(t *testing.T) {
	harness.SkipUnlessAll(t)
	w := newWorld(t, "cut")
	w.putMany("cut", 0, 20)
	m := w.start()
	w.awaitCopies("cut", 20)
	w.awaitDocument("cut", "p-0", policy(0))
	for i, fault := range []http.HandlerFunc{
		down,
		func(rw http.ResponseWriter, _ *http.Request) {
			http.Error(rw, "<html>no such page", http.StatusNotFound)
		},
	} {
		last := w.find("cut", "p-0").Data["policy.json"]
		w.proxy.set(fault)
		harness.Eventually(t, "the loss is logged", func() bool { return strings.Count(m.Log(t), `msg="hub lost, retrying"`) == i+1 })
		w.remove("cut", fmt.Sprintf("p-%d", 19-i))
		w.put("cut", "p-0", policy(100+i), nil)
		w.edit("cut", "p-1", func(c *corev1.ConfigMap) { c.Data["policy.json"] = "{}" })
		w.awaitDocument("cut", "p-1", policy(1))
		require.Equal(t, last, w.find("cut", "p-0").Data["policy.json"])
		w.proxy.set(nil)
		w.awaitDocument("cut", "p-0", policy(100+i))
		harness.Eventually(t, "the return is logged", func() bool { return strings.Count(m.Log(t), `msg="hub followed"`) == i+2 })
	}
	w.awaitCopies("cut", 18)
	w.awaitLogCount(m, "verb=delete", 2)
}

// TestFaultHalfLists gives the mirror lists that end too early, and complete ones that lack policies which the hub has.
func TestFaultHalfLists(t *testing.T) {
	harness.SkipUnlessAll(t)
	w := newWorld(t, "half")
	w.putMany("half", 0, 20)
	m := w.start()
	w.awaitCopies("half", 20)
	w.proxy.set(w.proxy.changeLists(func(body []byte) []byte { return body[:len(body)/2] }))
	w.awaitLog(m, `msg="hub lost, retrying" cause="the answer of the hub is incomplete"`)
	w.proxy.set(w.proxy.changeLists(func(body []byte) []byte { return withoutItems(t, body, 2) }))
	w.awaitLog(m, `msg="the list of the hub lacked policies that it has; their copies stay" policies=2`)
	w.proxy.set(w.proxy.changeLists(func(body []byte) []byte { return withoutItems(t, body, 10) }))
	w.awaitLog(m, `msg="deletions held" owed=10 copies=20 deletedInLastHour=0`)
	w.proxy.set(nil)
	harness.Eventually(t, "nothing is held", func() bool { return m.Metric(t, "egress_agent_mirror_deletions_held") == 0 })
	require.Len(t, w.copies("half"), 20)
	require.NotContains(t, m.Log(t), "verb=delete")
}

// withoutItems returns an encoded list of ConfigMaps without its first items.
func withoutItems(t *testing.T, body []byte, count int) []byte {
	serializer := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)
	object, _, err := serializer.Decode(body, nil, nil)
	require.NoError(t, err)
	list := object.(*corev1.ConfigMapList)
	list.Items = list.Items[count:]
	list.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMapList"}
	encoded, err := runtime.Encode(serializer, list)
	require.NoError(t, err)
	return encoded
}

// TestFaultTwoMirrors runs two at once, and kills one amid its work.
func TestFaultTwoMirrors(t *testing.T) {
	harness.SkipUnlessAll(t)
	w := newWorld(t, "two")
	mark := w.mark()
	first, second := w.start(), w.start()
	w.putMany("two", 0, 100)
	w.awaitCopies("two", 100)
	for i := range 100 {
		w.put("two", fmt.Sprintf("p-%d", i), policy(1000+i), nil)
		if i == 50 {
			first.Kill(t)
		}
	}
	for i := range 100 {
		w.awaitDocument("two", fmt.Sprintf("p-%d", i), policy(1000+i))
	}
	counts := make(map[string]int)
	for _, write := range w.writes(mark) {
		if verb, object, _ := strings.Cut(write, " configmaps "); strings.HasPrefix(object, "two/") {
			counts[verb]++
		}
	}
	require.Equal(t, map[string]int{"create": 100, "update": 100}, counts)
	require.NotContains(t, first.Log(t)+second.Log(t), "level=WARN")
}

// TestFaultCredentialsChange revokes the token of the token file and writes another one. Then it replaces the kubeconfig,
// and deletes a namespace here.
func TestFaultCredentialsChange(t *testing.T) {
	harness.SkipUnlessAll(t)
	w := newWorld(t, "rotated", "deleted")
	w.put("deleted", "egress", policy(0), nil)
	m := w.start()
	w.awaitDocument("deleted", "egress", policy(0))
	require.NoError(t, hubKubectl("delete", "serviceaccount", "-n", program, program))
	require.NoError(t, hubKubectl("apply", "-f", manifests+"hub-rbac.yaml"))
	old, err := cluster.Bare(w.kubeconfig)
	require.NoError(t, err)
	harness.Eventually(t, "the hub refuses the old token", func() bool { // it remembers tokens for ten seconds
		_, err := old.CoreV1().Namespaces().Get(t.Context(), "kube-system", metav1.GetOptions{})
		return apierrors.IsUnauthorized(err)
	})
	w.proxy.set(nil) // ends the watch
	w.awaitLog(m, `cause="the hub does not accept the credentials"`)
	w.writeToken()
	w.awaitLogCount(m, `msg="hub followed"`, 2)
	w.put("rotated", "egress", policy(1), nil)
	w.awaitDocument("rotated", "egress", policy(1))

	harness.Kubectl(t, "", "delete", "namespace", "deleted", "--wait=false")
	harness.Eventually(t, "the namespace is missing", func() bool {
		return m.Metric(t, `egress_agent_mirror_policies{state="no_namespace"}`) == 1
	})
	w.proxy.set(down)
	other := startProxy(t)
	w.writeKubeconfig(other.url)
	w.put("rotated", "egress", policy(2), nil)
	w.awaitDocument("rotated", "egress", policy(2))
	for line := range strings.Lines(m.Log(t)) {
		require.False(t, strings.Contains(line, "level=WARN") && !strings.Contains(line, "hub lost"), line)
	}
	require.NotContains(t, m.Log(t), readFile(t, w.tokenFile))
}

// TestFaultWebhookRefuses copies into a namespace whose webhook refuses a policy. The last good copy stays.
func TestFaultWebhookRefuses(t *testing.T) {
	harness.SkipUnlessAll(t)
	w := newWorld(t, "checked")
	harness.Kubectl(t, "", "label", "namespace", "checked", "egress-validation=enabled")
	harness.StartRegisteredWebhook(t)
	w.put("checked", "egress", policy(1), nil)
	m := w.start()
	w.awaitDocument("checked", "egress", policy(1))
	w.put("checked", "egress", harness.InvalidPolicy, nil)
	w.awaitLog(m, `name=egress state=refused error="update the copy: admission webhook \"policy.egress-controller.io\" denied the request: Policy validation failed: Invalid region: us-esat-1`)
	require.Equal(t, policy(1), w.find("checked", "egress").Data["policy.json"])
	time.Sleep(time.Second) // several attempts, and one line
	w.awaitLogCount(m, "state=refused", 1)
	w.put("checked", "egress", policy(2), nil)
	w.awaitDocument("checked", "egress", policy(2))
}
