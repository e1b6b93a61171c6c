package hostile

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"egress-agent/scripts/e2e/cluster"
	"egress-agent/scripts/e2e/harness"
	"egress-agent/scripts/e2e/pod"
)

// changeTime is the time in which the agent must apply an ordinary tenant's change. It is long, because other processes
// run on this machine. benchhostile measures the time of a change.
const changeTime = 30 * time.Second

// world is the control plane with the ordinary tenants, and the namespace of a hostile tenant.
type world struct {
	t       *testing.T
	client  *kubernetes.Clientset // without a rate limit
	hostile string                // the namespace
	agent   *pod.Process
}

// ordinary creates the ordinary tenants once.
var ordinary sync.Once

// changes numbers the changes of ordinary tenants, so that no two are equal.
var changes atomic.Int64

// newWorld creates a namespace for a hostile tenant. It is emptied when the test ends, after the agent has stopped.
func newWorld(t *testing.T, name string) *world {
	t.Helper()
	client, err := cluster.Bare(harness.Control(t).Kubeconfig)
	require.NoError(t, err)
	ordinary.Do(func() { err = CreateTenants(context.Background(), client) })
	require.NoError(t, err)
	w := &world{t: t, client: client, hostile: name}
	require.NoError(t, CreateNamespace(t.Context(), client, name))
	t.Cleanup(w.empty)
	return w
}

// empty deletes what the hostile tenant has stored, so that the next test starts without it. The namespace itself may
// take longer.
func (w *world) empty() {
	w.delete()
	require.NoError(w.t, w.client.CoreV1().Namespaces().Delete(context.Background(), w.hostile, metav1.DeleteOptions{}))
}

// delete deletes the ConfigMaps and the NetworkPolicies. If there are thousands, an API server deletes only some within
// the time of a request, and returns an error, so delete repeats it.
func (w *world) delete() {
	for _, collection := range []interface {
		DeleteCollection(context.Context, metav1.DeleteOptions, metav1.ListOptions) error
	}{w.client.CoreV1().ConfigMaps(w.hostile), w.client.NetworkingV1().NetworkPolicies(w.hostile)} {
		var err error
		for until := time.Now().Add(4 * harness.Timeout); time.Now().Before(until); {
			if err = collection.DeleteCollection(context.Background(), metav1.DeleteOptions{}, metav1.ListOptions{}); err == nil {
				break
			}
		}
		require.NoError(w.t, err)
	}
}

// start runs egress-agent until the test ends.
func (w *world) start() {
	w.t.Helper()
	kubeconfig, err := harness.Control(w.t).ServiceAccountKubeconfig(w.t.Context(), "egress-system", "egress-agent")
	require.NoError(w.t, err)
	w.t.Cleanup(func() {
		err := w.client.CoreV1().ConfigMaps("egress-system").Delete(context.Background(), "egress-ranges", metav1.DeleteOptions{})
		if !apierrors.IsNotFound(err) {
			require.NoError(w.t, err)
		}
	})
	log := filepath.Join(w.t.TempDir(), "egress-agent.log")
	w.agent, err = StartAgent(agentPod, harness.Binary(w.t, harness.AgentName), kubeconfig, rangesFile, log)
	require.NoError(w.t, err, end(log))
	stopAfter(w.t, w.agent, log)
}

// create stores n objects of the hostile tenant.
func (w *world) create(n int, object func(i int) *corev1.ConfigMap) {
	w.t.Helper()
	require.NoError(w.t, cluster.Each(n, func(i int) error {
		_, err := w.client.CoreV1().ConfigMaps(w.hostile).Create(w.t.Context(), object(i), metav1.CreateOptions{})
		return err
	}))
}

// often calls do so many times a second, for the length of an attack. do ignores failures.
func (w *world) often(perSecond int, do func(i int)) {
	every := time.NewTicker(time.Second / time.Duration(perSecond))
	defer every.Stop()
	for i, until := 0, time.Now().Add(lasting()); time.Now().Before(until); i++ {
		do(i)
		<-every.C
	}
}

// change edits an ordinary tenant's policy, and returns the time until its NetworkPolicy has the change, at most
// changeTime.
func (w *world) change() (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), changeTime)
	defer cancel()
	return Change(ctx, w.client, int(changes.Add(1)), w.agent.Ended)
}

// applied counts the changes of ordinary tenants during an attack.
type applied struct {
	changes, late int
	slowest       time.Duration
}

func (a *applied) String() string {
	if a.late > 0 {
		return fmt.Sprintf("%d of %d changes not within %s", a.late, a.changes, changeTime)
	}
	return fmt.Sprintf("%d changes, slowest %s", a.changes, a.slowest.Round(time.Millisecond))
}

func (a *applied) add(took time.Duration, err error) {
	a.changes++
	a.slowest = max(a.slowest, took)
	if err != nil {
		a.late++
	}
}

// beside makes changes one by one while do runs, and until the agent has processed what do has stored. It makes at
// least three.
func (w *world) beside(do func()) *applied {
	found, done := &applied{}, make(chan struct{})
	var changing sync.WaitGroup
	changing.Go(func() {
		for w.agent.Ended() == "" {
			select {
			case <-done:
				if found.changes >= 3 {
					return
				}
			case <-time.After(250 * time.Millisecond):
			}
			found.add(w.change())
		}
	})
	func() {
		defer changing.Wait()
		defer close(done)
		do()
		w.rest()
	}()
	return found
}

// rest waits until the agent uses less than a tenth of a core for two seconds, or for 30 seconds. On a busy machine, so
// little CPU time means that the agent has only the changes to process.
func (w *world) rest() {
	quiet, before := 0, time.Duration(0)
	for i := 0; i < 30 && quiet < 2; i++ {
		after, err := w.agent.CPU()
		if err != nil { // the process has ended
			return
		}
		if quiet++; i == 0 || after-before >= time.Second/10 {
			quiet = 0
		}
		before = after
		time.Sleep(time.Second)
	}
}

// withstands requires that the agent survives an attack within its memory limit, and applies an ordinary tenant's
// changes during and after it.
func (w *world) withstands(name string, attack func()) {
	w.t.Helper()
	w.start()
	_, err := w.change()
	require.NoError(w.t, err, "before the attack")
	w.requireAlive(name, w.beside(attack))
}

// startsAgain requires the same of an agent that starts while the attack is stored.
func (w *world) startsAgain(name string) {
	w.t.Helper()
	require.NoError(w.t, w.agent.Kill())
	w.start()
	w.requireAlive(name+", a start with it", w.beside(func() {}))
}

func (w *world) requireAlive(name string, found *applied) {
	w.t.Helper()
	result := "alive"
	if ended := w.agent.Ended(); ended != "" {
		result = ended
	}
	table.add("agent: "+name, result, megabytes(w.agent.Peak()), found.String())
	w.t.Logf("%s, peak %s, %s", result, megabytes(w.agent.Peak()), found)
	require.Equal(w.t, "alive", result)
	require.Less(w.t, w.agent.Peak(), agentPod.Memory, "its memory")
	require.Zero(w.t, found.late, "changes of ordinary tenants")
}
