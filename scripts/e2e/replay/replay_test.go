// Package replay serves every document of AWS that a folder holds, as fast as the machine goes, to an agent with many
// policies under guardrails, and checks each version of each NetworkPolicy that the API server stores.
package replay

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/scripts/e2e/cluster"
	"egress-agent/scripts/e2e/harness"
	"egress-agent/scripts/e2e/measure"
)

// size is how much a replay replays. A documentCount of 0 means all.
type size struct{ namespaces, policies, documentCount int }

// TestReplay replays a part of the documents. With REPLAY=full, as in make replay, it replays them all.
func TestReplay(t *testing.T) {
	harness.SkipUnlessAll(t)
	s, isFull := size{namespaces: 12, policies: 120, documentCount: 8}, os.Getenv("REPLAY") == "full"
	if isFull {
		s = size{namespaces: 200, policies: 2000}
	}
	files, err := filepath.Glob(filepath.Join(os.Getenv("IP_RANGES_DATA"), "history", "*.json"))
	require.NoError(t, err)
	const want = "set IP_RANGES_DATA to a folder whose folder history has documents of AWS, each named by its syncToken: 1768919885.json"
	if len(files) < 2 && !isFull {
		t.Skip(want)
	}
	require.Greater(t, len(files), 1, want)
	slices.Sort(files)
	if s.documentCount > 0 {
		files = files[:min(s.documentCount, len(files))]
	}
	started := time.Now()
	r := &replay{t: t, server: harness.StartRangesServer(t), ranges: newPublishedRanges(), checker: newChecker()}
	r.createTenants(s)
	r.start(files)
	written, steps := 0, 0
	for i, file := range files[1:] {
		writes, unions := r.next(file)
		written, steps = written+writes, steps+unions
		t.Logf("document %d of %d: %d NetworkPolicies changed, %d of them in two writes; the agent has %d MB resident", i+2, len(files), writes, unions, r.memory("VmRSS")/1e6)
	}
	time.Sleep(2 * time.Second) // for a write that nobody owes
	r.checker.settle()
	r.checker.require(t)
	require.Positive(t, written)
	t.Logf("%d documents, %d policies in %d namespaces: %d writes, %d of them unions, in %v; %d versions checked; peak memory of the agent %d MB resident",
		len(files), s.policies, s.namespaces, written+steps, steps, time.Since(started).Round(time.Second), r.checker.versionCount(), r.memory("VmHWM")/1e6)
}

// replay is an agent, its tenants, and what it owes them.
type replay struct {
	t       *testing.T
	server  *harness.RangesServer
	ranges  *publishedRanges
	tenants []*tenant
	checker *checker
	agent   *exec.Cmd
}

// tenant is a policy. tier is that of its namespace, and may name no document.
type tenant struct {
	namespace, name, tier string
	destinations          []destination
}

func (p *tenant) key() string { return p.namespace + "/" + p.name }

// opening returns what the tenant's NetworkPolicy must open. It does not know the limits of a policy, which no tenant
// exceeds.
func (p *tenant) opening(ranges *publishedRanges) opening {
	open := openingOf(p.destinations, ranges)
	if g, isGoverned := documents[p.tier]; isGoverned {
		open = g.cut(open, ranges)
	}
	return open
}

// createTenants creates the namespaces, of which half are governed, the platform documents and the policies. Every run
// creates the same.
func (r *replay) createTenants(s size) {
	control, random := harness.Control(r.t), rand.New(rand.NewPCG(1, 2))
	tiers := []string{"metadata", "none", "europe", "none", "no-instances", "none"}
	for i := range s.namespaces {
		harness.CreateNamespace(r.t, fmt.Sprintf("tenant-%d", i), "tier="+tiers[i%len(tiers)])
	}
	for tier, g := range documents {
		configMap := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: tier, Labels: map[string]string{"egress-controller": "platform"}},
			Data:       map[string]string{"platform.json": platformDocument(tier, g)},
		}
		_, err := control.Admin.CoreV1().ConfigMaps(harness.AgentNamespace).Create(r.t.Context(), configMap, metav1.CreateOptions{})
		require.NoError(r.t, err)
	}
	for i := range s.policies {
		n := i % s.namespaces
		r.tenants = append(r.tenants, &tenant{fmt.Sprintf("tenant-%d", n), fmt.Sprintf("policy-%d", i), tiers[n%len(tiers)], newDestinations(random)})
	}
	require.NoError(r.t, cluster.Each(s.policies, func(i int) error {
		p := r.tenants[i]
		data, err := json.Marshal(map[string]any{"allowedDestinations": p.destinations})
		if err != nil {
			return err
		}
		configMap := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: p.name, Labels: map[string]string{"egress-controller": "managed"}},
			Data:       map[string]string{"policy.json": string(data)},
		}
		_, err = control.Admin.CoreV1().ConfigMaps(p.namespace).Create(r.t.Context(), configMap, metav1.CreateOptions{})
		return err
	}))
}

// start starts the watch and the agent, with the first document, and waits for all NetworkPolicies.
func (r *replay) start(files []string) {
	control := harness.Control(r.t)
	client, err := cluster.Bare(control.Kubeconfig)
	require.NoError(r.t, err)
	list, err := client.NetworkingV1().NetworkPolicies("").List(r.t.Context(), metav1.ListOptions{Limit: 1})
	require.NoError(r.t, err)
	watcher, err := client.NetworkingV1().NetworkPolicies("").Watch(r.t.Context(), metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	require.NoError(r.t, err)
	r.t.Cleanup(watcher.Stop)
	go r.checker.run(watcher.ResultChan())

	token := r.serve(files[0])
	kubeconfig, err := control.ServiceAccountKubeconfig(r.t.Context(), harness.AgentNamespace, harness.AgentName)
	require.NoError(r.t, err)
	log, err := os.Create(filepath.Join(r.t.TempDir(), "agent.log"))
	require.NoError(r.t, err)
	r.agent = exec.Command(os.Args[0])
	r.agent.Env = append(os.Environ(), agentKubeconfig+"="+kubeconfig, agentURL+"="+r.server.URL(), agentCA+"="+r.server.CAFile)
	r.agent.Stdout, r.agent.Stderr = log, log
	r.agent.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(r.t, r.agent.Start())
	r.t.Cleanup(func() {
		require.NoError(r.t, r.agent.Process.Signal(syscall.SIGTERM))
		require.NoError(r.t, r.agent.Wait())
		harness.DeleteSavedRanges(r.t)
		if r.t.Failed() {
			data, _ := os.ReadFile(log.Name())
			r.t.Logf("the end of the agent's log:\n%s", data[max(0, len(data)-5000):])
		}
	})
	r.await(token)
	created, _ := r.checker.counts()
	r.checker.require(r.t)
	r.t.Logf("document 1 of %d: %d NetworkPolicies are in force", len(files), created)
}

// serve publishes a document from now on, and sets what the agent then owes. It returns the document's syncToken.
func (r *replay) serve(file string) (token string) {
	data, err := os.ReadFile(file)
	require.NoError(r.t, err)
	token = strings.TrimSuffix(filepath.Base(file), ".json")
	seconds, err := strconv.ParseInt(token, 10, 64)
	require.NoError(r.t, err)
	published := time.Unix(seconds, 0)
	require.NoError(r.t, r.ranges.publish(data, published))
	for _, p := range r.tenants {
		r.checker.owe(p.key(), p.opening(r.ranges))
	}
	r.server.SetAnswer(harness.ServeDocument(data, published))
	return token
}

// await waits until the agent has accepted a document and every NetworkPolicy opens what it owes.
func (r *replay) await(token string) {
	hasToken := func(c *corev1.ConfigMap) bool { return c.Annotations["egress-controller/sync-token"] == token }
	harness.AwaitSavedRanges(r.t, "of the document "+token, hasToken)
	deadline := time.Now().Add(5 * time.Minute)
	for {
		missing := r.checker.missing()
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			r.checker.require(r.t)
			require.FailNow(r.t, "the agent does not write what it owes", missing)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// next replays a document. It returns how many NetworkPolicies the agent wrote, and how many of them first as a union.
func (r *replay) next(file string) (writes, unions int) {
	r.checker.settle()
	r.await(r.serve(file))
	writes, unions = r.checker.counts()
	r.checker.require(r.t)
	return writes, unions
}

func (r *replay) memory(field string) int64 {
	bytes, err := measure.Memory(r.agent.Process.Pid, field)
	require.NoError(r.t, err)
	return bytes
}
