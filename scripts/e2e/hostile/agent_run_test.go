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

const changeTime = 10 * time.Second // within which an ordinary tenant's change is applied

// world is the control plane, the ordinary tenants in it, and the namespace of a hostile one.
type world struct {
	t       *testing.T
	client  *kubernetes.Clientset // without a rate limit
	hostile string                // the namespace
	agent   *pod.Process
}

// ordinary makes the ordinary tenants, once.
var ordinary sync.Once

// changes numbers the changes of ordinary tenants, so that none repeats another.
var changes atomic.Int64

// newWorld makes a namespace for a hostile tenant, which is emptied when the test ends, after the agent has stopped.
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

// empty deletes all that a hostile tenant has stored, so that nothing of it is left for the next test. The namespace
// itself may take longer to go.
func (w *world) empty() {
	w.delete()
	require.NoError(w.t, w.client.CoreV1().Namespaces().Delete(context.Background(), w.hostile, metav1.DeleteOptions{}))
}

// delete deletes the ConfigMaps and the NetworkPolicies. Of thousands an API server deletes as many as it can in the
// time of a request, and says that it is not done.
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

// often does something so many times a second, for as long as an attack lasts, and passes over what fails.
func (w *world) often(perSecond int, do func(i int)) {
	every := time.NewTicker(time.Second / time.Duration(perSecond))
	defer every.Stop()
	for i, until := 0, time.Now().Add(lasting()); time.Now().Before(until); i++ {
		do(i)
		<-every.C
	}
}

// change edits an ordinary tenant's policy, and returns how long it takes until its NetworkPolicy shows that, at most
// changeTime.
func (w *world) change() (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), changeTime)
	defer cancel()
	return Change(ctx, w.client, int(changes.Add(1)), w.agent.Ended)
}

// applied are the changes of ordinary tenants that were made beside an attack.
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

// beside makes changes, one after the other, while do runs and until the agent has dealt with what do has stored, but
// three at least.
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

// rest waits until the agent has used less than a tenth of a core for two seconds, or has had half a minute. On a busy
// machine that is little enough to be sure that it has nothing to do but the changes.
func (w *world) rest() {
	quiet, before := 0, time.Duration(0)
	for i := 0; i < 30 && quiet < 2; i++ {
		after, err := w.agent.CPU()
		if err != nil { // it has ended
			return
		}
		if quiet++; i == 0 || after-before >= time.Second/10 {
			quiet = 0
		}
		before = after
		time.Sleep(time.Second)
	}
}

// withstands requires of an attack that the agent lives, within its memory, and applies an ordinary tenant's changes
// meanwhile and afterwards.
func (w *world) withstands(name string, attack func()) {
	w.t.Helper()
	w.start()
	_, err := w.change()
	require.NoError(w.t, err, "before the attack")
	w.requireAlive(name, w.beside(attack))
}

// startsAgain requires the same of an agent that starts with the attack stored.
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
